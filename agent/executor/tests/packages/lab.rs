//! A node below a temporary root with its own dpkg database, and an archive of packages made on the spot.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fleet_executor::host::{Host, LinuxHost};
use fleet_executor::policy::{LocalPolicy, package_rules};
use fleet_executor::tasks::{CancelFlag, JobView, NotedUndo, Task, TaskContext, TaskError, TaskPlan, find};
use fleet_types::digest::Digest;
use fleet_types::document::profile::Profile;
use fleet_types::facts::NodeFacts;
use fleet_types::report::TaskReport;

use crate::step::{self, Step};

/// The profile of the node.
const PROFILE: &str = r#"
[package.fw]
name = "fw"
manager = "apt"
[package.system]
name = "*"
manager = "apt"
origin = "distribution"
[service.fw]
unit = "fw.service"
"#;

/// A package to be built.
#[derive(Clone, Copy, Default)]
pub struct Deb<'a> {
    pub name: &'a str,
    pub version: &'a str,
    pub depends: &'a str,
    /// Content of `/etc/NAME.conf`, a configuration file; none when empty.
    pub config: &'a str,
    /// Body of a script before unpacking.
    pub preinst: &'a str,
    /// Body of a script after unpacking.
    pub postinst: &'a str,
}

pub struct Lab {
    folder: tempfile::TempDir,
    pub host: LinuxHost,
    pub profile: RefCell<Profile>,
    pub policy: RefCell<LocalPolicy>,
    pub cancel: CancelFlag,
    pub time: Cell<Duration>,
    pub noted: RefCell<Vec<NotedUndo>>,
    pub resumed: Cell<bool>,
    steps: Cell<u32>,
}

/// Runs a program of the machine to its good end.
pub fn run(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let output = command.output().unwrap_or_else(|e| panic!("these tests need {shown}: {e}"));
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}: {text}");
    text
}

impl Lab {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        for path in ["var/lib/dpkg/updates", "var/lib/dpkg/info", "var/lib/dpkg/triggers", "var/log/apt"]
            .into_iter()
            .chain([
                "etc/apt/trusted.gpg.d",
                "etc/apt/preferences.d",
                "var/lib/apt/lists/partial",
                "usr",
                "tmp",
            ])
            .chain(["var/cache/apt/archives/partial", "etc/systemd/system"])
        {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
        fs::create_dir(folder.path().join("archive")).unwrap();
        let host = step::open(folder.path());
        let lab = Self {
            folder,
            host,
            profile: RefCell::new(step::profile(PROFILE)),
            policy: RefCell::new(LocalPolicy::default()),
            cancel: CancelFlag::default(),
            time: Cell::new(Duration::from_mins(2)),
            noted: RefCell::new(Vec::new()),
            resumed: Cell::new(false),
            steps: Cell::new(0),
        };
        lab.sources("[trusted=yes]");
        lab
    }

    /// Where the node gets packages from.
    pub fn sources(&self, options: &str) {
        let line = format!("deb {options} copy:{} ./\n", self.archive().display());
        fs::write(self.at("/etc/apt/sources.list"), line).unwrap();
    }

    pub fn archive(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Where a declared path lies.
    pub fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path.trim_start_matches('/'))
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Builds a package into the archive.
    pub fn build(&self, deb: Deb<'_>) -> PathBuf {
        let tree = self.folder.path().join("tree");
        let _ = fs::remove_dir_all(&tree);
        let share = tree.join("usr/share").join(deb.name);
        fs::create_dir_all(&share).unwrap();
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::write(share.join("version"), deb.version).unwrap();
        std::os::unix::fs::symlink("version", share.join("link")).unwrap();
        let mut control = format!(
            "Package: {}\nVersion: {}\nArchitecture: amd64\nMaintainer: Lab <lab@example.org>\nInstalled-Size: 10\n",
            deb.name, deb.version
        );
        if !deb.depends.is_empty() {
            writeln!(control, "Depends: {}", deb.depends).unwrap();
        }
        control.push_str("Description: a package of the tests\n");
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        if !deb.config.is_empty() {
            fs::create_dir_all(tree.join("etc")).unwrap();
            fs::write(tree.join("etc").join(format!("{}.conf", deb.name)), deb.config).unwrap();
            fs::write(tree.join("DEBIAN/conffiles"), format!("/etc/{}.conf\n", deb.name)).unwrap();
        }
        for (name, body) in [("preinst", deb.preinst), ("postinst", deb.postinst)] {
            if !body.is_empty() {
                let path = tree.join("DEBIAN").join(name);
                fs::write(&path, format!("#!/bin/sh\nR=$DPKG_ROOT\n{body}\n")).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        let path = self.archive().join(format!("{}_{}_amd64.deb", deb.name, deb.version.replace(':', "%3a")));
        run(Command::new("dpkg-deb").args(["--root-owner-group", "-b"]).arg(&tree).arg(&path));
        path
    }

    /// Writes the lists of the archive, published by `origin`.
    pub fn publish(&self, origin: &str) {
        let mut packages = String::new();
        let mut files: Vec<_> =
            fs::read_dir(self.archive()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for path in files.iter().filter(|path| path.extension().is_some_and(|e| e == "deb")) {
            let bytes = fs::read(path).unwrap();
            let fields = run(Command::new("dpkg-deb").arg("-f").arg(path));
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let (sha256, size) = (hex(&bytes), bytes.len());
            writeln!(packages, "{}\nFilename: ./{name}\nSize: {size}\nSHA256: {sha256}\n", fields.trim_end())
                .unwrap();
        }
        fs::write(self.archive().join("Packages"), &packages).unwrap();
        let date = run(Command::new("date").args(["-Ru"]));
        let release = format!(
            "Origin: {origin}\nLabel: {origin}\nSuite: stable\nCodename: lab\nArchitectures: amd64\nDate: {date}SHA256:\n {} {} Packages\n",
            hex(packages.as_bytes()),
            packages.len()
        );
        fs::write(self.archive().join("Release"), release).unwrap();
    }

    /// Puts a package on the node by hand, as an administrator would.
    pub fn install(&self, path: &Path) {
        let root = self.folder.path().join("root");
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", root.display()))
            .args(["--force-not-root", "--force-script-chrootless", "--force-confold", "-i"])
            .arg(path);
        run(&mut dpkg);
    }

    /// Every package of the database with its version and state.
    pub fn packages(&self) -> String {
        let admin = self.at("/var/lib/dpkg");
        let format = "${Package} ${Version} ${db:Status-Want} ${db:Status-Status}\\n";
        let mut query = Command::new("dpkg-query");
        let output =
            query.arg(format!("--admindir={}", admin.display())).args(["-W", "-f", format]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn audit(&self) -> String {
        run(Command::new("dpkg")
            .arg(format!("--root={}", self.folder.path().join("root").display()))
            .arg("--audit"))
    }

    /// Everything on the node but logs and caches, with its content.
    pub fn snapshot(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.at("/etc"), self.at("/usr")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let kind = fs::symlink_metadata(&path).unwrap();
                let name = path.display().to_string();
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_symlink() {
                    found.insert(name, fs::read_link(&path).unwrap().display().to_string());
                } else {
                    let mode = kind.permissions().mode() & 0o7777;
                    found.insert(
                        name,
                        format!("{mode:o} {}", String::from_utf8_lossy(&fs::read(&path).unwrap())),
                    );
                }
            }
        }
        found
    }

    /// Calls a task as a run would, as a step of its own.
    fn call<T>(
        &self,
        step: &str,
        with: &str,
        act: impl FnOnce(&TaskContext<'_>) -> Result<T, TaskError>,
    ) -> Result<T, TaskError> {
        let job = JobView {
            noted: self.noted.borrow().clone(),
            resumed: self.resumed.get(),
            restarted_from: None,
            packages: package_rules(&self.policy.borrow()),
        };
        let profile = self.profile.borrow();
        let facts = NodeFacts { os: "zehrasec".to_owned(), ..NodeFacts::default() };
        let (cancel, limit) = (self.cancel.clone(), self.time.get());
        Step { name: step, facts, job, cancel, limit, ..Step::new(&self.host, &profile, with) }.act(act)
    }

    fn step(&self) -> String {
        self.steps.set(self.steps.get() + 1);
        format!("step-{}", self.steps.get())
    }

    pub fn plan(&self, action: &str, with: &str) -> Result<TaskPlan, TaskError> {
        self.call(&self.step(), with, |context| match find(action).unwrap() {
            Task::Inspect(task) => task.plan(context),
            Task::Change(task) => task.plan(context),
        })
    }

    /// A step, with its undo noted first where it has one.
    pub fn apply(&self, action: &str, with: &str) -> Result<TaskReport, TaskError> {
        let step = self.step();
        if action == "package.upgrade" {
            self.note(&step, with)?;
        }
        self.carry_out(&step, action, with)
    }

    /// Notes the undo of an upgrade.
    pub fn note(&self, step: &str, with: &str) -> Result<(), TaskError> {
        let Some(Task::Change(task)) = find("package.upgrade") else { panic!("a change") };
        let undo = self.call(step, with, |context| task.undo(context))?;
        let action = "package.upgrade".to_owned();
        self.noted.borrow_mut().push(NotedUndo { step: step.to_owned(), action, undo });
        Ok(())
    }

    /// The work of a step alone.
    pub fn carry_out(&self, step: &str, action: &str, with: &str) -> Result<TaskReport, TaskError> {
        self.call(step, with, |context| match find(action).unwrap() {
            Task::Inspect(task) => task.inspect(context),
            Task::Change(task) => task.apply(context),
        })
    }

    /// The stored undo of the newest upgrade.
    pub fn revert(&self) -> Result<TaskReport, TaskError> {
        let undo = self.noted.borrow().last().unwrap().undo.clone();
        let Some(Task::Change(task)) = find("package.upgrade") else { panic!("a change") };
        self.call(&self.step(), "{}", |context| task.revert(context, &undo))
    }

    /// The failure of a step that must fail, by the code of its first problem.
    pub fn failure(&self, action: &str, with: &str) -> (String, String, TaskReport) {
        code_of(self.apply(action, with))
    }
}

impl Drop for Lab {
    /// Also after a failure: a service that goes on outlives the test.
    fn drop(&mut self) {
        let _ = self.host.units().stop_all();
    }
}

/// Code and message of a failure, with its report.
pub fn code_of(ended: Result<TaskReport, TaskError>) -> (String, String, TaskReport) {
    match ended {
        Err(TaskError::Failed { message, report, .. }) => {
            let code = report.problems.last().map_or_else(String::new, |found| found.code.clone());
            (code, message, *report)
        }
        Err(TaskError::Declared(message)) => ("declared".to_owned(), message, TaskReport::default()),
        other => panic!("expected a failure, got {other:?}"),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    let digest = Digest::of(bytes).to_string();
    digest.rsplit(':').next().unwrap_or(&digest).to_owned()
}
