//! What packages this node has, on its way to the controller: gathered when a link comes up, when a job has ended and every
//! hour, sent where it is other than what the controller took last.
//!
//! Gathering reads files and asks apt, on a thread of its own with the lowest priority; jobs never wait for it. One message is
//! under way at a time, the list of packages goes along only where the controller asks for it. It must never make work
//! fail: what cannot be gathered is said, and gathered again. Steered by the dispatcher, drained by a pump of the loop.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, RunId};
use fleet_types::package_version::PackageFormat;
use fleet_types::packages::{
    MAX_LIST_BYTES, MAX_PACKAGES, MAX_PACKED_BYTES, MAX_STATE_BYTES, NodeState, OldFiles, PackageList,
};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::executor::FactsSource;
use crate::facts::is_reboot_required;
use crate::host::{Host, PackageWork, in_background};
use crate::identity::NodeIdentity;
use crate::tasks::{CancelFlag, OutputSink, StepIdentity};

/// Packages change by hand too, and archives are refreshed by the node's own timers: an hour late at most, which is a
/// twenty-fourth of the shortest deadline.
const EVERY: Duration = Duration::from_hours(1);
/// After "not now".
const PAUSE: Duration = Duration::from_mins(1);
/// After a plain no, such as a list that is too long.
const LONG_PAUSE: Duration = Duration::from_hours(1);
/// Apt needs seconds to say what is newer; on a slow disk some tens of them.
const APT_LIMIT: Duration = Duration::from_mins(3);

/// What is sent: the list's digest, what stands beside it, and the list where it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackagesMessage {
    /// Digest of the list before it was packed.
    pub list_sha256: Digest,
    /// JSON of the node's state.
    pub state: Vec<u8>,
    /// The packed list; empty asks whether the controller has it.
    pub list: Vec<u8>,
}

/// What became of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackagesAnswer {
    /// It is to be sent again with the list.
    pub wants_list: bool,
    /// Why it was not taken; none when it was.
    pub error: Option<String>,
    /// The controller said no, and will say so again for a while.
    pub refused: bool,
}

/// See the module.
pub struct PackageHub {
    host: Arc<dyn Host>,
    facts: FactsSource,
    node: NodeIdentity,
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    /// Is a link up whose controller takes packages?
    linked: bool,
    gathering: bool,
    /// When to gather next; none is now.
    due: Option<Instant>,
    gathered: Option<Gathered>,
    stage: Stage,
    not_before: Option<Instant>,
}

/// How far what was gathered last has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// To be sent.
    Due { with_list: bool },
    /// Sent, not answered; old where something else was gathered since.
    UnderWay { with_list: bool, is_old: bool },
    /// The controller has it.
    Taken,
}

impl Default for Stage {
    fn default() -> Self {
        Self::Due { with_list: false }
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Gathered {
    list_sha256: Digest,
    state: Vec<u8>,
    list: Vec<u8>,
}

impl PackageHub {
    /// Nothing is gathered yet.
    pub fn new(host: Arc<dyn Host>, facts: FactsSource, node: NodeIdentity) -> Arc<Self> {
        Arc::new(Self { host, facts, node, state: Mutex::default(), news: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A link is up: all is told anew, because it may be another controller's store.
    pub fn link_up(&self, takes_packages: bool) {
        let mut state = self.state();
        state.linked = takes_packages;
        state.stage = Stage::default();
        state.not_before = None;
        drop(state);
        self.news.notify_one();
    }

    /// The link is gone: nothing is sent.
    pub fn link_down(&self) {
        let mut state = self.state();
        state.linked = false;
        state.stage = Stage::default();
    }

    /// A job has ended that may have changed something.
    pub fn may_have_changed(&self) {
        self.state().due = None;
        self.news.notify_one();
    }

    /// What became of the message that was under way.
    pub fn answered(&self, answer: &PackagesAnswer) {
        let mut state = self.state();
        // Another is of a link or a list of before.
        let Stage::UnderWay { with_list, is_old } = state.stage else { return };
        match &answer.error {
            _ if is_old => state.stage = Stage::default(),
            None if answer.wants_list && with_list => {
                state.wait(PAUSE, "the controller asks for it again and again");
            }
            None if answer.wants_list => state.stage = Stage::Due { with_list: true },
            None => state.stage = Stage::Taken,
            Some(why) => state.wait(if answer.refused { LONG_PAUSE } else { PAUSE }, why),
        }
        drop(state);
        self.news.notify_one();
    }

    /// The next message, when there is one to send; gathers where it is time.
    pub async fn next_message(self: &Arc<Self>) -> PackagesMessage {
        loop {
            // Registered before looking, so that news between look and wait are not missed.
            let news = self.news.notified();
            let (message, look_at) = self.take_message();
            match (message, look_at) {
                (Some(message), _) => return message,
                (None, Some(at)) => tokio::select! {
                    () = news => {}
                    () = sleep_until(at) => {}
                },
                (None, None) => news.await,
            }
        }
    }

    /// A message, or when to look again.
    fn take_message(self: &Arc<Self>) -> (Option<PackagesMessage>, Option<Instant>) {
        let now = Instant::now();
        let mut state = self.state();
        if !state.linked {
            return (None, None);
        }
        if !state.gathering && state.due.is_none_or(|due| due <= now) {
            state.due = Some(now + EVERY);
            state.gathering = self.gather_beside();
        }
        let due = state.due;
        let Stage::Due { with_list } = state.stage else { return (None, due) };
        if let Some(at) = state.not_before.filter(|at| now < *at) {
            return (None, due.map(|due| due.min(at)));
        }
        let Some(gathered) = state.gathered.clone() else { return (None, due) };
        state.stage = Stage::UnderWay { with_list, is_old: false };
        let Gathered { list_sha256, state, list } = gathered;
        (Some(PackagesMessage { list_sha256, state, list: if with_list { list } else { Vec::new() } }), None)
    }

    /// Begins to gather; false where it cannot.
    fn gather_beside(self: &Arc<Self>) -> bool {
        let hub = Arc::clone(self);
        let gathering = std::thread::Builder::new().name("packages".to_owned()).spawn(move || {
            let gathered = in_background(|| gather(&*hub.host, &hub.facts, &hub.node));
            hub.gathered(gathered);
        });
        if let Err(error) = &gathering {
            tracing::error!(%error, "no thread to gather packages; it is tried again in an hour");
        }
        gathering.is_ok()
    }

    fn gathered(&self, gathered: Result<Gathered, String>) {
        let mut state = self.state();
        state.gathering = false;
        match gathered {
            Ok(gathered) if state.gathered.as_ref() == Some(&gathered) => {
                // Said once more all the same: so the controller knows that it is still so.
                if state.stage == Stage::Taken {
                    state.stage = Stage::default();
                }
            }
            Ok(gathered) => {
                state.gathered = Some(gathered);
                match &mut state.stage {
                    Stage::UnderWay { is_old, .. } => *is_old = true,
                    before => *before = Stage::default(),
                }
            }
            Err(why) => tracing::info!(why, "what packages this node has is not told to the controller"),
        }
        drop(state);
        self.news.notify_one();
    }
}

impl State {
    fn wait(&mut self, pause: Duration, why: &str) {
        tracing::warn!(why, "the node's packages are not taken; they are told again later");
        self.stage = Stage::default();
        self.not_before = Some(Instant::now() + pause);
    }
}

/// Reads and packs it all.
fn gather(host: &dyn Host, facts: &FactsSource, node: &NodeIdentity) -> Result<Gathered, String> {
    let packages = host.packages();
    if packages.manager().is_none() {
        return Err("it has no package manager that this build speaks to".to_owned());
    }
    let listed = packages.listed().map_err(|error| error.to_string())?;
    if listed.len() > MAX_PACKAGES {
        return Err(format!("it has {} packages; at most {MAX_PACKAGES} are told", listed.len()));
    }
    let facts = facts();
    let list = PackageList::new(PackageFormat::Dpkg, facts.os, facts.os_version, listed);
    let bytes = list.to_bytes().map_err(|error| error.to_string())?;
    let mut state = NodeState {
        running_kernel: Some(facts.kernel).filter(|kernel| !kernel.is_empty()),
        reboot_pending: is_reboot_required(host).unwrap_or(false),
        old_files: old_files(host),
        ..NodeState::default()
    };
    match available(host, node) {
        Ok(available) => state.available = available,
        Err(why) => state.archives_unknown = Some(why),
    }
    let mut told = serde_json::to_vec(&state).map_err(|error| error.to_string())?;
    if told.len() > MAX_STATE_BYTES {
        let why = format!("{} newer packages are more than can be told", state.available.len());
        state = NodeState { available: BTreeMap::new(), archives_unknown: Some(why), ..state };
        told = serde_json::to_vec(&state).map_err(|error| error.to_string())?;
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&bytes).map_err(|error| error.to_string())?;
    let packed = packed.finish().map_err(|error| error.to_string())?;
    if bytes.len() > MAX_LIST_BYTES || packed.len() > MAX_PACKED_BYTES || told.len() > MAX_STATE_BYTES {
        return Err(format!("the list of its packages has {} bytes, more than can be told", bytes.len()));
    }
    Ok(Gathered { list_sha256: Digest::of(&bytes), state: told, list: packed })
}

/// Services that run what packages had before, by package. Which version it was nobody has noted.
fn old_files(host: &dyn Host) -> BTreeMap<String, OldFiles> {
    let in_use = host.system().old_files_in_use(host.files().root());
    let paths: BTreeSet<String> = in_use.values().flatten().cloned().collect();
    let owners = host.packages().owners(&paths);
    let mut found: BTreeMap<String, OldFiles> = BTreeMap::new();
    for (service, paths) in in_use {
        let of: BTreeSet<&String> = paths.iter().filter_map(|path| owners.get(path)).collect();
        for package in of {
            let none = || OldFiles { source_version: None, services: Vec::new() };
            found.entry(package.clone()).or_insert_with(none).services.push(service.clone());
        }
    }
    found
}

fn available(
    host: &dyn Host,
    node: &NodeIdentity,
) -> Result<BTreeMap<String, fleet_types::packages::Available>, String> {
    static NEVER: LazyLock<CancelFlag> = LazyLock::new(CancelFlag::default);
    let clock = host.clock();
    let step = StepIdentity {
        run: RunId::from_number(0),
        node: node.node,
        node_name: node.name.clone(),
        labels: node.labels.clone(),
        attempt: Attempt(1),
        step: "packages".to_owned(),
        try_number: 1,
        job_started: clock.now(),
    };
    let work =
        PackageWork { step: &step, output: &Unheard, cancel: &NEVER, until: clock.instant() + APT_LIMIT };
    host.packages().available(work).map_err(|error| error.to_string())
}

/// What apt prints is read, not shown.
struct Unheard;

impl OutputSink for Unheard {
    fn write(&self, _: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use fleet_types::facts::NodeFacts;
    use fleet_types::id::{FleetId, NodeId};
    use fleet_types::label::Labels;
    use fleet_types::packages::Package;

    use super::*;
    use crate::host::scripted::ScriptedHost;

    fn package(name: &str) -> Package {
        Package {
            source: name.to_owned(),
            source_version: "1".to_owned(),
            name: name.to_owned(),
            version: "1".to_owned(),
            architecture: "amd64".to_owned(),
        }
    }

    fn hub() -> (tempfile::TempDir, Arc<ScriptedHost>, Arc<PackageHub>) {
        let folder = tempfile::tempdir().unwrap();
        let host = Arc::new(ScriptedHost::new(folder.path(), folder.path()).unwrap());
        host.script().package_manager = Some("apt");
        host.script().packages = vec![package("fw")];
        let facts =
            NodeFacts { os: "debian".to_owned(), os_version: "12".to_owned(), ..NodeFacts::default() };
        let node = NodeIdentity {
            node: NodeId::from_uuid(uuid::Uuid::from_u128(1)),
            name: "fw-1".parse().unwrap(),
            fleet: FleetId::from_uuid(uuid::Uuid::from_u128(2)),
            labels: Labels::default(),
        };
        let hub = PackageHub::new(host.clone(), Arc::new(move || facts.clone()), node);
        (folder, host, hub)
    }

    fn taken(wants_list: bool) -> PackagesAnswer {
        PackagesAnswer { wants_list, ..PackagesAnswer::default() }
    }

    fn says(hub: &Arc<PackageHub>) -> Option<PackagesMessage> {
        hub.take_message().0
    }

    /// Gathers here, as the thread would.
    fn gather_now(hub: &PackageHub) {
        hub.gathered(gather(&*hub.host, &hub.facts, &hub.node));
    }

    #[tokio::test]
    async fn the_list_goes_along_where_it_is_asked_for_and_nothing_goes_twice() {
        let (_folder, host, hub) = hub();
        gather_now(&hub);
        assert_eq!(says(&hub), None, "no link");
        hub.link_up(false);
        assert_eq!(says(&hub), None, "an older controller is told nothing");
        hub.link_up(true);
        let first = hub.next_message().await;
        assert!(first.list.is_empty());
        let state: NodeState = serde_json::from_slice(&first.state).unwrap();
        assert_eq!(state.old_files["old"].services, ["old.service"]);
        assert!(state.archives_unknown.is_some(), "this machine has no archives");
        assert_eq!(says(&hub), None, "one at a time");
        hub.answered(&taken(true));
        let second = says(&hub).unwrap();
        assert_eq!((second.list_sha256, second.list.is_empty()), (first.list_sha256, false));
        hub.answered(&taken(false));
        assert_eq!(says(&hub), None, "the controller has it");
        host.script().packages.push(package("other"));
        gather_now(&hub);
        let third = says(&hub).unwrap();
        assert_ne!(third.list_sha256, first.list_sha256);
        // The link breaks, and the next one is told anew; an answer of before is of nothing.
        hub.link_down();
        hub.answered(&taken(false));
        assert_eq!(says(&hub), None);
        hub.link_up(true);
        assert_eq!(says(&hub).map(|message| message.list_sha256), Some(third.list_sha256));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_waited_out_and_the_same_is_said_again_each_hour() {
        let (_folder, _host, hub) = hub();
        gather_now(&hub);
        hub.link_up(true);
        assert!(says(&hub).is_some());
        hub.answered(&PackagesAnswer {
            error: Some("too long".to_owned()),
            refused: true,
            wants_list: false,
        });
        assert_eq!(says(&hub), None);
        tokio::time::advance(LONG_PAUSE).await;
        assert!(says(&hub).is_some());
        hub.answered(&taken(false));
        assert_eq!(says(&hub), None);
        gather_now(&hub);
        assert!(says(&hub).is_some(), "it is still so");
    }

    #[test]
    fn a_node_without_a_package_manager_says_why() {
        let (_folder, host, hub) = hub();
        host.script().package_manager = None;
        let why = gather(&*hub.host, &hub.facts, &hub.node).err().unwrap();
        assert!(why.contains("no package manager"), "{why}");
        host.script().package_manager = Some("apt");
        host.script().packages = (0..=MAX_PACKAGES).map(|n| package(&n.to_string())).collect();
        let why = gather(&*hub.host, &hub.facts, &hub.node).err().unwrap();
        assert!(why.contains("20001 packages"), "{why}");
    }
}
