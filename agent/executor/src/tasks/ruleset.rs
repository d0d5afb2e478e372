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
/// Changed lines that a plan shows.
const SHOWN_LINES: usize = 40;

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
    /// All of them, with what sets hold; what is loaded on the way back.
    rules: String,
    /// The same without what sets hold, which traffic changes by itself; what is compared.
    shape: String,
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
        let (id, ruleset) = found.ok_or_else(|| {
            TaskError::Declared(format!("parameter ruleset: the profile declares no \"{name}\""))
        })?;
        if !context.host.processes().has_program("nft") {
            return Err(refused(id, "this node has no nft; install the package nftables"));
        }
        if let Some(flaw) = ruleset.flaw() {
            return Err(refused(id, &flaw));
        }
        let file =
            Filler::new(context).path("file", &ruleset.file).map_err(|e| refused(id, &e.to_string()))?;
        Ok(Self { id, file, text: &ruleset.text })
    }

    /// The file as it is to be.
    pub(super) fn setting(&self) -> Setting {
        Setting::file(self.file.clone(), self.text.to_owned())
    }

    /// File and rules as they are.
    pub(super) fn now(&self, context: &TaskContext<'_>) -> Result<Former, TaskError> {
        let file = self.setting().now(context).map_err(|why| refused(self.id, &why))?;
        Ok(Former { file, rules: listed(context, self.id, &["-s"])?, shape: shape(context, self.id)? })
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
        loaded == Some(self.loaded(&now.shape))
    }

    /// Notes that these rules are what the text came to.
    pub(super) fn remember(&self, context: &TaskContext<'_>, now: &Former) -> Result<(), String> {
        let bytes = serde_json::to_vec(&self.loaded(&now.shape)).map_err(|e| e.to_string())?;
        context.host.notes().write(&self.note(), &bytes).map_err(|e| e.to_string())
    }

    fn loaded(&self, shape: &str) -> Loaded {
        Loaded { text: Digest::of(self.text.as_bytes()), rules: Digest::of(shape.as_bytes()) }
    }

    fn note(&self) -> String {
        format!("ruleset-{}.json", self.id)
    }

    /// Has nft judge the text without loading it. Nothing is written.
    pub(super) fn check(&self, context: &TaskContext<'_>) -> Result<(), TaskError> {
        let outcome = nft(context, &["-c", self.text], Purpose::ReadOnly)?;
        if outcome.exit.is_success() {
            return Ok(());
        }
        let message = format!("rule set {}: nft refuses it ({}); nothing was loaded", self.id, outcome.exit);
        let report = TaskReport { output_tail: programs::tail(&outcome.output), ..TaskReport::default() };
        Err(TaskError::failed(message, report))
    }

    /// Loads a text from a file beside the declared one, which goes again. A step that is taken up after a restart loads
    /// once more: what was loaded before may have been loaded over, or gone with the machine's memory.
    pub(super) fn load(&self, context: &TaskContext<'_>, text: &str) -> Result<(), TaskError> {
        if context.job.resumed {
            programs::wait_for_own(context)?;
        }
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
        let name = UnitName::new(context.step, &programs::part(context, "nft"));
        let loaded = nft(context, &["-f", &path], Purpose::Effect(&name));
        remove(context, &beside).map_err(said)?;
        let outcome = loaded?;
        if outcome.exit.is_success() {
            return Ok(());
        }
        let message = format!("rule set {}: nft did not load it: {}", self.id, outcome.exit);
        let output_tail = programs::tail(&outcome.output);
        Err(TaskError::failed(message, TaskReport { output_tail, ..TaskReport::default() }))
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
        let failed =
            |why: String| TaskError::failed(format!("rule set {}: {why}", self.id), TaskReport::default());
        // Of a load that was killed.
        former.file.sweep(context).map_err(failed)?;
        remove(context, &self.beside()).map_err(|error| failed(error.to_string()))?;
        // The rules first: they are what cuts the node off. The file all the same where they cannot be loaded, so that the
        // next start of the machine has them.
        let loaded = self.load_former(context, former, &now);
        if now.file != former.file {
            former.file.write(context).map_err(failed)?;
            changes.push(former.file.change(now.file.value.as_deref()));
        }
        if loaded? {
            changes.push(change("nftables", "loaded", "other rules", "the former rules"));
        }
        Ok(changes)
    }

    /// Loads the former rules where others run, and verifies that they do then; says whether it had to.
    fn load_former(
        &self,
        context: &TaskContext<'_>,
        former: &Former,
        now: &Former,
    ) -> Result<bool, TaskError> {
        if now.shape == former.shape {
            return Ok(false);
        }
        self.load(context, &format!("{}\n{}", Ruleset::FLUSH, former.rules))?;
        if shape(context, self.id)? == former.shape {
            return Ok(true);
        }
        let message = format!("rule set {}: the former rules were loaded, and other ones run", self.id);
        Err(TaskError::failed(message, TaskReport::default()))
    }
}

/// The rules that run, without counters and without what sets hold: traffic changes both.
fn shape(context: &TaskContext<'_>, id: &Id) -> Result<String, TaskError> {
    listed(context, id, &["-s", "-t"])
}

/// The rules that run, as nft lists them.
fn listed(context: &TaskContext<'_>, id: &Id, how: &[&str]) -> Result<String, TaskError> {
    let outcome = nft(context, &[how, &["list", "ruleset"]].concat(), Purpose::ReadOnly)?;
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
