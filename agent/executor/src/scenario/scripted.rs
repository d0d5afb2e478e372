//! Tasks that do as a test says and count how often they were called.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use fleet_types::report::{Change as Changed, TaskReport};
use tokio::sync::Notify;

use crate::resolve::TaskTable;
use crate::tasks::{
    Change, Inspect, JobView, RetryKind, Reversal, Task, TaskContext, TaskError, TaskPlan, find,
};

/// What a scripted task does when it is called for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Ends well.
    Well,
    /// Fails.
    Fails,
    /// Fails twice, then ends well.
    FailsTwice,
    /// Fails, and may be tried again after a busy lock.
    IsLocked,
    /// Cannot say what it did.
    IsLost,
    /// Panics.
    Panics,
    /// Waits until the test lets go.
    Waits,
    /// Waits until the test lets go while its undo is noted, then ends well.
    NotesLong,
    /// Goes on until it is asked to stop, and stops cleanly.
    Stops,
    /// Prints so many kilobytes, then ends well.
    Prints(usize),
    /// Ends well; its plan finds something else than before.
    FindsOther,
    /// Asks for a restart of the machine and ends well in the boot after it.
    Restarts,
}

/// A scripted task that nothing undoes.
struct WithoutUndo;

impl Change for WithoutUndo {
    fn plan(&self, _: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        Ok(TaskPlan::default())
    }

    fn reversal(&self) -> Reversal {
        Reversal::None
    }

    fn apply(&self, _: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        Ok(TaskReport::default())
    }
}

/// One that only a guard puts back.
struct ForGuards(&'static Tasks);

impl Change for ForGuards {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        Change::plan(self.0, context)
    }

    fn reversal(&self) -> Reversal {
        Reversal::GuardOnly
    }

    fn undo(&self, context: &TaskContext<'_>) -> Result<serde_json::Value, TaskError> {
        self.0.undo(context)
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        self.0.apply(context)
    }

    fn revert(&self, context: &TaskContext<'_>, undo: &serde_json::Value) -> Result<TaskReport, TaskError> {
        self.0.revert(context, undo)
    }
}

/// Scripted tasks under real names: `backup.run` changes, `health.check` reads.
pub struct Tasks {
    script: Mutex<BTreeMap<String, Does>>,
    calls: Mutex<Vec<String>>,
    views: Mutex<BTreeMap<String, JobView>>,
    times: Mutex<Vec<[String; 2]>>,
    news: Notify,
    go: (SyncSender<()>, Mutex<Receiver<()>>),
}

impl Tasks {
    /// Leaked: tasks of the registry live as long as the process.
    pub fn new() -> &'static Self {
        let (sender, receiver) = sync_channel(64);
        Box::leak(Box::new(Self {
            script: Mutex::default(),
            calls: Mutex::default(),
            views: Mutex::default(),
            times: Mutex::default(),
            news: Notify::new(),
            go: (sender, Mutex::new(receiver)),
        }))
    }

    pub fn table(&'static self) -> TaskTable {
        TaskTable::of([
            ("backup.run", Task::Change(self)),
            ("backup.prune", Task::Change(self)),
            ("health.check", Task::Inspect(self)),
            ("service.assert_active", Task::Inspect(self)),
            ("service.restart", Task::Change(self)),
            // These two as they are: they act on the scripted machine alone.
            ("service.start", find("service.start").unwrap()),
            ("service.stop", find("service.stop").unwrap()),
            ("command.run", Task::Change(&WithoutUndo)),
            ("reboot", Task::Change(self)),
            ("health.repair", Task::Change(Box::leak(Box::new(ForGuards(self))))),
        ])
    }

    /// Sets what the step with this id does.
    pub fn set(&self, step: &str, does: Does) {
        self.script.lock().unwrap().insert(step.to_owned(), does);
    }

    /// Every call so far: `apply one`, `undo one`, `revert one`, `inspect two`.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn count(&self, call: &str) -> usize {
        self.calls().iter().filter(|c| *c == call).count()
    }

    /// What the newest call of this step learned of its job.
    pub fn view(&self, step: &str) -> JobView {
        self.views.lock().unwrap().get(step).cloned().unwrap_or_default()
    }

    /// What each call was told of the time of its job: as a placeholder, and as its start.
    pub fn times(&self) -> Vec<[String; 2]> {
        self.times.lock().unwrap().clone()
    }

    /// Waits until this call has begun.
    pub async fn began(&self, call: &str) {
        let waiting = async {
            loop {
                // Registered before looking, so that a call between look and wait is not missed.
                let mut news = std::pin::pin!(self.news.notified());
                news.as_mut().enable();
                if self.count(call) > 0 {
                    return;
                }
                news.await;
            }
        };
        let limit = std::time::Duration::from_secs(30);
        tokio::time::timeout(limit, waiting).await.unwrap_or_else(|_| panic!("{call} did not begin"));
    }

    /// Lets one waiting call go on.
    pub fn let_go(&self) {
        self.go.0.send(()).unwrap();
    }

    /// Bounded, so that a test that never lets go still ends.
    fn wait(&self) -> Result<(), TaskError> {
        let gone = self.go.1.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20));
        gone.map_err(|_| TaskError::Declared("never let go".to_owned()))
    }

    fn play(&self, verb: &str, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let step = context.step.step.clone();
        self.calls.lock().unwrap().push(format!("{verb} {step}"));
        self.views.lock().unwrap().insert(step.clone(), context.job.clone());
        let told = context.placeholders.get("timestamp").cloned().unwrap_or_default();
        self.times.lock().unwrap().push([told, context.step.job_started.compact()]);
        self.news.notify_waiters();
        let does = self.script.lock().unwrap().get(&step).copied().unwrap_or(Does::Well);
        let report = TaskReport { summary: format!("{verb} done"), ..TaskReport::default() };
        match does {
            Does::Well | Does::NotesLong | Does::FindsOther => Ok(report),
            Does::Restarts => match &context.job.restarted_from {
                Some(boot) if *boot != context.host.clock().boot_id() => Ok(report),
                _ => Err(TaskError::Restart),
            },
            Does::FailsTwice if self.count(&format!("{verb} {step}")) > 2 => Ok(report),
            Does::Fails | Does::FailsTwice => Err(TaskError::failed("it does not work", report)),
            Does::IsLocked => Err(TaskError::Failed {
                message: "the lock is busy".to_owned(),
                report: Box::new(report),
                retry: Some(RetryKind::LockBusy),
            }),
            Does::IsLost => Err(TaskError::OutcomeUnknown {
                message: "nobody saw it end".to_owned(),
                report: Box::default(),
                retry: None,
            }),
            Does::Stops => {
                while !context.cancel.is_cancelled() {
                    std::thread::park_timeout(std::time::Duration::from_millis(5));
                }
                Err(TaskError::Cancelled(Box::new(report)))
            }
            Does::Panics => panic!("scripted"),
            Does::Waits => self.wait().map(|()| report),
            Does::Prints(kilobytes) => {
                for _ in 0..kilobytes {
                    context.output.write(&[b'x'; 1024]);
                }
                Ok(report)
            }
        }
    }
}

impl Inspect for Tasks {
    fn plan(&self, _: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        Ok(TaskPlan { summary: "would look".to_owned(), ..TaskPlan::default() })
    }

    fn inspect(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        self.play("inspect", context)
    }
}

impl Change for Tasks {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let does = self.script.lock().unwrap().get(&context.step.step).copied();
        let after = if matches!(does, Some(Does::FindsOther)) { "other" } else { "" };
        let change = Changed {
            subject: format!("{:?}", context.with.get("tag")),
            action: "created".to_owned(),
            before: String::new(),
            after: after.to_owned(),
        };
        let commands = vec![vec!["tar".to_owned()]];
        Ok(TaskPlan { summary: "would change".to_owned(), commands, changes: vec![change], moves: false })
    }

    fn reversal(&self) -> Reversal {
        Reversal::Stored
    }

    fn undo(&self, context: &TaskContext<'_>) -> Result<serde_json::Value, TaskError> {
        self.calls.lock().unwrap().push(format!("undo {}", context.step.step));
        self.news.notify_waiters();
        if self.script.lock().unwrap().get(&context.step.step) == Some(&Does::NotesLong) {
            self.wait()?;
        }
        Ok(serde_json::json!({"of": context.step.step}))
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        self.play("apply", context)
    }

    fn keep(&self, context: &TaskContext<'_>, undo: &serde_json::Value) -> Result<(), TaskError> {
        assert!(undo.get("of").is_some());
        self.play("keep", context).map(drop)
    }

    fn revert(&self, context: &TaskContext<'_>, undo: &serde_json::Value) -> Result<TaskReport, TaskError> {
        assert!(undo.get("of").is_some());
        self.play("revert", context)
    }
}
