//! The dispatcher's state and its table of events.
//!
//! Called by the executor's loop alone, one event at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleet_proto::pb::core_message::Body as FromCore;
use fleet_proto::pb::executor_message::Body as ToCore;
use fleet_proto::{PROTOCOL, convert, pb};
use fleet_types::assignment::Assignment;
use fleet_types::digest::Digest;
use fleet_types::facts::NodeFacts;
use fleet_types::job::JobState;
use fleet_types::seal::SigningKey;
use fleet_types::time::Timestamp;

use super::event::{Effect, Event};
use super::tidy::Tidied;
use crate::causes::chain;
use crate::copies::CopyHub;
use crate::documents::{DocumentStore, ReportStore};
use crate::guard::Keeper;
use crate::host::Host;
use crate::identity::NodeIdentity;
use crate::journal::{Entry, JobKey, JobTable, Journal, JournalError};
use crate::package_hub::PackageHub;
use crate::policy::{Admitted, LinkTrust, OwnersPolicy, RequireSignature, TrustStore};
use crate::resolve::TaskTable;
use crate::run::{Abandoned, Deadlines, Draft, OutputHub, PathDesk, PathQuestion, RunEvent, Shares};
use crate::running::Running;
use crate::state::SmallState;
use crate::tasks::CancelFlag;

/// What the dispatcher is made of.
pub struct Parts {
    /// Where durable things lie; its disk must have room.
    pub state_dir: PathBuf,
    /// This node.
    pub node: NodeIdentity,
    /// Version shown to the controller.
    pub agent_version: String,
    /// The node owner's last word.
    pub policy: OwnersPolicy,
    /// The machine.
    pub host: Arc<dyn Host>,
    /// Gathers the node's facts.
    pub facts: Arc<dyn Fn() -> NodeFacts + Send + Sync>,
    /// The tasks there are.
    pub tasks: TaskTable,
    /// The journal.
    pub journal: Arc<Journal>,
    /// What it knows.
    pub table: JobTable,
    /// What is damaged or missing of it or of the node's other state.
    pub damage: Option<String>,
    /// Fencing values and report chain.
    pub state: SmallState,
    /// Signs reports; none where it is missing, and nothing is taken up then.
    pub report_key: Option<SigningKey>,
    /// Root keys and bundle.
    pub trust: TrustStore,
    /// Documents by digest.
    pub documents: DocumentStore,
    /// Reports by digest.
    pub reports: ReportStore,
    /// Output of steps.
    pub output: Arc<OutputHub>,
    /// Copies of backups on their way.
    pub copies: Arc<CopyHub>,
    /// What packages the node has, on its way.
    pub packages: Arc<PackageHub>,
    /// Threads left behind.
    pub abandoned: Abandoned,
    /// How long after its deadline a task may still answer.
    pub overrun_grace: Duration,
    /// Makes runs end between steps.
    pub suspend: CancelFlag,
    /// Guards of changes that can cut the node off.
    pub guard: Keeper,
    /// Questions of runs about the way to a controller.
    pub paths: PathDesk,
}

/// An assignment whose documents are on their way.
pub(super) struct Pending {
    pub(super) assignment: Assignment,
    /// How often it came: each is answered.
    pub(super) asked: u32,
    /// Its documents were thrown away once and asked for again, because of a signature.
    pub(super) fetched_again: bool,
    /// On boot time.
    pub(super) until: Duration,
}

/// A job that is accepted and not over.
pub(super) struct Open {
    /// Until its run has started.
    pub(super) admitted: Option<Admitted>,
    /// By what its signatures were checked last; none after a restart.
    pub(super) vouched: Option<Vouching>,
    pub(super) cancel: CancelFlag,
    pub(super) changes: bool,
    pub(super) state: JobState,
    /// How long it may take once it has its turn.
    pub(super) work: Duration,
    /// What its run said last; before that all of its work lies ahead.
    pub(super) deadlines: Option<Deadlines>,
}

impl Open {
    /// A job that waits for its turn.
    pub(super) fn waiting(
        admitted: Admitted,
        changes: bool,
        cancel: CancelFlag,
        state: JobState,
        grace: Duration,
    ) -> Self {
        let work = Shares::of(&admitted, grace).total();
        Self { admitted: Some(admitted), vouched: None, cancel, changes, state, work, deadlines: None }
    }
}

/// What a check of signatures hangs on beside the signed bytes: while it stays, so does the check's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vouching {
    pub(super) bundle: u64,
    pub(super) required: RequireSignature,
}

/// The dispatcher's state.
pub struct Dispatcher {
    pub(super) parts: Parts,
    pub(super) link: Option<LinkTrust>,
    pub(super) pending: BTreeMap<JobKey, Pending>,
    /// Documents that the core was asked for.
    pub(super) wanted: BTreeSet<Digest>,
    pub(super) open: BTreeMap<JobKey, Open>,
    /// Accepted jobs in order, not started.
    pub(super) queue: VecDeque<JobKey>,
    /// Ends that could not be written; tried again with time, and when a link comes up. Nothing starts before.
    pub(super) unwritten: BTreeMap<JobKey, Draft>,
    /// Why no new changes start, beside the journal's damage.
    pub(super) trouble: Option<String>,
    pub(super) draining: bool,
    /// Why the next report begins a new chain, if it does.
    pub(super) chain_break: Option<String>,
    pub(super) tidied: Tidied,
    /// What was last written for `fleet-agent status`.
    running: Running,
    pub(super) effects: Vec<Effect>,
}

impl Dispatcher {
    /// A dispatcher; [`Dispatcher::recover`] comes next.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            link: None,
            pending: BTreeMap::new(),
            wanted: BTreeSet::new(),
            open: BTreeMap::new(),
            queue: VecDeque::new(),
            unwritten: BTreeMap::new(),
            trouble: None,
            draining: false,
            chain_break: None,
            tidied: Tidied::default(),
            running: Running::default(),
            effects: Vec::new(),
        }
    }

    /// Decides about one event. Durable writes are done when it returns; the effects come after.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Core(FromCore::LinkUp(link)) => self.on_link_up(&link),
            Event::Core(FromCore::LinkDown(_)) => self.on_link_down(),
            Event::Core(FromCore::Trust(update)) => self.on_trust_update(&update),
            Event::Core(FromCore::Assign(assign)) => self.on_assign(&assign),
            Event::Core(FromCore::Document(document)) => self.on_document(&document),
            Event::Core(FromCore::Cancel(cancel)) => self.on_cancel(&cancel),
            Event::Core(FromCore::ReportAck(ack)) => self.on_report_ack(&ack),
            Event::Core(FromCore::Reconcile(reply)) => self.on_reconcile_reply(&reply),
            Event::Core(FromCore::OutputStored(stored)) => {
                if let Some(key) = job_key(&stored.run, stored.attempt) {
                    self.parts.output.stored(key, &stored.step, stored.offset);
                }
            }
            Event::Core(FromCore::Copy(answer)) => self.on_copy(answer),
            Event::Core(FromCore::Packages(answer)) => self.on_packages(answer),
            // Of a stream of before the link it is nothing new.
            Event::Core(FromCore::OutputLost(lost)) if self.link.is_some() => {
                self.parts.output.send_again(lost.refused);
            }
            // A beat is heard by the loop, which needs no more of it; what waited for a task that came back is looked
            // at below.
            Event::Core(FromCore::Alive(_) | FromCore::OutputLost(_)) | Event::Run(RunEvent::CameBack) => {}
            Event::Core(FromCore::Path(answer)) => self.on_path(answer),
            Event::Run(RunEvent::AskPath(PathQuestion { id, witnesses })) => {
                self.send(ToCore::CheckPath(pb::CheckPath { id, witnesses }));
            }
            Event::CoreLeft => self.end_link(),
            Event::CoreCame => self.on_core_came(),
            Event::Run(RunEvent::Progress(key, state, deadlines)) => self.on_progress(key, state, deadlines),
            Event::Run(RunEvent::Ended(key, ending)) => self.on_run_ended(key, ending),
            Event::Tick => self.on_tick(),
            Event::Drain => self.on_drain(),
        }
        self.expire_queued();
        self.start_next();
        self.tidy_if_due();
        if self.draining && self.running() == 0 {
            self.effects.push(Effect::Stop);
        }
        std::mem::take(&mut self.effects)
    }

    /// Is the journal closed for good? The loop ends then.
    pub fn is_silenced(&self) -> bool {
        !self.parts.journal.is_open()
    }

    /// Is no new work taken? The flag is set before its event comes.
    pub(super) fn is_stopping(&self) -> bool {
        self.draining || self.parts.suspend.is_cancelled()
    }

    /// When to look again if nothing happens: at every tick while something waits that time alone ends, and at
    /// the end of a queued job's request. None sleeps until something happens.
    pub fn look_again_in(&self, tick: Duration) -> Option<Duration> {
        let waits = !self.pending.is_empty() || !self.unwritten.is_empty() || !self.queue.is_empty();
        let queued = self.queue.iter().filter(|_| self.may_expire());
        let expires = queued.filter_map(|key| self.left_to_start(key)).min();
        waits.then(|| expires.map_or(tick, |left| left.min(tick)))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.parts.host.clock().now()
    }

    pub(super) fn since_boot(&self) -> Duration {
        self.parts.host.clock().since_boot()
    }

    pub(super) fn boot_ms(&self) -> u64 {
        u64::try_from(self.since_boot().as_millis()).unwrap_or(u64::MAX)
    }

    /// States and reports wait for a link: what is open or unsent is told when one comes up.
    pub(super) fn send(&mut self, body: ToCore) {
        let waits = matches!(body, ToCore::Job(_) | ToCore::Report(_)) && self.link.is_none();
        if !waits {
            self.effects.push(Effect::Send(body));
        }
    }

    /// Journals an entry and takes it into the table.
    pub(super) fn record(&mut self, entry: &Entry) -> Result<(), JournalError> {
        match self.parts.journal.append(entry) {
            Ok(_) => {
                self.parts.table.apply(entry);
                Ok(())
            }
            Err(error) => {
                let why = chain(&error);
                tracing::error!(error = why, "the journal cannot be written: no new work is taken");
                self.trouble.get_or_insert_with(|| format!("the journal cannot be written: {why}"));
                Err(error)
            }
        }
    }

    /// Why no new changes start; none when they may.
    pub(super) fn safe_mode(&self) -> Option<String> {
        let known = self.parts.damage.clone().or_else(|| self.trouble.clone());
        let unwritten = || (!self.unwritten.is_empty()).then(|| "a report cannot be stored".to_owned());
        known
            .or_else(unwritten)
            .or_else(|| self.parts.abandoned.reason())
            .or_else(|| self.parts.policy.fault())
    }

    /// Runs that have started and not ended.
    pub(super) fn running(&self) -> usize {
        self.open.values().filter(|open| open.admitted.is_none()).count()
    }

    /// What the core needs to say Hello.
    pub fn ready(&self) -> ToCore {
        let seen = self.parts.state.get();
        let hello = pb::Hello {
            protocol_min: *PROTOCOL.start(),
            protocol_max: *PROTOCOL.end(),
            agent_version: self.parts.agent_version.clone(),
            actions: self.parts.tasks.actions().map(str::to_owned).collect(),
            boot_id: self.parts.host.clock().boot_id(),
            journal_sequence: self.parts.journal.sequence(),
            generation_seen: seen.generation.0,
            epoch_seen: seen.link_epoch.0,
            bundle_version: seen.bundle_version,
            facts: convert::to_json(&(self.parts.facts)()),
            policy_mode: self.parts.policy.now().mode.as_str().to_owned(),
            safe_mode: self.safe_mode().unwrap_or_default(),
            // The core's to say.
            start_id: String::new(),
        };
        ToCore::Ready(pb::Ready { hello: Some(hello) })
    }

    /// Keeps what `fleet-agent status` says of the running agent up to date.
    pub(super) fn tell_running(&mut self) {
        let now = Running {
            policy_mode: self.parts.policy.now().mode.as_str().to_owned(),
            safe_mode: self.safe_mode(),
        };
        if now != self.running {
            if let Err(error) = now.write(&self.parts.state_dir) {
                tracing::debug!(%error, "what this agent does cannot be noted for its status");
            }
            self.running = now;
        }
    }

    fn on_drain(&mut self) {
        self.draining = true;
        self.parts.suspend.cancel();
    }

    fn on_tick(&mut self) {
        let now = self.since_boot();
        self.pending.retain(|key, pending| {
            let waits = now < pending.until;
            if !waits {
                tracing::warn!(run = %key.0, "its documents did not come; the controller will offer it again");
            }
            waits
        });
        if self.pending.is_empty() {
            self.wanted.clear();
        }
        self.write_unwritten();
        self.parts.reports.make_reserve_again();
        self.tell_running();
    }
}

/// The job that a message names; one that names none is logged and dropped.
pub(super) fn job_key(run: &str, attempt: u32) -> Option<JobKey> {
    match convert::text("run", run) {
        Ok(run) => Some((run, fleet_types::id::Attempt(attempt))),
        Err(error) => {
            tracing::warn!(%error, "a message names no run");
            None
        }
    }
}
