//! Starting apt and dpkg: never interactive, with an explicit policy for configuration files, in words that can be read;
//! and naming the cause when they fail.
//!
//! On a development node they work on its root, without root rights, by a configuration file of their own. A change runs
//! under its step's name and is not ended by a cancel (security-and-delivery §2.11). Called by the backend.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::files::Files;
use super::super::packages::{PackageError, PackageFault, PackageResult, PackageWork};
use super::super::processes::{
    Exit, Invocation, ProcessError, ProcessOutcome, Processes, Purpose, Running, UnitName,
};
use super::super::program::{PROGRAM_FOLDERS, is_rooted};
use super::super::record::write_durably;
use crate::tasks::CancelFlag;

/// How long apt waits for a lock. A manual `apt install` of a few packages is over by then; what takes longer is a reason
/// for a retry that the procedure declares.
const LOCK_WAIT: Duration = Duration::from_mins(1);
/// Most of a program's own words that are kept as evidence.
const MAX_EVIDENCE_CHARS: usize = 500;

/// What configuration files are decided by: those that nobody changed follow the package, those that somebody changed
/// stay as they are.
const CONFIG_POLICY: [&str; 2] = ["--force-confdef", "--force-confold"];

/// The programs of one machine.
pub(super) struct Programs {
    pub(super) files: Arc<dyn Files>,
    pub(super) processes: Arc<dyn Processes>,
    /// The backend's own folder of state.
    pub(super) folder: PathBuf,
}

impl Programs {
    /// The root on this machine; none when it is the machine's own.
    pub(super) fn root(&self) -> Option<String> {
        is_rooted(&*self.files).then(|| self.files.root().display().to_string())
    }

    /// Runs what only reads, to its good end.
    pub(super) fn read(
        &self,
        program: &str,
        arguments: &[&str],
        work: PackageWork<'_>,
    ) -> PackageResult<String> {
        let argv = self.argv(program, arguments, work)?;
        self.run(argv, None, Purpose::ReadOnly, work, work.cancel)
    }

    /// The same in a declared folder, for what puts a file where it is started.
    pub(super) fn read_in(
        &self,
        folder: &Path,
        program: &str,
        arguments: &[&str],
        work: PackageWork<'_>,
    ) -> PackageResult<String> {
        let argv = self.argv(program, arguments, work)?;
        self.run(argv, Some(folder), Purpose::ReadOnly, work, work.cancel)
    }

    /// Runs what changes the node, to its good end.
    pub(super) fn effect(
        &self,
        program: &str,
        arguments: &[&str],
        part: &str,
        work: PackageWork<'_>,
    ) -> PackageResult<String> {
        let argv = self.argv(program, arguments, work)?;
        let name = UnitName::new(work.step, part);
        self.run(argv, None, Purpose::Effect(&name), work, &CancelFlag::default())
    }

    fn argv(&self, program: &str, arguments: &[&str], work: PackageWork<'_>) -> PackageResult<Vec<String>> {
        self.write_configuration()?;
        let mut argv = vec![program.to_owned()];
        match program {
            "apt-get" => argv.extend(apt_options(work)),
            "dpkg" => argv.extend(self.dpkg_options()),
            "dpkg-query" => argv.extend(self.root().map(|root| format!("--admindir={root}/var/lib/dpkg"))),
            _ => {}
        }
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Ok(argv)
    }

    fn dpkg_options(&self) -> Vec<String> {
        let policy = CONFIG_POLICY.iter().map(|policy| (*policy).to_owned());
        policy.chain(self.root().into_iter().flat_map(|root| rooted_options(&root))).collect()
    }

    /// What makes apt work on the root of a development node, read before any configuration of the machine.
    fn write_configuration(&self) -> PackageResult<()> {
        let Some(root) = self.root() else { return Ok(()) };
        let inside = PROGRAM_FOLDERS.iter().map(|folder| format!("{root}{folder}"));
        let search: Vec<String> = inside.chain(PROGRAM_FOLDERS.map(str::to_owned)).collect();
        let options: Vec<String> =
            rooted_options(&root).iter().map(|option| format!("  \"{option}\";\n")).collect();
        let text = format!(
            "Dir \"{root}/\";\nDir::State::status \"{root}/var/lib/dpkg/status\";\nAPT::Sandbox::User \"\";\n\
             DPkg::Path \"{}\";\nDPkg::Options {{\n{}}};\n",
            search.join(":"),
            options.concat()
        );
        let path = self.configuration();
        if std::fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
            return Ok(());
        }
        std::fs::create_dir_all(&self.folder)
            .and_then(|()| write_durably(&path, text.as_bytes()))
            .map_err(|e| PackageError::new(PackageFault::Other, format!("{}: {e}", path.display())))
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("apt.conf")
    }

    fn run(
        &self,
        argv: Vec<String>,
        directory: Option<&Path>,
        purpose: Purpose<'_>,
        work: PackageWork<'_>,
        cancel: &CancelFlag,
    ) -> PackageResult<String> {
        let program = shown(&argv);
        let mut invocation = Invocation::new(argv, left(work));
        invocation.directory = directory.map(|path| path.display().to_string());
        invocation.environment = self.environment();
        let running = Running { output: work.output, cancel };
        match self.processes.run(&invocation, purpose, &running) {
            Ok(outcome) => judge(&program, &outcome),
            Err(error @ ProcessError::NotStarted { .. }) => {
                Err(PackageError::new(PackageFault::Other, error.to_string()))
            }
            Err(error @ ProcessError::OutcomeUnknown { .. }) => {
                Err(PackageError::new(PackageFault::Interrupted, error.to_string()))
            }
        }
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let mut environment: BTreeMap<String, String> = [
            ("LC_ALL", "C"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("DEBIAN_PRIORITY", "critical"),
            ("APT_LISTCHANGES_FRONTEND", "none"),
            ("APT_LISTBUGS_FRONTEND", "none"),
            ("UCF_FORCE_CONFFOLD", "1"),
            // It asks, or restarts by itself: which services are restarted says the procedure.
            ("NEEDRESTART_SUSPEND", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        if is_rooted(&*self.files) {
            environment.insert("APT_CONFIG".to_owned(), self.configuration().display().to_string());
        }
        environment
    }
}

fn apt_options(work: PackageWork<'_>) -> Vec<String> {
    // Half of what is left at most: so that a busy database is told as such before the step's time is over.
    let lock = LOCK_WAIT.min(left(work) / 2).as_secs().max(1);
    let mut options = vec![
        "-q".to_owned(),
        "-y".to_owned(),
        format!("-oDPkg::Lock::Timeout={lock}"),
        "-oDpkg::Use-Pty=0".to_owned(),
        "-oAPT::Install-Recommends=false".to_owned(),
        "-oAPT::Install-Suggests=false".to_owned(),
        "-oAPT::Get::AutomaticRemove=false".to_owned(),
        "-oAPT::Get::Show-User-Simulation-Note=false".to_owned(),
        "-oAPT::Update::Error-Mode=any".to_owned(),
        "-oAcquire::Retries=2".to_owned(),
    ];
    options.extend(CONFIG_POLICY.iter().map(|policy| format!("-oDPkg::Options::={policy}")));
    options
}

fn rooted_options(root: &str) -> [String; 4] {
    [
        format!("--root={root}"),
        "--force-not-root".to_owned(),
        "--force-script-chrootless".to_owned(),
        format!("--log={root}/var/log/dpkg.log"),
    ]
}

/// What is left of the step's time.
pub(super) fn left(work: PackageWork<'_>) -> Duration {
    work.until.saturating_duration_since(Instant::now())
}

/// Program and subcommand, for messages.
fn shown(argv: &[String]) -> String {
    let verb = argv.iter().skip(1).find(|argument| !argument.starts_with('-'));
    verb.map_or_else(|| argv.first().cloned().unwrap_or_default(), |verb| format!("{} {verb}", argv[0]))
}

fn judge(program: &str, outcome: &ProcessOutcome) -> PackageResult<String> {
    let text = String::from_utf8_lossy(&outcome.output).into_owned();
    let error = |fault, message: String| Err(PackageError { fault, message, evidence: evidence(&text) });
    match outcome.exit {
        Exit::Status(0) if outcome.output_bytes > text.len() as u64 => {
            error(PackageFault::Other, format!("{program} printed more than can be read"))
        }
        Exit::Status(0) => Ok(text),
        Exit::TimedOut => error(PackageFault::TimedOut, format!("{program} did not end in time")),
        Exit::Cancelled => error(PackageFault::Cancelled, format!("{program} was stopped on request")),
        Exit::Signal(signal) => {
            error(PackageFault::Interrupted, format!("{program} was ended by signal {signal}"))
        }
        exit @ Exit::Status(_) => {
            let (fault, words) = cause(&text).unwrap_or((PackageFault::Other, String::new()));
            let words = if words.is_empty() { exit.to_string() } else { words };
            error(fault, format!("{program}: {words}"))
        }
    }
}

/// Words of apt and dpkg by which causes are told apart, the more telling first: a bad signature is also reported as a
/// missing one, and an altered list as one that could not be fetched.
const CAUSES: &[(&str, PackageFault)] = &[
    ("Unable to acquire the dpkg frontend lock", PackageFault::LockHeld),
    ("Could not get lock", PackageFault::LockHeld),
    ("Unable to lock", PackageFault::LockHeld),
    ("lock was locked by another process", PackageFault::LockHeld),
    ("dpkg was interrupted", PackageFault::Unfinished),
    ("conffile prompt", PackageFault::ConfigQuestion),
    ("script subprocess returned error", PackageFault::Script),
    ("script subprocess was killed", PackageFault::Script),
    ("No space left on device", PackageFault::LittleSpace),
    ("enough free space", PackageFault::LittleSpace),
    ("Held packages were changed", PackageFault::Held),
    ("BADSIG", PackageFault::WronglySigned),
    ("NO_PUBKEY", PackageFault::WronglySigned),
    ("EXPKEYSIG", PackageFault::Expired),
    ("REVKEYSIG", PackageFault::WronglySigned),
    ("is expired", PackageFault::Expired),
    ("is not valid yet", PackageFault::Expired),
    ("changed its 'Origin' value", PackageFault::Renamed),
    ("changed its 'Label' value", PackageFault::Renamed),
    ("changed its 'Codename' value", PackageFault::Renamed),
    ("changed its 'Suite' value", PackageFault::Renamed),
    ("Hash Sum mismatch", PackageFault::Altered),
    ("unexpected size", PackageFault::Altered),
    ("Clearsigned file isn't valid", PackageFault::Altered),
    ("is not signed", PackageFault::Unsigned),
    ("could not be authenticated", PackageFault::Unsigned),
    ("cannot be authenticated", PackageFault::Unsigned),
    ("Unable to locate package", PackageFault::NoPackage),
    ("was not found", PackageFault::NoVersion),
    ("unmet dependencies", PackageFault::Dependencies),
    ("Unable to correct problems", PackageFault::Dependencies),
    ("dependency problems", PackageFault::Dependencies),
    ("Failed to fetch", PackageFault::Unreachable),
    ("does not have a Release file", PackageFault::Unreachable),
    ("Could not resolve", PackageFault::Unreachable),
    ("index files failed to download", PackageFault::Unreachable),
];

/// The cause that a text names, with its line.
pub(super) fn cause(text: &str) -> Option<(PackageFault, String)> {
    CAUSES.iter().find_map(|(words, fault)| {
        let first = text.lines().find(|line| line.contains(words))?;
        // The one that says who holds a lock says more than the one that gives up.
        let holder = text.lines().find(|line| line.contains("held by process"));
        let telling = holder.filter(|_| *fault == PackageFault::LockHeld).unwrap_or(first);
        Some((*fault, plain(telling)))
    })
}

/// What `apt-get update` complains of, also where it ends well: it goes on with older lists.
pub(super) fn complaint(text: &str) -> Option<(PackageFault, String)> {
    let is_complaint = |line: &&str| line.starts_with("E: ") || line.starts_with("W: ");
    let complaints: Vec<&str> = text.lines().filter(is_complaint).collect();
    cause(&complaints.join("\n"))
}

fn plain(line: &str) -> String {
    let line = line.trim().trim_start_matches("E: ").trim_start_matches("W: ");
    line.chars().filter(|c| !c.is_control()).take(MAX_EVIDENCE_CHARS).collect()
}

/// The lines in which a program says what is wrong, else its last ones.
pub(super) fn evidence(text: &str) -> String {
    let telling =
        |line: &&str| line.starts_with("E: ") || line.starts_with("dpkg: error") || line.contains("error");
    let mut lines: Vec<&str> = text.lines().filter(telling).take(4).collect();
    if lines.is_empty() {
        lines = text.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
        lines.reverse();
    }
    lines
        .iter()
        .map(|line| plain(line))
        .collect::<Vec<_>>()
        .join("; ")
        .chars()
        .take(MAX_EVIDENCE_CHARS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_named_by_their_most_telling_words() {
        for (text, expected) in [
            (
                "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (apt)...\nE: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
                PackageFault::LockHeld,
            ),
            (
                "W: GPG error: x: The following signatures were invalid: BADSIG 7EEA lab\nE: The repository 'x' is not signed.",
                PackageFault::WronglySigned,
            ),
            ("E: The repository 'file:/x ./ Release' is not signed.", PackageFault::Unsigned),
            ("E: Release file for x is expired (invalid since 391d).", PackageFault::Expired),
            ("E: Failed to fetch file:/x/fw.deb  Hash Sum mismatch", PackageFault::Altered),
            ("W: Failed to fetch http://x  Could not connect to x", PackageFault::Unreachable),
            ("E: Version '9.9' for 'fw' was not found", PackageFault::NoVersion),
            (
                "dpkg: error processing package fw (--configure):\n installed fw package post-installation script subprocess returned error exit status 3",
                PackageFault::Script,
            ),
        ] {
            assert_eq!(cause(text).unwrap().0, expected, "{text}");
        }
        assert_eq!(cause("all is well"), None);
        let (fault, words) = complaint("Get:1 is not signed\nW: Failed to fetch x  NO_PUBKEY 37").unwrap();
        assert_eq!((fault, words.as_str()), (PackageFault::WronglySigned, "Failed to fetch x  NO_PUBKEY 37"));
    }
}
