//! How many connections one certificate's owner may have at once: a stolen one must not take all places.
//!
//! The eldest one goes, not the newest: behind a link that broke without a word its connection stands for a
//! while, and the node that comes back must not wait for it.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use fleet_certs::name::{Identity, Role};
use tokio::sync::oneshot;

/// An agent has one link; while it comes back over another path, one or two dead ones are still counted.
const OF_AN_AGENT: usize = 3;
/// Each command that runs is one connection: a few watches, and a script that starts a few dozen side by side.
const OF_AN_OPERATOR: usize = 48;

/// Comes, as an error, when the place is lost.
pub type PlaceLost = oneshot::Receiver<Infallible>;
type Held = HashMap<Identity, VecDeque<(u64, oneshot::Sender<Infallible>)>>;

/// The connections of everybody who has a certificate.
#[derive(Default)]
pub struct IdentityPlaces {
    held: Mutex<(u64, Held)>,
}

/// One connection's place; given back when it is dropped.
pub struct IdentityPlace {
    places: Arc<IdentityPlaces>,
    identity: Identity,
    id: u64,
}

/// What a new connection gets.
pub struct Entered {
    /// Its place.
    pub place: IdentityPlace,
    /// Told when it loses that.
    pub lost: PlaceLost,
    /// Did an elder one have to go?
    pub is_over: bool,
}

impl IdentityPlaces {
    /// A connection with a verified identity is there.
    pub fn enter(self: &Arc<Self>, identity: Identity) -> Entered {
        let most = if identity.role() == Role::Agent { OF_AN_AGENT } else { OF_AN_OPERATOR };
        let (sender, lost) = oneshot::channel();
        let mut guard = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, held) = &mut *guard;
        *next += 1;
        let own = held.entry(identity).or_default();
        own.push_back((*next, sender));
        let is_over = own.len() > most;
        if is_over {
            own.pop_front();
        }
        let place = IdentityPlace { places: Arc::clone(self), identity, id: *next };
        Entered { place, lost, is_over }
    }
}

impl Drop for IdentityPlace {
    fn drop(&mut self) {
        let mut guard = self.places.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = &mut guard.1;
        if let Some(own) = held.get_mut(&self.identity) {
            own.retain(|(id, _)| *id != self.id);
            if own.is_empty() {
                held.remove(&self.identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fleet_types::id::{FleetId, NodeId, OperatorId};
    use tokio::sync::oneshot::error::TryRecvError;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_eldest_connection_of_an_identity_goes_and_nobody_elses() {
        let places = Arc::new(IdentityPlaces::default());
        let fleet = FleetId::from_uuid(Uuid::from_u128(1));
        let node = |n| Identity::Agent(fleet, NodeId::from_uuid(Uuid::from_u128(n)));
        let ada = Identity::Operator(fleet, OperatorId::from_uuid(Uuid::from_u128(2)));
        let mut other = places.enter(node(3));
        let mut own: Vec<_> = (0..3).map(|_| places.enter(node(2))).collect();
        assert!(own.iter().all(|entered| !entered.is_over));
        let people: Vec<_> = (0..OF_AN_OPERATOR).map(|_| places.enter(ada)).collect();
        assert!(people.iter().all(|entered| !entered.is_over), "an id in another role is somebody else");
        let mut newest = places.enter(node(2));
        assert!(newest.is_over);
        assert_eq!(own[0].lost.try_recv(), Err(TryRecvError::Closed));
        for stays in [&mut own[1], &mut newest, &mut other] {
            assert_eq!(stays.lost.try_recv(), Err(TryRecvError::Empty));
        }
        own.remove(1);
        assert!(!places.enter(node(2)).is_over, "a place was given back");
        drop((own, newest, other, people));
        assert!(places.held.lock().unwrap().1.is_empty());
    }
}
