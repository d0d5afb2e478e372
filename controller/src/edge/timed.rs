//! A connection that is closed when nothing comes over it for a while, and after a time whatever comes.
//!
//! For the port that serves strangers: a place there must not be kept by saying nothing, nor by answering pings.
//! What we send is no sign of life, and a peer that takes nothing is under the same limit.

use std::io;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::settings::Limits;

struct Ends {
    idle: Duration,
    too_old: Instant,
    timer: Pin<Box<Sleep>>,
}

/// A stream under limits, where there are some.
pub struct Timed<S> {
    stream: S,
    ends: Option<Ends>,
}

impl<S> Timed<S> {
    /// The time runs from now on.
    pub fn new(stream: S, limits: Option<Limits>) -> Self {
        let ends = limits.map(|limits| {
            let now = Instant::now();
            let too_old = now + limits.life;
            let timer = Box::pin(sleep_until(too_old.min(now + limits.idle)));
            Ends { idle: limits.idle, too_old, timer }
        });
        Self { stream, ends }
    }

    /// Is its time over? Asked on every poll, so that the task is woken at that instant, whatever it waits for.
    fn check(&mut self, cx: &mut TaskContext<'_>) -> io::Result<()> {
        let Some(ends) = &mut self.ends else { return Ok(()) };
        match ends.timer.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => {
                let why = "the connection was idle or open for too long";
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
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
        if buf.filled().len() > before
            && let Some(ends) = &mut self.ends
        {
            let until = ends.too_old.min(Instant::now() + ends.idle);
            ends.timer.as_mut().reset(until);
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
        let mut ours = Timed::new(ours, Some(Limits { idle: IDLE, life: 100 * SOON }));
        let error = timeout(SOON, ours.read_u8()).await.expect("an end").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= IDLE, "{:?}", began.elapsed());
        assert!(ours.write_u8(1).await.is_err(), "nothing goes on afterwards");
    }

    #[tokio::test]
    async fn a_peer_who_goes_on_talking_stays_beyond_the_idle_limit_and_not_beyond_the_other() {
        let (ours, mut theirs) = duplex(64);
        let began = Instant::now();
        let mut ours = Timed::new(ours, Some(limits()));
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
        let mut ours = Timed::new(ours, Some(limits()));
        let error = timeout(SOON, ours.write_all(&[0; 1000])).await.expect("an end").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn without_limits_nothing_ends() {
        let (ours, _theirs) = duplex(16);
        let mut ours = Timed::new(ours, None);
        assert!(timeout(LIFE, ours.read_u8()).await.is_err(), "it still waits");
    }
}
