//! For unit tests: a whole context over a store in memory, made by the real `init`, and a store that can be
//! stopped around its commits, so that races are told and not hoped for. Never part of the program.

mod signing;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fleet_certs::{Identity, PeerIdentity};
use fleet_store::{Batch, Committed, Direction, Entry, Key, KvStore, LogName, MemoryStore, StoreError};
use fleet_types::audit::AuditRecord;
use fleet_types::authority::Authority;
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, FleetId, NodeId, OperatorId, RunId, Stage};
use fleet_types::job::JobState;
use fleet_types::request::Verb;
use fleet_types::run::{RunState, Tally};
use fleet_types::seal::SigningKey;
use fleet_types::time::Timestamp;
use fleet_types::trust::OperatorRole;
use tempfile::TempDir;
use tokio::sync::{Barrier, oneshot};

use crate::app;
use crate::clock::Clock;
use crate::config::Config;
use crate::context::Context;
use crate::init::{InitRequest, init};
use crate::keyring;
use crate::repo::certificates::Certificates;
use crate::repo::jobs::JobRecord;
use crate::repo::nodes::{self, NodeRecord, NodeState};
use crate::repo::operators::OperatorRecord;
use crate::repo::runs::RunRecord;
use crate::service::caller::{Agent, Operator};

pub use signing::{Applied, Signer, file};

/// A fleet of its own with nobody connected.
pub struct TestContext {
    /// As the program makes it.
    pub context: Arc<Context>,
    /// The fleet's root key.
    pub root: SigningKey,
    /// Keys and output lie in it.
    _folder: TempDir,
}

impl TestContext {
    /// Over a plain store in memory.
    pub async fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new())).await
    }

    /// Over a store of the test's choice.
    pub async fn over(store: Arc<dyn KvStore>) -> Self {
        Self::at(store, Clock::system()).await
    }

    /// Over a store and on a clock of the test's choice.
    pub async fn at(store: Arc<dyn KvStore>, clock: Clock) -> Self {
        Self::configured(store, clock, "").await
    }

    /// The same with more in its configuration file.
    pub async fn configured(store: Arc<dyn KvStore>, clock: Clock, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let request = InitRequest {
            name: "dev".parse().unwrap(),
            operator: "ada".parse().unwrap(),
            data_directory: data.clone(),
            root_key: folder.path().join("root.key"),
        };
        init(Arc::clone(&store), &clock, &request).await.unwrap();
        let text = format!(
            "data_directory = \"{}\"\n[server]\nserver_names = [\"localhost\"]\n[storage]\nbackend = \"memory\"\n{more}",
            data.display()
        );
        let config = Config::from_text("test.toml", &text).unwrap();
        let context = app::open_context(&config, store, clock).await.unwrap();
        let root = keyring::load_signing_key(&request.root_key).unwrap();
        Self { context: Arc::new(context), root, _folder: folder }
    }
}

fn fleet() -> FleetId {
    FleetId::from_uuid(uuid::Uuid::from_u128(1))
}

fn certificate(identity: Identity) -> PeerIdentity {
    PeerIdentity {
        identity,
        serial: "4001".parse().unwrap(),
        not_before: Timestamp::clamped(1_790_000_000_000),
        not_after: Timestamp::clamped(4_000_000_000_000),
        fingerprint: Digest::of(b"a certificate"),
    }
}

/// An operator who may do everything.
pub fn operator() -> Operator {
    let record = OperatorRecord {
        id: OperatorId::from_uuid(uuid::Uuid::from_u128(7)),
        name: "ada".parse().unwrap(),
        role: OperatorRole::SecurityAdmin,
        content_key: SigningKey::generate().unwrap().0.public(),
        certificates: Certificates::default(),
        created: Timestamp::clamped(1_790_000_000_000),
    };
    Operator {
        certificate: Arc::new(certificate(Identity::Operator(fleet(), record.id))),
        record: Arc::new(record),
        address: "127.0.0.1".to_owned(),
    }
}

/// The agent of a node.
pub fn agent(n: u128) -> Agent {
    let node = NodeId::from_uuid(uuid::Uuid::from_u128(n));
    Agent {
        node,
        name: format!("fw-{n}").parse().unwrap(),
        certificate: Arc::new(certificate(Identity::Agent(fleet(), node))),
        address: "127.0.0.1".to_owned(),
    }
}

/// A node that is enrolled, and its agent.
pub async fn enrolled(context: &Context, n: u128) -> Agent {
    let agent = agent(n);
    let labels = fleet_types::label::Labels::default();
    let record = NodeRecord::pending(agent.node, agent.name.clone(), labels, context.storage.clock.now())
        .with_state(NodeState::Active);
    let batch = context.storage.audited.batch();
    let batch = nodes::create(batch, &record).unwrap();
    context.storage.audited.commit(batch, vec![]).await.unwrap();
    context.memory.node_cache.advance(record);
    agent
}

/// Leaves of the audit log with this action, oldest first.
pub async fn leaves(context: &Context, action: &str) -> Vec<AuditRecord> {
    let log = crate::service::audit::bytes(&context.storage, 0, 1000).await.unwrap();
    let records = log.iter().map(|(_, bytes)| fleet_types::canonical::from_slice(bytes).unwrap());
    records.filter(|record: &AuditRecord| record.action == action).collect()
}

/// A run of one node that reads, started now and valid for an hour; tests say what is other.
pub fn run_record(run: RunId, now: Timestamp) -> RunRecord {
    RunRecord {
        run,
        authority: Authority::Request(Digest::of(b"request")),
        schedule: None,
        verb: Verb::Run,
        procedure: "look".to_owned(),
        procedure_digest: Digest::of(b"procedure"),
        procedure_revision: None,
        profile_digest: Digest::of(b"profile"),
        changes: false,
        job_limit_ms: 60_000,
        max_failures: None,
        selector: String::new(),
        max_parallel: 1,
        not_before: now,
        not_after: now.plus(Duration::from_hours(1)),
        nodes_root: Digest::of(b"nodes"),
        started_by: "ada".to_owned(),
        started: now,
        reason: String::new(),
        state: RunState::Planned,
        skipped: vec![],
        skipped_count: 0,
        stopped_because: String::new(),
        tally: Tally::new(1),
        ended: None,
        bodies_gone: None,
        rollout: None,
        paused_because: String::new(),
    }
}

/// The queued job of a node in a run.
pub fn job_record(run: RunId, agent: &Agent) -> JobRecord {
    JobRecord {
        run,
        node: agent.node,
        node_name: agent.name.clone(),
        index: 0,
        pair: None,
        site: "-".to_owned(),
        ring: 0,
        stage: Stage::FIRST,
        attempt: Attempt(1),
        state: JobState::Queued,
        places: vec![],
        offered: None,
        ended: None,
        took_ms: None,
        summary: String::new(),
        plan: None,
        report: None,
        late_report: None,
        health: None,
        gates: None,
    }
}

/// A commit that was written and whose answer is held back.
pub struct Held {
    /// Comes when it was written.
    pub written: oneshot::Receiver<()>,
    /// Lets the answer go.
    pub answer: oneshot::Sender<()>,
}

/// A store in memory that stops commits where a test says so.
#[derive(Default)]
pub struct StagedStore {
    inner: MemoryStore,
    meet: Mutex<Option<Arc<Barrier>>>,
    hold: Mutex<Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>>,
    is_short: AtomicBool,
}

impl StagedStore {
    /// From now on commits go on in groups of `count`: nobody writes before the others are there.
    pub fn meet(&self, count: usize) {
        *self.meet.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Barrier::new(count)));
    }

    /// From now on there is room for commits from the reserve only.
    pub fn run_short(&self) {
        self.is_short.store(true, Ordering::Release);
    }

    /// There is room for everything again.
    pub fn has_space_again(&self) {
        self.is_short.store(false, Ordering::Release);
    }

    /// The next commit is written, and answered when the test says so.
    pub fn hold_next(&self) -> Held {
        let (written_to, written) = oneshot::channel();
        let (answer, go) = oneshot::channel();
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = Some((written_to, go));
        Held { written, answer }
    }
}

#[async_trait]
impl KvStore for StagedStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<(Key, Entry)>, StoreError> {
        self.inner.scan(prefix, after, limit, direction).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        if self.is_short.load(Ordering::Acquire) && !batch.from_reserve {
            return Err(StoreError::Full { path: "/store".into(), free_bytes: 1, floor_bytes: 2 });
        }
        let meet = self.meet.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(meet) = meet {
            meet.wait().await;
        }
        let hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner).take();
        let committed = self.inner.commit(batch).await;
        if let Some((written, go)) = hold {
            written.send(()).unwrap();
            go.await.unwrap();
        }
        committed
    }

    async fn log_len(&self, log: &LogName) -> Result<u64, StoreError> {
        self.inner.log_len(log).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
}
