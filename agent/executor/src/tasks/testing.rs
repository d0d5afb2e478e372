//! The bench that tests of tasks work on: a scripted machine with files in a temporary root, a profile, and a
//! step to be carried out. Tests only.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fleet_types::document::profile::Profile;
use fleet_types::facts::NodeFacts;
use fleet_types::id::{Attempt, NodeId, RunId};
use fleet_types::label::Labels;
use fleet_types::report::TaskReport;
use fleet_types::time::Timestamp;

use super::{CancelFlag, JobView, OutputSink, StepIdentity, Task, TaskContext, TaskError, TaskPlan, find};
use crate::host::scripted::ScriptedHost;

/// Parameters of a step.
pub(super) type With = BTreeMap<String, serde_json::Value>;

/// What steps printed.
#[derive(Default)]
pub(super) struct Printed(Mutex<Vec<u8>>);

impl Printed {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl OutputSink for Printed {
    fn write(&self, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}

pub(super) struct Bench {
    pub(super) host: ScriptedHost,
    pub(super) profile: Profile,
    pub(super) step: StepIdentity,
    pub(super) facts: NodeFacts,
    pub(super) cancel: CancelFlag,
    pub(super) placeholders: BTreeMap<String, String>,
    pub(super) job: JobView,
    pub(super) printed: Printed,
    folder: tempfile::TempDir,
}

impl Bench {
    /// A bench with these tables of a profile.
    pub(super) fn new(tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let host = ScriptedHost::new(&root, &folder.path().join("notes")).unwrap();
        let text = format!("schema = \"fleet/v1\"\nname = \"edge\"\nversion = 1\n{tables}");
        let step = StepIdentity {
            run: RunId::from_number(7),
            node: NodeId::from_uuid(uuid::Uuid::from_u128(1)),
            node_name: "fw-1".parse().unwrap(),
            labels: Labels::new([("site".to_owned(), "a".to_owned())]).unwrap(),
            attempt: Attempt(1),
            step: "one".to_owned(),
            try_number: 1,
            job_started: Timestamp::clamped(1_763_820_131_000),
        };
        Self {
            host,
            profile: toml::from_str(&text).unwrap(),
            step,
            facts: NodeFacts::default(),
            cancel: CancelFlag::default(),
            placeholders: BTreeMap::new(),
            job: JobView::default(),
            printed: Printed::default(),
            folder,
        }
    }

    #[allow(clippy::unused_self)] // reads as a sentence where it is used
    pub(super) fn with(&self, json: &str) -> With {
        serde_json::from_str(json).unwrap()
    }

    /// Where a declared path lies.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path.trim_start_matches('/'))
    }

    /// Puts a file in place, with the folders above it.
    pub(super) fn file(&self, path: &str, bytes: &[u8]) {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        self.aged(&path, Duration::ZERO);
    }

    /// Sets the time of a file to so long before the script's present.
    pub(super) fn age(&self, path: &str, age: Duration) {
        self.aged(&self.at(path), age);
    }

    fn aged(&self, path: &std::path::Path, age: Duration) {
        let now = u64::try_from(self.host.script().now.as_millis()).unwrap();
        let time = std::time::UNIX_EPOCH + Duration::from_millis(now) - age;
        std::fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
    }

    /// Names of the members of a folder, sorted.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.at(path))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(super) fn context<'a>(&'a self, with: &'a With) -> TaskContext<'a> {
        TaskContext {
            host: &self.host,
            profile: &self.profile,
            with,
            facts: &self.facts,
            step: &self.step,
            placeholders: &self.placeholders,
            job: &self.job,
            output: &self.printed,
            cancel: &self.cancel,
            deadline: Instant::now() + Duration::from_mins(1),
        }
    }

    /// Carries the step out.
    pub(super) fn apply(&self, action: &str, with: &With) -> Result<TaskReport, TaskError> {
        match find(action).expect("a built action") {
            Task::Inspect(task) => task.inspect(&self.context(with)),
            Task::Change(task) => task.apply(&self.context(with)),
        }
    }

    pub(super) fn plan(&self, action: &str, with: &With) -> Result<TaskPlan, TaskError> {
        match find(action).expect("a built action") {
            Task::Inspect(task) => task.plan(&self.context(with)),
            Task::Change(task) => task.plan(&self.context(with)),
        }
    }

    fn change(action: &str) -> &'static dyn super::Change {
        match find(action).expect("a built action") {
            Task::Change(task) => task,
            Task::Inspect(_) => panic!("{action} changes nothing"),
        }
    }

    /// What the step notes before it begins.
    pub(super) fn undo(&self, action: &str, with: &With) -> Result<serde_json::Value, TaskError> {
        Self::change(action).undo(&self.context(with))
    }

    /// Puts back what the step noted.
    pub(super) fn revert(
        &self,
        action: &str,
        with: &With,
        undo: &serde_json::Value,
    ) -> Result<TaskReport, TaskError> {
        Self::change(action).revert(&self.context(with), undo)
    }

    /// The report of a step that must fail.
    pub(super) fn failure(&self, action: &str, with: &With) -> (String, TaskReport) {
        match self.apply(action, with) {
            Err(TaskError::Failed { message, report, .. }) => (message, *report),
            other => panic!("expected a failure with a report, got {other:?}"),
        }
    }
}
