//! A machine below a root and one step of a job on it, for the tests that use real programs: each of them is a program of its
//! own and takes what it needs of this.

#![allow(dead_code)] // no test needs all of it
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fleet_executor::host::{Host, HostConfig, LinuxHost, Supervisor, UnitsKind};
use fleet_executor::tasks::{
    CancelFlag, JobView, OutputSink, StepIdentity, Task, TaskContext, TaskError, find,
};
use fleet_types::document::profile::Profile;
use fleet_types::facts::NodeFacts;
use fleet_types::id::{Attempt, NodeId, RunId};
use fleet_types::label::Labels;
use fleet_types::report::TaskReport;
use fleet_types::time::Timestamp;

/// The example of this crate that is built beside the tests.
pub fn supervisor() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.ancestors().nth(2).unwrap().join("examples/supervise");
    assert!(path.exists(), "build the examples first: {}", path.display());
    path
}

/// The machine below `folder/root`, its state beside it, its programs under this supervisor.
pub fn open_under(folder: &Path, supervisor: PathBuf) -> LinuxHost {
    LinuxHost::open(&HostConfig {
        root: folder.join("root"),
        state: folder.join("state"),
        supervisor: Supervisor { program: supervisor, arguments: vec!["supervise".to_owned()] },
        units: UnitsKind::Supervised,
    })
    .unwrap()
}

/// The same with the real one.
pub fn open(folder: &Path) -> LinuxHost {
    open_under(folder, supervisor())
}

/// A profile of these tables.
pub fn profile(tables: &str) -> Profile {
    toml::from_str(&format!("schema = \"fleet/v1\"\nname = \"edge\"\nversion = 1\n{tables}")).unwrap()
}

/// A step of this name and try of the first attempt of run 7.
pub fn identity(step: &str, try_number: u32, job_started: Timestamp) -> StepIdentity {
    StepIdentity {
        run: RunId::from_number(7),
        node: NodeId::from_uuid(uuid::Uuid::from_u128(1)),
        node_name: "fw-1".parse().unwrap(),
        labels: Labels::default(),
        attempt: Attempt(1),
        step: step.to_owned(),
        try_number,
        job_started,
    }
}

struct Nowhere;

impl OutputSink for Nowhere {
    fn write(&self, _bytes: &[u8]) {}
}

/// One step, to be carried out.
pub struct Step<'a> {
    pub host: &'a LinuxHost,
    pub profile: &'a Profile,
    pub with: BTreeMap<String, serde_json::Value>,
    pub name: &'a str,
    pub try_number: u32,
    pub facts: NodeFacts,
    pub job: JobView,
    pub cancel: CancelFlag,
    pub limit: Duration,
}

impl<'a> Step<'a> {
    /// The first try of a step with these parameters, as JSON.
    pub fn new(host: &'a LinuxHost, profile: &'a Profile, with: &str) -> Self {
        Self {
            host,
            profile,
            with: serde_json::from_str(with).unwrap(),
            name: "one",
            try_number: 1,
            facts: NodeFacts::default(),
            job: JobView::default(),
            cancel: CancelFlag::default(),
            limit: Duration::from_mins(2),
        }
    }

    /// What a task does with its context.
    pub fn act<T>(&self, work: impl FnOnce(&TaskContext<'_>) -> T) -> T {
        work(&TaskContext {
            host: self.host,
            profile: self.profile,
            with: &self.with,
            facts: &self.facts,
            step: &identity(self.name, self.try_number, self.host.clock().now()),
            placeholders: &BTreeMap::new(),
            job: &self.job,
            output: &Nowhere,
            cancel: &self.cancel,
            deadline: Instant::now() + self.limit,
        })
    }

    /// Carries an action out.
    pub fn carry_out(&self, action: &str) -> Result<TaskReport, TaskError> {
        self.act(|context| match find(action).unwrap() {
            Task::Inspect(task) => task.inspect(context),
            Task::Change(task) => task.apply(context),
        })
    }
}

/// Waits until something holds.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    wait_to_see(what, || condition().then_some(()));
}

/// Waits for something to be seen, at most a minute.
pub fn wait_to_see<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
