//! The handle of a scripted agent, as stories hold it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet_proto::pb;
use fleet_types::id::{Attempt, RunId};
use fleet_types::job::Outcome;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::activity::Activity;
use super::enrol::Credentials;
use super::journal::{JobKey, Journal, SealedReport};
use super::link::{self, Raw};
use super::script::{Script, Work};
use crate::wait::{PATIENCE, pass, wait_for};

/// Messages that a story puts in by hand: a handful at a time.
const RAW: usize = 64;

/// What the handle and the link's task share.
pub struct Shared {
    /// Who it is.
    pub credentials: Credentials,
    /// Where the controller is.
    pub address: SocketAddr,
    /// Source address, where it is chosen.
    pub source: Option<IpAddr>,
    /// Told of every start and end.
    pub activity: Arc<Activity>,
    /// Something is to be sent, or the script changed.
    pub changed: Notify,
    script: Mutex<Script>,
    journal: Mutex<Journal>,
    links: Mutex<Links>,
}

/// What is known of the agent's links.
#[derive(Debug, Clone, Default)]
pub struct Links {
    /// Sessions that got their welcome.
    pub welcomed: u32,
    /// Sessions whose reconcile was answered.
    pub reconciled: u32,
    /// Is one up now, after its reconcile?
    pub up: bool,
    /// Why each ended, newest last; the code where the controller gave one.
    pub ends: Vec<(Option<tonic::Code>, String)>,
    /// Decisions of reconcile, as (run, decision).
    pub decisions: Vec<(RunId, pb::reconcile_decision::Decision)>,
    /// When which cancel came, newest last.
    pub cancels: Vec<(RunId, std::time::Instant)>,
    /// When the newest welcome came, microseconds since 1970.
    pub welcomed_us: u64,
    /// When the newest acknowledgement came, microseconds since 1970.
    pub acked_us: u64,
    /// When the first assignment since the last look came, microseconds since 1970.
    pub assigned_us: u64,
}

impl Shared {
    /// Reads or changes the script.
    pub fn script<T>(&self, act: impl FnOnce(&mut Script) -> T) -> T {
        act(&mut self.script.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads or changes the journal.
    pub fn journal<T>(&self, act: impl FnOnce(&mut Journal) -> T) -> T {
        act(&mut self.journal.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads or changes what is known of links.
    pub fn links<T>(&self, act: impl FnOnce(&mut Links) -> T) -> T {
        act(&mut self.links.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends a job as the script says.
    pub fn finish(&self, key: JobKey) {
        let outcome = self.script(|script| script.outcome);
        self.finish_with(key, outcome);
    }

    /// Ends a job.
    pub fn finish_with(&self, key: JobKey, outcome: Outcome) {
        self.activity.end(key.0, &self.credentials.name);
        let reason = if outcome.is_success() { "" } else { "the script says so" };
        self.journal(|journal| {
            if let Err(error) = journal.finish(key, outcome, reason) {
                journal.faults.push(format!("run {} cannot end: {error}", key.0));
            }
        });
        self.changed.notify_one();
    }

    /// Begins the work of an accepted job; it goes on without a link.
    pub fn begin(self: &Arc<Self>, key: JobKey) {
        self.activity.begin(key.0, &self.credentials.name, self.credentials.pair.as_deref());
        match self.script(|script| script.work) {
            Work::AtOnce => self.finish(key),
            Work::Hold => {}
            Work::For(time) => {
                let shared = Arc::clone(self);
                tokio::spawn(async move {
                    pass(time).await;
                    shared.finish(key);
                });
            }
        }
    }
}

/// A scripted agent. Dropping it ends its link at once, as SIGKILL would; its jobs that only pass time go on.
pub struct FakeAgent {
    shared: Arc<Shared>,
    raw: mpsc::Sender<Raw>,
    _link: AbortOnDropHandle<()>,
}

impl FakeAgent {
    /// Starts an agent; it connects by itself.
    pub fn start(
        credentials: Credentials,
        address: SocketAddr,
        source: Option<IpAddr>,
        script: Script,
        activity: Arc<Activity>,
    ) -> Result<Self> {
        let journal = Journal::new(credentials.fleet, credentials.node, credentials.report_key()?);
        let tls = credentials.tls()?;
        let shared = Arc::new(Shared {
            credentials,
            address,
            source,
            activity,
            changed: Notify::new(),
            script: Mutex::new(script),
            journal: Mutex::new(journal),
            links: Mutex::default(),
        });
        let (raw, from_story) = mpsc::channel(RAW);
        let task = tokio::spawn(link::run(Arc::clone(&shared), tls, from_story));
        Ok(Self { shared, raw, _link: AbortOnDropHandle::new(task) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.credentials.name
    }

    /// Who it is.
    pub fn credentials(&self) -> &Credentials {
        &self.shared.credentials
    }

    /// Changes the script; what waits is looked at again.
    pub fn script(&self, act: impl FnOnce(&mut Script)) {
        self.shared.script(act);
        self.shared.changed.notify_one();
    }

    /// Reads or changes the journal.
    pub fn journal<T>(&self, act: impl FnOnce(&mut Journal) -> T) -> T {
        self.shared.journal(act)
    }

    /// What is known of its links.
    pub fn links(&self) -> Links {
        self.shared.links(|links| links.clone())
    }

    /// Begins a new measurement: when the next assignment comes is noted anew.
    pub fn forget_times(&self) {
        self.shared.links(|links| links.assigned_us = 0);
    }

    /// Puts a message in by hand.
    pub async fn send(&self, raw: Raw) -> Result<()> {
        self.raw.send(raw).await.ok().context("the agent has ended")
    }

    /// Ends a held job as the script says.
    pub fn release(&self, run: RunId) {
        self.shared.finish((run, Attempt(1)));
    }

    /// Breaks the link now, as a network would; the script says whether it comes back.
    pub async fn break_link(&self) -> Result<()> {
        self.send(Raw::Break).await
    }

    /// Waits until a link is up and reconciled.
    pub async fn online(&self) -> Result<()> {
        wait_for(&format!("{} to be online", self.name()), PATIENCE, async || {
            let links = self.links();
            anyhow::ensure!(links.up, "its links ended with {:?}", links.ends.last());
            Ok(Some(()))
        })
        .await
    }

    /// Waits until a run's report is acknowledged; gives it back.
    pub async fn acknowledged(&self, run: RunId) -> Result<SealedReport> {
        wait_for(
            &format!("the report of {} on run {run} to be acknowledged", self.name()),
            PATIENCE,
            async || {
                Ok(self.journal(|journal| {
                    journal.job(run).filter(|job| job.acked).and_then(|job| job.report.clone())
                }))
            },
        )
        .await
    }

    /// Waits until a run's job was started here.
    pub async fn started(&self, run: RunId) -> Result<()> {
        wait_for(&format!("{} to start run {run}", self.name()), PATIENCE, async || {
            Ok(self.journal(|journal| journal.job(run).map(|_| ())))
        })
        .await
    }

    /// Waits for the next end of a link after `seen` of them; the code that the controller gave.
    pub async fn link_end(&self, seen: usize) -> Result<(Option<tonic::Code>, String)> {
        wait_for(&format!("a link of {} to end", self.name()), PATIENCE, async || {
            Ok(self.links().ends.get(seen).cloned())
        })
        .await
    }

    /// A short time in which something wrong would show; for "it is not sent again".
    pub async fn quiet(&self, time: Duration) {
        pass(time).await;
    }
}
