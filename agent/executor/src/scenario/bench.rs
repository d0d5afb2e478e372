//! A fleet of one node with throw-away keys, and executors on its state directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleet_types::assignment::{Assignment, WaveProof, sign_wave};
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::document::Document;
use fleet_types::facts::NodeFacts;
use fleet_types::id::{
    Attempt, ControllerId, FleetId, Generation, JobId, LinkEpoch, NodeId, OperatorId, RunId,
};
use fleet_types::label::Labels;
use fleet_types::request::{NodeList, REQUEST_SCHEMA, Request, Verb, node_leaf};
use fleet_types::seal::{Envelope, Kind, PublicKey, SigningKey};
use fleet_types::time::Timestamp;
use fleet_types::trust::{
    Authority, BUNDLE_SCHEMA, ContentKey, DispatchStatement, OperatorRole, RootKeys, SignedBundle,
    SignedDispatch, TrustBundle, dispatch_signed_bytes,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;
use uuid::Uuid;

use super::core::Core;
use super::scripted::Tasks;
use crate::crash::Crash;
use crate::durable::Reserve;
use crate::executor::{Executor, ExecutorConfig, ExecutorHandle, StartError};
use crate::guard::{Pending, StartGuard, watch};
use crate::host::Host;
use crate::host::scripted::ScriptedHost;
use crate::identity::NodeIdentity;
use crate::journal::{Journal, Opened};
use crate::policy::{LocalPolicy, PolicyReader, install};
use crate::resolve::TaskTable;
use crate::socket;

pub struct Bench {
    pub directory: tempfile::TempDir,
    pub node: NodeIdentity,
    pub host: ScriptedHost,
    pub tasks: &'static Tasks,
    pub policy: LocalPolicy,
    /// Where the policy is read from, if not from `policy`.
    pub reader: Option<PolicyReader>,
    pub crash: Crash,
    pub root: SigningKey,
    pub operator: SigningKey,
    pub dispatch: SigningKey,
    pub authority: EcdsaKeyPair,
    pub report_key: Option<PublicKey>,
    pub overrun_grace: Duration,
    pub beat: Duration,
    /// The fact.
    pub has_lvm: bool,
}

/// A signed order with its documents.
pub struct Order {
    pub request: Envelope,
    pub documents: Vec<Envelope>,
    pub run: RunId,
}

impl Bench {
    /// A node whose policy is `policy`, with no floor for its disk.
    pub fn new(policy: &str) -> Self {
        Self::new_in(policy, tempfile::tempdir().unwrap())
    }

    /// The same on a file system in memory, where there is one: for stories of thousands of jobs, each with a dozen
    /// waits for the disk.
    pub fn in_memory(policy: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        Self::new_in(policy, tempfile::tempdir_in(place).unwrap())
    }

    fn new_in(policy: &str, directory: tempfile::TempDir) -> Self {
        let (root_dir, notes) = (directory.path().join("root"), directory.path().join("notes"));
        std::fs::create_dir_all(&root_dir).unwrap();
        std::fs::create_dir_all(&notes).unwrap();
        let labels = Labels::new([("product".to_owned(), "edgefw".to_owned())]).unwrap();
        let authority = {
            let random = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap()
        };
        let key = || SigningKey::generate().unwrap().0;
        let bench = Self {
            node: NodeIdentity {
                node: NodeId::from_uuid(Uuid::from_u128(11)),
                name: "fw-1".parse().unwrap(),
                fleet: FleetId::from_uuid(Uuid::from_u128(7)),
                labels,
            },
            host: ScriptedHost::new(&root_dir, &notes).unwrap(),
            tasks: Tasks::new(),
            policy: LocalPolicy::parse(&format!("min_free_disk = \"0\"\n{policy}")).unwrap(),
            reader: None,
            crash: Crash::Never,
            root: key(),
            operator: key(),
            dispatch: key(),
            authority,
            report_key: None,
            overrun_grace: Duration::from_secs(5),
            beat: Duration::from_secs(5),
            has_lvm: false,
            directory,
        };
        let roots = RootKeys { keys: vec![bench.root.public()], threshold: 1 };
        install(&bench.path("trust"), &roots, &bench.bundle(1), bench.node.fleet).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn now(&self) -> Timestamp {
        self.host.clock().now()
    }

    pub fn bundle(&self, version: u64) -> SignedBundle {
        self.trust(version).sign(&self.root).unwrap()
    }

    /// What a bundle says, before it is signed.
    pub fn trust(&self, version: u64) -> TrustBundle {
        let content = ContentKey {
            key: self.operator.public(),
            operator: OperatorId::from_uuid(Uuid::from_u128(2)),
            person: "ada".parse().unwrap(),
            role: OperatorRole::Operator,
        };
        let authority =
            Authority { certificate: vec![1], public_key: self.authority.public_key().as_ref().to_vec() };
        TrustBundle {
            schema: BUNDLE_SCHEMA.to_owned(),
            fleet: self.node.fleet,
            version,
            issued: self.now(),
            controller_authorities: vec![authority],
            agent_authorities: vec![],
            operator_authorities: vec![],
            content_keys: vec![content],
            audit_key: self.root.public(),
            fence_resets: vec![],
            operator_key_authority: None,
        }
    }

    pub fn dispatch_statement(&self) -> SignedDispatch {
        let statement = DispatchStatement {
            fleet: self.node.fleet,
            controller: ControllerId::from_uuid(Uuid::from_u128(5)),
            key: self.dispatch.public(),
            not_before: self.now().minus(Duration::from_hours(1)),
            not_after: self.now().plus(Duration::from_hours(72)),
        };
        let payload = canonical::to_vec(&statement).unwrap();
        let signed = self.authority.sign(&SystemRandom::new(), &dispatch_signed_bytes(&payload)).unwrap();
        SignedDispatch { payload, signature: signed.as_ref().to_vec() }
    }

    /// The journal as it lies on the disk; no executor runs.
    pub fn journal(&self) -> Opened {
        let directory = self.path("state");
        Journal::open(&directory, Reserve::keep(&directory), self.now()).unwrap()
    }

    /// Starts an executor and gives it with the other end of its socket; no link is up.
    pub fn try_start(&mut self) -> Result<(ExecutorHandle, Core), StartError> {
        let (core, executor) = socket::pair().unwrap();
        let has_lvm = self.has_lvm;
        let config = ExecutorConfig {
            state_dir: self.path("state"),
            trust_dir: self.path("trust"),
            policy: self.reader.clone().unwrap_or_else(|| {
                let policy = self.policy.clone();
                Arc::new(move || Ok(policy.clone()))
            }),
            beat: self.beat,
            host: Arc::new(self.host.clone()),
            facts: Arc::new(move || NodeFacts {
                hostname: "fw-1".to_owned(),
                flags: [("lvm".to_owned(), has_lvm)].into(),
                ..NodeFacts::default()
            }),
            tasks: self.tasks.table().on(&self.host),
            guards: Arc::new(self.guards()),
            node: self.node.clone(),
            agent_version: "0.1.0".to_owned(),
            step_output_limit: 1024 * 1024,
            overrun_grace: self.overrun_grace,
            crash: self.crash,
        };
        let handle = Executor::start(config, executor)?;
        self.report_key = handle.report_key();
        Ok((handle, Core::new(core)))
    }

    /// Guards as threads of this process; they live on when an executor ends, as processes do.
    pub fn guards(&self) -> Guards {
        Guards { host: Arc::new(self.host.clone()), tasks: self.tasks.table() }
    }

    /// The other end of a new socket for an executor whose core has left.
    pub fn next_core(handle: &ExecutorHandle) -> Core {
        let (core, executor) = socket::pair().unwrap();
        assert!(handle.connect(executor));
        Core::new(core)
    }

    /// Starts an executor with a link of this epoch.
    pub async fn start(&mut self, epoch: u64) -> (ExecutorHandle, Core) {
        let (handle, mut core) = self.try_start().unwrap();
        core.ready().await;
        core.link_up(self, 1, epoch).await;
        core.reconcile().await;
        (handle, core)
    }

    /// A document as an operator signs it.
    pub fn seal(&self, document: serde_json::Value) -> Envelope {
        let document: Document = serde_json::from_value(document).unwrap();
        self.operator.seal(Kind::Document, self.node.fleet, canonical::to_vec(&document).unwrap())
    }

    /// An order of a procedure with these steps (JSON of steps, and of other keys of the procedure).
    pub fn order(&self, number: u64, verb: Verb, procedure: serde_json::Value) -> Order {
        self.order_with(number, verb, procedure, |_| {})
    }

    /// The same, with the request changed before it is signed.
    #[allow(clippy::needless_pass_by_value)] // called with literals
    pub fn order_with(
        &self,
        number: u64,
        verb: Verb,
        procedure: serde_json::Value,
        change: impl FnOnce(&mut Request),
    ) -> Order {
        let profile = self.seal(json!({
            "kind": "profile", "schema": "fleet/v1", "name": "edge", "version": 1, "vars": {"data": "/opt/data"},
            "backup": {"config": {"kind": "files", "sources": ["/etc/edge"], "directory": "{data}/backups",
                "file_name": "config-{timestamp}.tar.gz", "keep": {"count": 3}}},
            "check": {"disk": {"kind": "disk_used", "path": "/", "every": "1m"},
                "web": {"kind": "service", "service": "web", "every": "1m"}},
            "command": {"wipe": {"argv": ["/bin/wipe"], "timeout": "1m", "changes": true},
                "nft": {"argv": ["/sbin/nft"], "timeout": "1m", "changes": true, "touches_network": true}},
            "service": {"ssh": {"unit": "ssh.service"}, "web": {"unit": "web.service"},
                "proxy": {"unit": "proxy.service"}}
        }));
        let mut full = json!({
            "kind": "procedure", "schema": "fleet/v1", "name": "work", "version": 1, "profile": "edge",
            "changes": true, "timeout": "1h"
        });
        for (key, value) in procedure.as_object().unwrap() {
            full[key] = value.clone();
        }
        let procedure = self.seal(full);
        let run = RunId::from_number(number);
        let mut request = Request {
            schema: REQUEST_SCHEMA.to_owned(),
            fleet: self.node.fleet,
            run,
            verb,
            procedure: procedure.digest(),
            profile: profile.digest(),
            params: std::collections::BTreeMap::new(),
            selector: String::new(),
            nodes: NodeList::of(&[self.node.node]),
            plan: None,
            rollout_policy: None,
            max_parallel: 1,
            max_failures: None,
            procedure_revision: None,
            profile_revision: None,
            older_revisions: false,
            not_before: self.now().minus(Duration::from_mins(1)),
            not_after: self.now().plus(Duration::from_hours(2)),
            tick: None,
            reason: "test".to_owned(),
        };
        change(&mut request);
        let payload = canonical::to_vec(&request).unwrap();
        let request = self.operator.seal(Kind::Request, self.node.fleet, payload);
        Order { request, documents: vec![procedure, profile], run }
    }

    pub fn assignment(&self, order: &Order, attempt: u32, epoch: u64) -> Assignment {
        // One node: the path is empty and its leaf the root.
        debug_assert_eq!(NodeList::of(&[self.node.node]).root, node_leaf(self.node.node));
        Assignment {
            job: JobId::first(order.run, self.node.node),
            attempt: Attempt(attempt),
            authority: fleet_types::authority::Authority::Request(order.request.digest()),
            node_index: 0,
            node_path: vec![],
            generation: Generation(1),
            link_epoch: LinkEpoch(epoch),
        }
    }

    pub fn wave(&self, assignment: &Assignment) -> WaveProof {
        sign_wave(std::slice::from_ref(assignment), self.node.fleet, &self.dispatch).remove(0)
    }
}

/// Starts the guard's own loop on a thread.
pub struct Guards {
    host: Arc<dyn Host>,
    tasks: TaskTable,
}

impl StartGuard for Guards {
    fn start(&self, folder: &Path) -> io::Result<()> {
        let (pending, host, tasks) =
            (Pending::at(folder.to_owned()), Arc::clone(&self.host), self.tasks.clone());
        std::thread::spawn(move || watch(&pending, &host, &tasks));
        Ok(())
    }
}

/// Steps that change: `backup.run` for each id.
pub fn backups(steps: &[&str]) -> serde_json::Value {
    let step = |id: &&str| {
        json!({"id": id, "kind": "task", "title": format!("Step {id}"), "uses": "backup.run",
            "with": {"backup": "config"}, "on_failure": "abort"})
    };
    json!({ "step": steps.iter().map(step).collect::<Vec<_>>() })
}

/// One step that reads.
pub fn checks() -> serde_json::Value {
    json!({"changes": false, "step": [{"id": "look", "kind": "task", "uses": "health.check"}]})
}

/// Digest of a report's bytes.
pub fn digest_of(report: &fleet_proto::pb::SealedReport) -> Digest {
    Digest::of(&report.payload)
}
