//! The stage of a development fleet while it is being set up: everything that has to be watched at once,
//! one wait that watches it, and the lines that tell a newcomer how far it is.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::crew::Crew;
use super::inner::{Call, Inner, Outcome};
use super::packet_filter::PacketFilter;
use super::place::Place;
use super::process::tail;
use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// How often things are looked at while something is waited for: a fiftieth of a second is not noticed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Everything.
pub struct Stage<'s, 'a> {
    /// Streams and flags of the invocation.
    pub session: &'s mut Session<'a>,
    /// The folder.
    pub place: Place,
    /// The processes.
    pub crew: Crew,
    /// fleetctl's own commands.
    pub inner: Inner,
    /// Ctrl-C and its relatives.
    pub signals: Signals,
    /// When it began.
    pub since: Instant,
    /// Packet filters before nodes; they let nobody through once they are gone.
    pub filters: Vec<PacketFilter>,
    /// From here on a process that ends is started again; before, its end is the end of all.
    pub is_up: bool,
}

/// SIGINT, SIGTERM and SIGHUP.
#[derive(Debug)]
pub struct Signals {
    all: [Signal; 3],
}

impl Signals {
    /// From now on they come here.
    pub fn listen() -> Result<Self, Failure> {
        let listen = || -> std::io::Result<Self> {
            let [interrupt, terminate, hangup] =
                [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            Ok(Self { all: [signal(interrupt)?, signal(terminate)?, signal(hangup)?] })
        };
        listen().map_err(|error| Failure::unexpected("signals cannot be received", &error))
    }

    /// The next of them.
    pub async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.all;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

impl Stage<'_, '_> {
    /// One line: seconds since the start, what it is about, what happened.
    pub fn tell(&mut self, about: &str, what: impl AsRef<str>) {
        say(self.session, self.since, about, what.as_ref());
    }

    /// Looks again and again until there is something, while everything is watched. `what` is for the message
    /// when the limit is reached.
    pub async fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&mut Self) -> Option<Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            if Instant::now() >= end {
                let what = format!("waited {} s for {what}", limit.as_secs());
                let failure = Failure::new(ExitCode::TimedOut, "dev-timeout", what);
                return Err(failure.cause(format!("logs: {}", self.place.path("logs").display())));
            }
            tokio::select! {
                _ = ticks.tick() => self.watch()?,
                () = self.signals.next() => return Err(interrupted()),
            }
        }
    }

    /// The end of a call of fleetctl's own, while everything is watched.
    pub async fn outcome(&mut self, mut call: Call, what: &str, limit: Duration) -> Result<Outcome, Failure> {
        self.until(what, limit, move |_| match call.try_recv() {
            Ok(outcome) => Some(Ok(outcome)),
            Err(tokio::sync::oneshot::error::TryRecvError::Empty) => None,
            Err(error) => Some(Err(Failure::unexpected(format!("{what} broke"), &error))),
        })
        .await
    }

    /// Looks at all processes once.
    pub fn watch(&mut self) -> Result<(), Failure> {
        if self.is_up {
            for line in self.crew.look(Instant::now()) {
                self.tell("watch", line);
            }
            return Ok(());
        }
        let Some((name, status, log)) = self.crew.first_end() else { return Ok(()) };
        Err(ended(&name, status, &log))
    }
}

/// One line of progress.
pub fn say(session: &mut Session<'_>, since: Instant, about: &str, what: &str) {
    session.say(format!("{:5.1} s  {about:<10} {what}", since.elapsed().as_secs_f64()));
}

/// The failure of a process that should have gone on, or ended well, with the end of its log.
pub fn ended(name: &str, status: std::process::ExitStatus, log: &std::path::Path) -> Failure {
    let failure = Failure::new(ExitCode::Unexpected, "dev-process", format!("{name} ended: {status}"));
    let failure = tail(log).into_iter().fold(failure, Failure::cause);
    failure.fix(format!("all of its log, with --keep or --dir: {}", log.display()))
}

fn interrupted() -> Failure {
    Failure::new(
        ExitCode::Interrupted,
        "interrupted",
        "interrupted before the fleet was up; everything is stopped",
    )
}
