//! Protocol timers and limits: one validated set, so that tests run real processes at 1/50 of the scale.
//!
//! Each number stands here once, with its argument. Nobody reads an environment variable for it.

use std::time::Duration;

use fleet_certs::issue;
use fleet_rollout::Limits as ChangingLimits;

/// How long a connection may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Without a byte from the other side.
    pub idle: Duration,
    /// In all.
    pub life: Duration,
}

/// Limits of one connection until its handshake is over. 2 + 5 s are together below the 10 s that an honest client
/// waits itself. They are the line's and the machine's, so that they stay at every scale.
#[derive(Debug, Clone, Copy)]
pub struct Handshake {
    /// For the whole `ClientHello`. An honest client sends it with the end of its TCP handshake; 2 s bear one lost
    /// packet on a line over a satellite.
    pub hello: Duration,
    /// Wait for a permit: who waits longer has gone.
    pub permit: Duration,
    /// After this a handshake gives its permit to somebody who waits for it. An honest one takes two round trips.
    pub gives_way: Duration,
    /// For the rest, where nobody waits: a bad line.
    pub shake: Duration,
}

impl Handshake {
    const USUAL: Self = Self {
        hello: Duration::from_secs(2),
        permit: Duration::from_secs(10),
        gives_way: Duration::from_secs(1),
        shake: Duration::from_secs(5),
    };
}

/// What one listener lets in; no listener takes another's places.
#[derive(Debug, Clone)]
pub struct Port {
    /// Handshakes under way at once, each some 30 KiB and a millisecond of a core.
    pub handshakes_at_once: usize,
    /// Of them those of one source. A quarter: three others' flood leaves the fourth its share, and a site behind
    /// one address with 50 ms of way still shakes more than 600 hands a second.
    pub handshakes_a_source: usize,
    /// Connections at once, those in their handshake among them.
    pub connections: usize,
    /// Of them those of one source.
    pub connections_a_source: usize,
    /// Limits until the handshake is over.
    pub handshake: Handshake,
    /// From then on for the preface of HTTP/2; pings begin after it.
    pub preface: Duration,
    /// How long each may last; without, as long as it is alive.
    pub limits: Option<Limits>,
}

/// The enrolment port's idle limit never falls below this at a small scale: a client's first bytes after its
/// handshake do not come faster because a test is in a hurry.
#[cfg(any(test, feature = "scaled-timers"))]
const MIN_IDLE: Duration = Duration::from_secs(2);

/// Timers and limits of the controller.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Told to agents; 30 s keeps 100,000 idle agents at 3,300 small messages a second (§2.7).
    pub heartbeat: Duration,
    /// An offer that was not answered is sent again after this (§2.7).
    pub offer: Duration,
    /// When an agent that is turned away because its node is held comes again: a person has to look first, and
    /// is not made to wait long after that.
    pub held_retry: Duration,
    /// How long the runner may go without a look at everything, in case a ring was lost.
    pub pass_period: Duration,
    /// After losing an established link agents wait uniform(0, spread) (§2.13); the controller raises it with
    /// the number of its nodes.
    pub reconnect_spread_min: Duration,
    /// Handshakes a second that the spread reckons with: half of what one core measured, so that the
    /// other half is left for work.
    pub handshakes_per_second: u32,
    /// What the port for agents and operators lets in. 15,000 connections: with the other port's, store and output
    /// below the 20,000 open files that a process usually has. Pings find those that are gone. A whole fleet may
    /// be behind one address, so that a source has no share of its own; an identity has (`edge/identity_places.rs`).
    pub agent_port: Port,
    /// What the enrolment port lets in. It serves strangers, so it has places of its own and they are given back
    /// soon: an enrolment is one call, a second of work, and a lost one is repeated with the same answer. 1,000
    /// machines at once are more than a fleet brings up, a quarter of them more than a site; 10 s without a byte
    /// and a minute in all bear a bad line.
    pub enrol_port: Port,
    /// Calls that enrol a token or address may make in a minute.
    pub enrol_per_minute: u32,
    /// Life of an agent's certificate (§1.8).
    pub agent_certificate: Duration,
    /// Life of an operator's certificate.
    pub operator_certificate: Duration,
    /// Life of the controller's own: as an agent's, so that its renewal is nothing rare.
    pub controller_certificate: Duration,
    /// Below this much free space no output of steps is written: twice the floor of the store, which as a rule
    /// lies on the same file system, so that output stops long before the store refuses new work.
    pub output_floor_bytes: u64,
    /// How long open connections may take to end at shutdown.
    pub drain: Duration,
    /// How many nodes may be in change at once over all runs, as the operators of this fleet say (docs/adr/0022).
    pub changing: ChangingLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(30),
            offer: Duration::from_secs(30),
            held_retry: Duration::from_mins(5),
            pass_period: Duration::from_secs(15),
            reconnect_spread_min: Duration::from_secs(2),
            handshakes_per_second: 1500,
            agent_port: Port {
                handshakes_at_once: 256,
                handshakes_a_source: 64,
                connections: 15_000,
                connections_a_source: 15_000,
                handshake: Handshake::USUAL,
                preface: Duration::from_secs(10),
                limits: None,
            },
            enrol_port: Port {
                handshakes_at_once: 64,
                handshakes_a_source: 16,
                connections: 1_000,
                connections_a_source: 250,
                handshake: Handshake::USUAL,
                preface: Duration::from_secs(5),
                limits: Some(Limits { idle: Duration::from_secs(10), life: Duration::from_mins(1) }),
            },
            enrol_per_minute: 30,
            agent_certificate: issue::AGENT_LIFETIME,
            operator_certificate: issue::OPERATOR_LIFETIME,
            controller_certificate: issue::CONTROLLER_LIFETIME,
            output_floor_bytes: 512 * 1024 * 1024,
            drain: Duration::from_secs(10),
            changing: ChangingLimits::default(),
        }
    }
}

impl Settings {
    /// All timers divided by `by`, for tests with real processes; limits and certificates stay.
    #[cfg(any(test, feature = "scaled-timers"))]
    #[must_use]
    pub fn scaled(mut self, by: u32) -> Self {
        let by = by.max(1);
        for timer in [
            &mut self.heartbeat,
            &mut self.offer,
            &mut self.held_retry,
            &mut self.pass_period,
            &mut self.reconnect_spread_min,
        ] {
            *timer /= by;
        }
        if let Some(limits) = &mut self.enrol_port.limits {
            limits.idle = (limits.idle / by).max(MIN_IDLE.min(limits.idle));
        }
        self
    }

    /// The spread that is told to agents when `connected` of them are here.
    pub fn reconnect_spread(&self, connected: usize) -> Duration {
        let by_rate = Duration::from_millis(
            (connected as u64).saturating_mul(1000) / u64::from(self.handshakes_per_second.max(1)),
        );
        by_rate.max(self.reconnect_spread_min)
    }
}
