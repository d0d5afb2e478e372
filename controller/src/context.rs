//! What services, runner and edge are handed, in parts: what is stored, what is known in memory, who is who, and the
//! files beside the store. A function takes the parts that it uses; one that needs three or more takes the whole
//! (docs/adr/0043). Made once at start; holds no logic.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use fleet_certs::revoke::DenyList;
use fleet_types::id::OperatorId;
use fleet_types::trust::{SignedBundle, TrustBundle};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::fleet::adopted::Adopted;
use crate::fleet::findings::Findings;
use crate::fleet::instances::Instances;
use crate::fleet::node_cache::NodeCache;
use crate::fleet::open_runs::OpenRuns;
use crate::fleet::package_lists::PackageLists;
use crate::fleet::report_heads::ReportHeads;
use crate::fleet::sessions::Sessions;
use crate::fleet::waiting_ticks::WaitingTicks;
use crate::fleet::wave_signer::WaveSigner;
use crate::keyring::Keyring;
use crate::repo::advisory_files::AdvisoryFiles;
use crate::repo::audited::AuditedCommits;
use crate::repo::copy_files::CopyFiles;
use crate::repo::fleet::FleetRecord;
use crate::repo::operators::OperatorRecord;
use crate::repo::output_files::OutputFiles;
use crate::repo::reader::Repo;
use crate::settings::Settings;
use crate::wake::ChangeNotifier;

/// Everything that a running controller has, for the edge and for what touches most of it. Whoever needs a part is
/// handed that part.
pub struct Context {
    /// What is stored.
    pub storage: Storage,
    /// What is known in memory alone, or faster.
    pub memory: Memory,
    /// Who is who.
    pub identities: Identities,
    /// What lies beside the store.
    pub files: Files,
    /// Timers and limits.
    pub settings: Settings,
}

/// Reading and writing what is stored, and the time of it.
pub struct Storage {
    /// Typed reads.
    pub repo: Repo,
    /// Commits with their audit leaves.
    pub audited: AuditedCommits,
    /// Time and randomness.
    pub clock: Clock,
}

/// What is known in memory: made anew from the store and by those that connect.
#[derive(Default)]
pub struct Memory {
    /// Rings the runner.
    pub notifier: Arc<ChangeNotifier>,
    /// Rings the scheduler: what may fire has changed. Without a message, like the notifier.
    pub schedule_changes: tokio::sync::Notify,
    /// What the scheduler waits for.
    pub waiting_ticks: WaitingTicks,
    /// Live sessions.
    pub sessions: Sessions,
    /// Nodes in memory.
    pub node_cache: NodeCache,
    /// Which starts of its agent have connected as a node.
    pub instances: Instances,
    /// Which node has which packages.
    pub packages: PackageLists,
    /// Advisories, and which concern which node.
    pub findings: Findings,
    /// Held while advisories are imported: one at a time.
    pub importing: tokio::sync::Mutex<()>,
    /// The newest report of each node.
    pub report_heads: ReportHeads,
    /// Jobs of a lost store that the log was told of.
    pub adopted: Adopted,
    /// The engines of the open runs.
    pub open_runs: OpenRuns,
}

/// The fleet, its keys, and who belongs to it.
pub struct Identities {
    /// The fleet's own record.
    pub fleet: FleetRecord,
    /// Authorities and keys.
    pub keyring: Keyring,
    /// Signs waves.
    pub wave_signer: WaveSigner,
    /// Who is shut out.
    pub denied: Arc<DenyList>,
    /// The newest trust bundle.
    pub trust: Trust,
    /// Operators in memory: asked on every call.
    pub operators: Operators,
}

/// What is too large for the store.
pub struct Files {
    /// Output of steps.
    pub output: OutputFiles,
    /// Encrypted copies of backups.
    pub copies: CopyFiles,
    /// Imported advisories.
    pub advisories: AdvisoryFiles,
}

/// The newest trust bundle, opened and as it is handed out.
pub struct Trust(watch::Sender<Arc<(TrustBundle, SignedBundle)>>);

impl Trust {
    /// Holds a bundle.
    pub fn new(bundle: TrustBundle, signed: SignedBundle) -> Self {
        Self(watch::channel(Arc::new((bundle, signed))).0)
    }

    /// The newest one.
    pub fn get(&self) -> Arc<(TrustBundle, SignedBundle)> {
        Arc::clone(&self.0.borrow())
    }

    /// For sessions: each tells its node when there is a newer one.
    pub fn follow(&self) -> watch::Receiver<Arc<(TrustBundle, SignedBundle)>> {
        self.0.subscribe()
    }

    /// Puts a newer one in its place, after it was committed. It only moves forward: of two that were committed
    /// one after the other the older one may be told of last.
    pub fn set(&self, bundle: TrustBundle, signed: SignedBundle) {
        self.0.send_if_modified(|current| {
            let newer = bundle.version > current.0.version;
            if newer {
                *current = Arc::new((bundle, signed));
            }
            newer
        });
    }
}

/// Operators in memory: a few hundred at most, since each is a person.
#[derive(Default)]
pub struct Operators(RwLock<HashMap<OperatorId, Arc<OperatorRecord>>>);

impl Operators {
    /// One operator.
    pub fn get(&self, id: OperatorId) -> Option<Arc<OperatorRecord>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Arc<OperatorRecord>> {
        let mut all: Vec<_> =
            self.0.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Adds or replaces one, after it was committed.
    pub fn put(&self, record: OperatorRecord) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(record.id, Arc::new(record));
    }
}
