//! The owner of the link: pause, dial, live, again. What the executor says is taken in at all times.

use fleet_proto::pb::{self, core_message, executor_message};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::dial::Dialer;
use super::ending::Ended;
use super::live;
use super::opened::{NotOpened, Opened};
use super::state::LinkState;
use crate::clock;
use crate::config::Timers;
use crate::core::backoff::{Backoff, Ending};
use crate::core::executor_channel::{ExecutorChannel, STUCK_LIMIT};
use crate::core::identity_in_use::IdentityInUse;
use crate::core::renewal::NotRenewed;

/// Why the core cannot go on. Losing a controller is none of these.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The executor said nothing at start.
    #[error("the executor did not say that it is ready within {} s", STUCK_LIMIT.as_secs())]
    NotReady,
    /// Its first message was something else.
    #[error("the executor's first message was not that it is ready")]
    NotReadyFirst,
    /// It closed the socket.
    #[error(
        "the executor is gone: its last log lines say why; when its journal cannot be written, make room and restart"
    )]
    ExecutorGone,
    /// It takes no messages any more.
    #[error("the executor hangs: it took or said nothing for {} s", STUCK_LIMIT.as_secs())]
    ExecutorStuck,
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    dialer: Dialer,
    timers: Timers,
    channel: ExecutorChannel,
    state: LinkState,
    identity: IdentityInUse,
}

impl Link {
    /// Waits for the executor's first message, which brings what Hello needs.
    pub async fn new(
        dialer: Dialer,
        timers: Timers,
        mut channel: ExecutorChannel,
        identity: IdentityInUse,
    ) -> Result<Self, LinkError> {
        let first = timeout(STUCK_LIMIT, channel.from.next()).await.map_err(|_| LinkError::NotReady)?;
        let Some(executor_message::Body::Ready(pb::Ready { hello: Some(hello) })) = first else {
            return Err(first.map_or(LinkError::ExecutorGone, |_| LinkError::NotReadyFirst));
        };
        let state = LinkState::new(hello, &timers);
        Ok(Self { dialer, timers, channel, state, identity })
    }

    /// Runs until `stop`, then lets the executor finish and flushes within the grace period.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LinkError> {
        let timers = &self.timers;
        let mut backoff = Backoff::new(timers.backoff_min, timers.backoff_max, timers.stable_link);
        let mut told = false;
        loop {
            let (now, valid_from) = (clock::now(), self.identity.valid_from());
            let (is_early, is_late) = (now < valid_from, now >= self.identity.valid_until());
            if is_early && !told {
                error!(
                    %valid_from, clock = %now,
                    "this machine's clock is wrong: the certificate of this node is not valid yet; waiting until it is set"
                );
            }
            let ending = if is_early {
                Some(Ending::NeverUp)
            } else if is_late {
                self.come_back(&stop, !told).await?
            } else {
                self.one_link(&stop).await?
            };
            told = is_early || is_late;
            let Some(ending) = ending else { return Ok(()) };
            let pause = backoff.after(ending);
            let length = pause.fixed + clock::uniform(pause.jitter);
            info!(pause_ms = length.as_millis(), "dialling again after a pause");
            let pause = sleep_until(Instant::now() + length);
            if absorbing(&mut self.channel, &mut self.state, &self.dialer, &stop, pause).await?.is_none() {
                return Ok(());
            }
        }
    }

    /// The certificate has ended: asks the enrolment service for another one; `None` when the agent is to stop.
    async fn come_back(&mut self, stop: &CancellationToken, tell: bool) -> Result<Option<Ending>, LinkError> {
        let Some(attempt) = self.identity.come_back() else {
            if tell {
                error!(
                    valid_until = %self.identity.valid_until(), clock = %clock::now(),
                    "the certificate of this node has ended: set the clock if it is wrong; or set controller.enrol and restart, so that it can come back"
                );
            }
            return Ok(Some(Ending::NeverUp));
        };
        let Self { dialer, channel, state, .. } = self;
        let Some(ended) = absorbing(channel, state, dialer, stop, attempt.carry_out()).await? else {
            return Ok(None);
        };
        let retry_after = match &ended {
            Err(NotRenewed::Refused(_, retry_after)) => *retry_after,
            _ => None,
        };
        Ok(Some(match (self.identity.on_back(ended), retry_after) {
            (true, _) => Ending::Renewed,
            (false, Some(retry_after)) => Ending::TurnedAway { retry_after },
            (false, None) => Ending::NeverUp,
        }))
    }

    /// One attempt, from dialling to the end of the link; `None` when the agent is to stop.
    async fn one_link(&mut self, stop: &CancellationToken) -> Result<Option<Ending>, LinkError> {
        let (dialer, hello) = (self.dialer.clone(), self.state.hello());
        let limit = self.timers.hello;
        let opening = async move {
            let clients = dialer.dial().await.ok_or(NotOpened::default())?;
            Opened::open(clients, hello, limit).await
        };
        let opened = match absorbing(&mut self.channel, &mut self.state, &self.dialer, stop, opening).await? {
            None => return Ok(None),
            Some(Ok(opened)) => opened,
            Some(Err(not_opened)) => {
                let fault = self.dialer.refusal();
                if let Some(fault) = fault {
                    warn!("{fault}");
                }
                if fault.is_some() || not_opened.certificate_refused {
                    self.identity.on_refused();
                }
                let turned_away = |retry_after| Ending::TurnedAway { retry_after };
                return Ok(Some(not_opened.retry_after.map_or(Ending::NeverUp, turned_away)));
            }
        };
        let began = Instant::now();
        info!(endpoint = opened.clients.endpoint, link_epoch = opened.epoch, "link is up");
        self.identity.on_link_up();
        let spread = opened.spread().unwrap_or(self.timers.spread);
        let Self { dialer, timers, channel, state, identity } = self;
        let ended = live::run(opened, state, channel, timers, (dialer, identity), stop).await?;
        let lasted = began.elapsed();
        self.channel.to.push(core_message::Body::LinkDown(pb::LinkDown {}));
        self.state.on_link_down();
        Ok(match ended {
            Ended::Stopped => None,
            Ended::Renewed => Some(Ending::Renewed),
            Ended::Goodbye { reason, retry_after } => {
                info!(reason, "controller said goodbye");
                Some(Ending::Goodbye { retry_after, lasted, spread })
            }
            Ended::Lost(lost) => {
                warn!(lasted_s = lasted.as_secs(), "link is lost: {lost}");
                Some(Ending::Lost { lasted, spread })
            }
        })
    }
}

/// Drives `work` while the executor's messages are taken in; `None` when the agent is to stop.
async fn absorbing<T>(
    channel: &mut ExecutorChannel,
    state: &mut LinkState,
    dialer: &Dialer,
    stop: &CancellationToken,
    work: impl Future<Output = T>,
) -> Result<Option<T>, LinkError> {
    let mut work = std::pin::pin!(work);
    loop {
        let stuck = channel.to.stuck_at();
        state.paths.start(dialer);
        tokio::select! {
            done = &mut work => return Ok(Some(done)),
            answer = state.paths.answered() => channel.to.push(core_message::Body::Path(answer)),
            () = stop.cancelled() => return Ok(None),
            message = channel.from.next(), if state.outbox.has_room() => {
                match message {
                    Some(message) => {
                        state.on_executor(message);
                    }
                    None if channel.from.has_left() || stop.is_cancelled() => return Ok(None),
                    None => return Err(LinkError::ExecutorGone),
                }
            }
            () = channel.to.progress() => {}
            () = sleep_until(stuck.unwrap_or_else(Instant::now)), if stuck.is_some() => {
                return Err(LinkError::ExecutorStuck);
            }
        }
    }
}
