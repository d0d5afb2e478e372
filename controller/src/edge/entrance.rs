//! The way in of one port: carries out what [`super::admission`] decides. A connection holds a [`Place`] from its
//! accept until it is dropped.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, interval_at, timeout};

use super::admission::{Admission, Arrival, Caps, Id};
use crate::settings::{Handshake, Port};

/// A pending connection is told by this: a message is its permit, and without one it has lost its place.
type Permit = oneshot::Sender<()>;

/// The places of one port.
pub struct Entrance {
    admission: Mutex<Admission<Permit>>,
    left: Notify,
    limits: Handshake,
}

/// One connection's place.
pub struct Place {
    entrance: Arc<Entrance>,
    id: Id,
    permit: Option<oneshot::Receiver<()>>,
}

impl Entrance {
    /// Of a port.
    pub fn new(port: &Port) -> Self {
        let caps = Caps {
            connections: port.connections,
            connections_a_source: port.connections_a_source,
            handshakes: port.handshakes_at_once,
            handshakes_a_source: port.handshakes_a_source,
        };
        Self { admission: Mutex::new(Admission::new(caps)), left: Notify::new(), limits: port.handshake }
    }

    fn lock(&self) -> MutexGuard<'_, Admission<Permit>> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until another connection may be accepted.
    pub async fn room(&self) {
        loop {
            // Asked for before the look, so that no place that is given back in between is missed.
            let left = self.left.notified();
            if self.lock().has_room() {
                return;
            }
            left.await;
        }
    }

    /// A connection was accepted; without a place it is to be closed.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let (permit, receiver) = oneshot::channel();
        // Whoever lost their place learns it by the loss of their sender.
        let Arrival::Taken { id, .. } = self.lock().arrive(address.into(), permit) else { return None };
        Some(Place { entrance: Arc::clone(self), id, permit: Some(receiver) })
    }

    fn change<R>(&self, change: impl FnOnce(&mut Admission<Permit>) -> R) -> R {
        let mut admission = self.lock();
        let result = change(&mut admission);
        while let Some(permit) = admission.grant() {
            // Gone in this instant: its place gives the permit back as it is dropped.
            let _ = permit.send(());
        }
        drop(admission);
        self.left.notify_waiters();
        result
    }
}

impl Place {
    /// Does what is done before a permit, as long as the place is not lost and within a limit.
    pub async fn before_hello<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Lost> {
        let Some(permit) = &mut self.permit else { return Err(Lost::Evicted) };
        tokio::select! {
            biased;
            _ = permit => Err(Lost::Evicted),
            done = timeout(self.entrance.limits.hello, work) => done.map_err(|_| Lost::Silent),
        }
    }

    /// Waits for a permit to shake hands.
    pub async fn permit(&mut self) -> Result<(), Lost> {
        let Some(permit) = self.permit.take() else { return Err(Lost::Evicted) };
        self.entrance.change(|admission| admission.said_hello(self.id));
        match timeout(self.entrance.limits.permit, permit).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Lost::Evicted),
        }
    }

    /// Does a handshake within its limit; one that takes long gives way to those who wait.
    pub async fn shake<T>(&self, work: impl Future<Output = T>) -> Result<T, Lost> {
        let limits = self.entrance.limits;
        let gives_way = async {
            let mut look = interval_at(Instant::now() + limits.gives_way, limits.gives_way / 4);
            loop {
                look.tick().await;
                if self.entrance.change(|admission| admission.yields(self.id)) {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            done = timeout(limits.shake, work) => done.map_err(|_| Lost::Stalled),
            () = gives_way => Err(Lost::Evicted),
        }
    }

    /// The handshake is over: the permit goes on to the next one.
    pub fn opened(&self) {
        self.entrance.change(|admission| admission.opened(self.id));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.entrance.change(|admission| admission.leave(self.id));
    }
}

/// Why a connection ended before its handshake did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// No `ClientHello` in time, or none at all.
    #[error("sent no hello")]
    Silent,
    /// Began and did not go on.
    #[error("stalled in its handshake")]
    Stalled,
    /// Others needed the place or permit.
    #[error("gave way to others")]
    Evicted,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Limit of a test for one thing to happen.
    const SOON: Duration = Duration::from_secs(5);

    fn entrance(connections: usize) -> Arc<Entrance> {
        let limits = Handshake {
            hello: Duration::from_millis(50),
            permit: SOON,
            gives_way: Duration::from_millis(20),
            shake: Duration::from_millis(100),
        };
        Arc::new(Entrance::new(&Port {
            handshakes_at_once: 1,
            handshakes_a_source: 1,
            connections,
            connections_a_source: connections,
            handshake: limits,
            preface: SOON,
            limits: None,
        }))
    }

    fn source(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[tokio::test]
    async fn silence_ends_by_its_limit_and_earlier_when_somebody_needs_the_place() {
        let entrance = entrance(1);
        let mut silent = entrance.enter(source(1)).unwrap();
        assert_eq!(silent.before_hello(std::future::pending::<()>()).await, Err(Lost::Silent));
        let began = Instant::now();
        let evicted = silent.before_hello(async {
            entrance.enter(source(2)).expect("a place");
            std::future::pending::<()>().await;
        });
        assert_eq!(evicted.await, Err(Lost::Evicted));
        assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_stalled_handshake_gives_its_permit_to_whoever_waits_and_ends_by_its_limit_otherwise() {
        let entrance = entrance(10);
        let mut alone = entrance.enter(source(1)).unwrap();
        alone.permit().await.unwrap();
        assert_eq!(alone.shake(std::future::pending::<()>()).await, Err(Lost::Stalled));
        drop(alone);
        let mut stalled = entrance.enter(source(1)).unwrap();
        stalled.permit().await.unwrap();
        let mut honest = entrance.enter(source(2)).unwrap();
        let (lost, permit) = tokio::join!(stalled.shake(std::future::pending::<()>()), honest.permit());
        assert_eq!((lost, permit), (Err(Lost::Evicted), Ok(())));
        assert_eq!(honest.shake(async { 7 }).await, Ok(7));
    }

    #[tokio::test]
    async fn a_full_port_takes_no_place_of_the_other_and_goes_on_when_one_is_given_back() {
        let (strangers, agents) = (entrance(1), entrance(1));
        let mut open = strangers.enter(source(1)).unwrap();
        open.permit().await.unwrap();
        open.opened();
        assert!(strangers.enter(source(2)).is_none());
        assert!(agents.enter(source(2)).is_some(), "the other port has its own places");
        let room = strangers.room();
        tokio::pin!(room);
        assert!(timeout(Duration::from_millis(20), &mut room).await.is_err(), "it is full");
        drop(open);
        timeout(SOON, room).await.expect("room");
    }
}
