//! The packet filter's rule set as nftables has it: reading it, checking a text against it, loading one. Called by the
//! `ruleset.*` tasks.
//!
//! nftables loads a file as one transaction (`nft(8)`): all of it counts, or nothing has changed. A text begins with `flush
//! ruleset`, as Debian's `/etc/nftables.conf` does, so that what runs and what is loaded at boot are the same.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_types::digest::Digest;
use fleet_types::document::ids::Id;
use fleet_types::document::profile::Ruleset;
use fleet_types::report::{Change as ReportedChange, TaskReport};
use serde::{Deserialize, Serialize};

use super::args;
use super::contract::{TaskContext, TaskError};
use super::fill::Filler;
use super::part::change;
use super::programs;
use super::tuning_setting::Setting;
use crate::host::{FileError, FileProblem, Invocation, ProcessOutcome, Purpose, UnitName};

/// A rule set of tens of thousands of rules loads in seconds.
const LIMIT: Duration = Duration::from_mins(1);
/// Longest text that is checked without a file: an argument of a program has 128 KiB (`execve(2)`).
const MAX_ARGUMENT: usize = 96 * 1024;
/// Changed lines that a plan shows.
const SHOWN_LINES: usize = 40;
/// What every text begins with.
const FLUSH: &str = "flush ruleset";

/// The rule set of a step.
pub(super) struct Wanted<'a> {
    pub(super) id: &'a Id,
    /// The file that is loaded at boot.
    pub(super) file: PathBuf,
    pub(super) text: &'a str,
}

/// What was there: the file and the rules that run.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Former {
    pub(super) file: Setting,
    pub(super) rules: String,
}

/// What ran after a text was loaded, so that it is known later whether it still does.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Loaded {
    text: Digest,
    rules: Digest,
}

pub(super) fn refused(id: &Id, why: &str) -> TaskError {
    TaskError::Declared(format!("rule set {id}: {why}; nothing was loaded"))
}

impl<'a> Wanted<'a> {
    /// What the step names.
    pub(super) fn of(context: &TaskContext<'a>) -> Result<Self, TaskError> {
        let name = args::required_text(context, "ruleset")?;
        let found = context.profile.rulesets.get_key_value(name);
        let (id, Ruleset { file, text, .. }) = found.ok_or_else(|| {
            TaskError::Declared(format!("parameter ruleset: the profile declares no \"{name}\""))
        })?;
        if !context.host.processes().has_program("nft") {
            return Err(refused(id, "this node has no nft; install the package nftables"));
        }
        let mut statements =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        if statements.next() != Some(FLUSH) {
            let why =
                format!("its text does not begin with \"{FLUSH}\", so what was loaded before would stay");
            return Err(refused(id, &why));
        }
        let file = Filler::new(context).path("file", file).map_err(|e| refused(id, &e.to_string()))?;
        Ok(Self { id, file, text })
    }

    /// The file as it is to be.
    pub(super) fn setting(&self) -> Setting {
        Setting::file(self.file.clone(), self.text.to_owned())
    }

    /// File and rules as they are.
    pub(super) fn now(&self, context: &TaskContext<'_>) -> Result<Former, TaskError> {
        let file = self.setting().now(context).map_err(|why| refused(self.id, &why))?;
        Ok(Former { file, rules: rules(context, self.id)? })
    }

    /// What differs from what is wanted; empty when file and rules are as they would be after loading it.
    pub(super) fn changes(&self, context: &TaskContext<'_>, now: &Former) -> Vec<ReportedChange> {
        let mut changes = lines(&self.file, now.file.value.as_deref().unwrap_or_default(), self.text);
        if self.setting() != now.file && changes.is_empty() {
            // Only blanks or the order of lines differ.
            changes.push(change(self.file.display().to_string(), "written", "other text", "as declared"));
        }
        if !self.runs(context, now) {
            let text = Digest::of(self.text.as_bytes());
            changes.push(change(
                "nftables",
                "loaded",
                "other rules",
                format!("rule set {} ({text})", self.id),
            ));
        }
        changes
    }

    /// Do the rules run that were there after this text was loaded?
    pub(super) fn runs(&self, context: &TaskContext<'_>, now: &Former) -> bool {
        let note = context.host.notes().read(&self.note()).ok().flatten();
        let loaded = note.and_then(|bytes| serde_json::from_slice::<Loaded>(&bytes).ok());
        loaded == Some(self.loaded(&now.rules))
    }

    /// Notes that these rules are what the text came to.
    pub(super) fn remember(&self, context: &TaskContext<'_>, rules: &str) -> Result<(), String> {
        let bytes = serde_json::to_vec(&self.loaded(rules)).map_err(|e| e.to_string())?;
        context.host.notes().write(&self.note(), &bytes).map_err(|e| e.to_string())
    }

    fn loaded(&self, rules: &str) -> Loaded {
        Loaded { text: Digest::of(self.text.as_bytes()), rules: Digest::of(rules.as_bytes()) }
    }

    fn note(&self) -> String {
        format!("ruleset-{}.json", self.id)
    }

    /// Has nft judge the text without loading it. Nothing is written.
    pub(super) fn check(&self, context: &TaskContext<'_>) -> Result<(), TaskError> {
        if self.text.len() > MAX_ARGUMENT {
            let why = format!("its text of {} bytes is over the limit of {MAX_ARGUMENT}", self.text.len());
            return Err(refused(self.id, &why));
        }
        let outcome = nft(context, &["-c", self.text], Purpose::ReadOnly)?;
        if outcome.exit.is_success() {
            return Ok(());
        }
        let message = format!("rule set {}: nft refuses it ({}); nothing was loaded", self.id, outcome.exit);
        let report = TaskReport { output_tail: programs::tail(&outcome.output), ..TaskReport::default() };
        Err(TaskError::failed(message, report))
    }

    /// Loads a text from a file beside the declared one, which goes again. A step that is taken up after a restart loads
    /// once more: whether the earlier load was followed by another nobody knows.
    pub(super) fn load(&self, context: &TaskContext<'_>, text: &str) -> Result<(), TaskError> {
        let beside = self.beside();
        let failed =
            |why: String| TaskError::failed(format!("rule set {}: {why}", self.id), TaskReport::default());
        let said = |e: FileError| failed(e.to_string());
        remove(context, &beside).map_err(said)?;
        let files = context.host.files();
        files.make_directories(beside.parent().unwrap_or(Path::new("/")), 0o755).map_err(said)?;
        let mut file = files.create(&beside, 0o600).map_err(said)?;
        file.write_all(text.as_bytes()).map_err(|e| failed(e.to_string()))?;
        drop(file);
        let path = beside.display().to_string();
        let parts: &[&str] = if context.job.resumed { &["nft", "nft-anew"] } else { &["nft"] };
        for part in parts {
            let name = UnitName::new(context.step, part);
            let outcome = nft(context, &["-f", &path], Purpose::Effect(&name))?;
            if !outcome.exit.is_success() {
                remove(context, &beside).map_err(said)?;
                let message = format!("rule set {}: nft did not load it: {}", self.id, outcome.exit);
                let output_tail = programs::tail(&outcome.output);
                return Err(TaskError::failed(message, TaskReport { output_tail, ..TaskReport::default() }));
            }
        }
        remove(context, &beside).map_err(said)
    }

    fn beside(&self) -> PathBuf {
        let mut beside = self.file.clone().into_os_string();
        beside.push("~");
        PathBuf::from(beside)
    }

    /// Puts file and rules back, and verifies both; gives what changed.
    pub(super) fn put_back(
        &self,
        context: &TaskContext<'_>,
        former: &Former,
    ) -> Result<Vec<ReportedChange>, TaskError> {
        let now = self.now(context)?;
        let mut changes = Vec::new();
        // Of a load that was killed.
        former.file.sweep(context).map_err(|why| refused(self.id, &why))?;
        remove(context, &self.beside()).map_err(|error| refused(self.id, &error.to_string()))?;
        let failed = |why: String| {
            let report = TaskReport { changes: Vec::new(), ..TaskReport::default() };
            TaskError::failed(format!("rule set {}: {why}", self.id), report)
        };
        // The rules first: they are what cuts the node off.
        if now.rules != former.rules {
            self.load(context, &format!("{FLUSH}\n{}", former.rules))?;
            if rules(context, self.id)? != former.rules {
                return Err(failed("the former rules were loaded, and other ones run".to_owned()));
            }
            changes.push(change("nftables", "loaded", "other rules", "the former rules"));
        }
        if now.file != former.file {
            former.file.write(context).map_err(failed)?;
            changes.push(former.file.change(now.file.value.as_deref()));
        }
        Ok(changes)
    }
}

/// The rules that run, without their counters.
fn rules(context: &TaskContext<'_>, id: &Id) -> Result<String, TaskError> {
    let outcome = nft(context, &["-s", "list", "ruleset"], Purpose::ReadOnly)?;
    if !outcome.exit.is_success() {
        let tail = programs::tail(&outcome.output);
        return Err(refused(
            id,
            &format!("the present rules cannot be read: {}; {}", outcome.exit, tail.trim()),
        ));
    }
    if outcome.output.len() as u64 != outcome.output_bytes {
        let why = format!("the present rules of {} bytes are too many to be put back", outcome.output_bytes);
        return Err(refused(id, &why));
    }
    String::from_utf8(outcome.output).map_err(|_| refused(id, "the present rules are no text"))
}

fn nft(
    context: &TaskContext<'_>,
    arguments: &[&str],
    purpose: Purpose<'_>,
) -> Result<ProcessOutcome, TaskError> {
    let argv = ["nft"].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
    programs::run(context, &Invocation::new(argv, LIMIT), purpose)
        .map_err(|error| programs::broken(&error, TaskReport::default()))
}

fn remove(context: &TaskContext<'_>, path: &Path) -> Result<(), FileError> {
    match context.host.files().remove_file(path) {
        Err(error) if error.problem != FileProblem::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The lines that one text has and the other does not, as many times as they stand there.
fn lines(file: &Path, before: &str, after: &str) -> Vec<ReportedChange> {
    let counted = |text: &str| {
        let mut lines = std::collections::BTreeMap::<String, isize>::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
        lines
    };
    let only = |these: &str, others: &str| -> Vec<String> {
        let others = counted(others);
        let mut seen = std::collections::BTreeMap::<String, isize>::new();
        let new = these.lines().map(str::trim).filter(|line| !line.is_empty()).filter(|line| {
            let count = seen.entry((*line).to_owned()).or_default();
            *count += 1;
            *count > others.get(*line).copied().unwrap_or_default()
        });
        new.map(str::to_owned).collect()
    };
    let name = file.display().to_string();
    let gone = only(before, after).into_iter().map(|line| change(&name, "line removed", line, ""));
    let new = only(after, before).into_iter().map(|line| change(&name, "line added", "", line));
    let mut all: Vec<_> = gone.chain(new).collect();
    let more = all.len().saturating_sub(SHOWN_LINES);
    all.truncate(SHOWN_LINES);
    if more > 0 {
        all.push(change(&name, "more lines changed", "", more.to_string()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_shows_the_lines_that_change_as_often_as_they_stand() {
        let found = lines(Path::new("/etc/x"), "a\nb\n b\nc\n", "a\nb\nd\nd\n");
        let found: Vec<_> =
            found.iter().map(|c| (c.action.as_str(), c.before.as_str(), c.after.as_str())).collect();
        let expected = [
            ("line removed", "b", ""),
            ("line removed", "c", ""),
            ("line added", "", "d"),
            ("line added", "", "d"),
        ];
        assert_eq!(found, expected);
        let many = (0..100).map(|n: i32| n.to_string()).collect::<Vec<_>>().join("\n");
        let found = lines(Path::new("/etc/x"), "", &many);
        assert_eq!((found.len(), found.last().unwrap().after.as_str()), (SHOWN_LINES + 1, "60"));
    }
}
