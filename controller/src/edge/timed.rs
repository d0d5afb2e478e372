//! A connection that is closed when it begins no HTTP/2, and when its place is lost to a newer one.
//!
//! On the port that serves strangers also when nothing comes over it for a while, and after a time whatever
//! comes: a place there must not be kept by saying nothing, nor by answering pings. What we send is no sign of
//! life, and a peer that takes nothing is under the same limit. Elsewhere pings find those that are gone, and
//! they begin after the preface.

use std::io;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::identity_places::PlaceLost;
use crate::settings::Limits;

/// Length of what a client of HTTP/2 begins with (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;

struct Ends {
    /// Of the preface, not there yet.
    missing: usize,
    /// After the preface.
    limits: Option<Limits>,
    too_old: Instant,
    timer: Pin<Box<Sleep>>,
}

/// A stream under limits, as long as there are some.
pub struct Timed<S> {
    stream: S,
    ends: Option<Ends>,
    lost: Option<PlaceLost>,
}

impl<S> Timed<S> {
    /// The time runs from now on.
    pub fn new(stream: S, preface: Duration, limits: Option<Limits>, lost: Option<PlaceLost>) -> Self {
        let now = Instant::now();
        let too_old = now + limits.map_or(preface, |limits| limits.life);
        let timer = Box::pin(sleep_until(too_old.min(now + preface)));
        Self { stream, ends: Some(Ends { missing: PREFACE_BYTES, limits, too_old, timer }), lost }
    }

    /// Is its time over? Asked on every poll, so that the task is woken at that instant, whatever it waits for.
    fn check(&mut self, cx: &mut TaskContext<'_>) -> io::Result<()> {
        if let Some(lost) = &mut self.lost
            && Pin::new(lost).poll(cx).is_ready()
        {
            self.lost = None;
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "newer connections took its place"));
        }
        let Some(ends) = &mut self.ends else { return Ok(()) };
        match ends.timer.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => {
                let why = "the connection was idle or open for too long";
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            }
        }
    }

    /// Notes what came.
    fn heard(&mut self, bytes: usize) {
        let Some(ends) = &mut self.ends else { return };
        ends.missing = ends.missing.saturating_sub(bytes);
        if ends.missing > 0 {
            return;
        }
        match ends.limits {
            None => self.ends = None,
            Some(limits) => {
                ends.timer.as_mut().reset(ends.too_old.min(Instant::now() + limits.idle));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        if bytes > 0 {
            self.heard(bytes);
            // Registered anew: a timer that was moved forgets nobody, but it must have been polled since.
            self.check(cx)?;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::timeout;

    use super::*;

    /// Limit of a test for one thing to happen.
    const SOON: Duration = Duration::from_secs(5);
    const IDLE: Duration = Duration::from_millis(50);
    const LIFE: Duration = Duration::from_millis(200);

    fn limits() -> Limits {
        Limits { idle: IDLE, life: LIFE }
    }

    #[tokio::test]
    async fn a_peer_who_says_nothing_is_let_go_after_the_idle_limit() {
        let (ours, _theirs) = duplex(64);
        let began = Instant::now();
        let mut ours = Timed::new(ours, IDLE, Some(Limits { idle: IDLE, life: 100 * SOON }), None);
        let error = timeout(SOON, ours.read_u8()).await.expect("an end").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= IDLE, "{:?}", began.elapsed());
        assert!(ours.write_u8(1).await.is_err(), "nothing goes on afterwards");
    }

    #[tokio::test]
    async fn a_peer_who_goes_on_talking_stays_beyond_the_idle_limit_and_not_beyond_the_other() {
        let (ours, mut theirs) = duplex(64);
        let began = Instant::now();
        let mut ours = Timed::new(ours, IDLE, Some(limits()), None);
        let error = timeout(SOON, async {
            loop {
                theirs.write_u8(1).await.unwrap();
                if let Err(error) = ours.read_u8().await {
                    return error;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("an end");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= LIFE, "talking kept it for its whole life: {:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_peer_who_takes_nothing_is_let_go_too() {
        let (ours, _theirs) = duplex(16);
        let mut ours = Timed::new(ours, IDLE, Some(limits()), None);
        let error = timeout(SOON, ours.write_all(&[0; 1000])).await.expect("an end").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn without_limits_nothing_ends_after_the_preface_and_everything_before() {
        for (bytes, ends) in [(PREFACE_BYTES, false), (PREFACE_BYTES - 1, true), (0, true)] {
            let (ours, mut theirs) = duplex(64);
            let mut ours = Timed::new(ours, IDLE, None, None);
            theirs.write_all(&vec![0; bytes]).await.unwrap();
            let read = timeout(LIFE, async {
                loop {
                    if let Err(error) = ours.read_u8().await {
                        return error.kind();
                    }
                }
            });
            let ended = read.await.ok();
            assert_eq!(ended, ends.then_some(io::ErrorKind::TimedOut), "{bytes} bytes");
        }
    }

    #[tokio::test]
    async fn a_connection_whose_place_is_lost_ends_while_it_waits() {
        let (ours, _theirs) = duplex(64);
        let (place, lost) = tokio::sync::oneshot::channel();
        let mut ours = Timed::new(ours, SOON, None, Some(lost));
        let (error, ()) = tokio::join!(ours.read_u8(), async { drop(place) });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
