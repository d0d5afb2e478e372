//! `command.run`: a declared command, with its outputs collected.
//!
//! Exit status 0 is success and nothing else is. A command that changes something is never started twice for
//! one try of a step. Rows: Z01, Z07 and the many procedures that call the product's own programs.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use fleet_types::digest::{Digest, Hasher};
use fleet_types::document::ids::Id;
use fleet_types::document::profile::Command;
use fleet_types::document::value::Value;
use fleet_types::report::{Artifact, Problem, TaskReport};
use fleet_types::severity::Severity;
use fleet_types::time::Timestamp;

use super::contract::{Change, RetryKind, Reversal, TaskContext, TaskError, TaskPlan};
use super::part::{bounded, problem, sample};
use super::{args, programs};
use crate::host::{Exit, FileError, Files, Purpose, UnitName};

/// The task.
pub(super) struct CommandRun;

fn declared<'a>(
    context: &TaskContext<'a>,
) -> Result<(&'a Id, &'a Command, BTreeMap<String, Value>), TaskError> {
    let profile = context.profile;
    let id = args::required_text(context, "command")?;
    let (id, command) = profile
        .commands
        .get_key_value(id)
        .ok_or_else(|| TaskError::Declared(format!("the profile declares no command \"{id}\"")))?;
    let given = match context.with.get("params") {
        None | Some(serde_json::Value::Null) => BTreeMap::new(),
        Some(params) => serde_json::from_value(params.clone())
            .map_err(|e| TaskError::Declared(format!("parameter params: {e}")))?,
    };
    Ok((id, command, given))
}

impl Change for CommandRun {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let (id, command, given) = declared(context)?;
        let ready = programs::ready(context, id, command, &given)?;
        let effect = if command.changes { "changes the node" } else { "reads only" };
        Ok(TaskPlan {
            summary: format!("command {id} ({effect})"),
            commands: vec![ready.invocation.argv],
            ..TaskPlan::default()
        })
    }

    fn reversal(&self) -> Reversal {
        // What a command did only its author knows; procedures name their own way back in [[rollback]].
        Reversal::None
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let (id, command, given) = declared(context)?;
        let ready = programs::ready(context, id, command, &given)?;
        let name = UnitName::new(context.step, "main");
        let purpose = if command.changes { Purpose::Effect(&name) } else { Purpose::ReadOnly };
        let outcome = programs::run(context, &ready.invocation, purpose)
            .map_err(|error| programs::broken(&error, TaskReport::default()))?;
        let mut report = TaskReport {
            summary: format!("command {id}: {}", outcome.exit),
            output_tail: programs::tail(&outcome.output),
            ..TaskReport::default()
        };
        report.samples.push(sample("command_duration", id.as_str(), outcome.took.as_secs_f64(), "seconds"));
        for output in &command.outputs {
            let path = ready.filler.path(&format!("output of command {id}"), &output.path)?;
            match artifact(context, &output.title, &path, outcome.started) {
                Ok(artifact) => report.artifacts.push(artifact),
                Err(problem) => report.problems.push(*problem),
            }
        }
        match outcome.exit {
            Exit::Status(0) => Ok(bounded(report)),
            exit => {
                let message = format!("command {id}: {exit}");
                let mut found = problem(Severity::High, "command_failed", id.as_str(), &message);
                found.evidence = last_line(&report.output_tail);
                report.problems.push(found);
                let retry = (exit == Exit::TimedOut).then_some(RetryKind::Timeout);
                let report = Box::new(bounded(report));
                match exit {
                    // Ended half-way from outside: what it had changed until then only it knew.
                    Exit::Cancelled | Exit::TimedOut if command.changes => {
                        let message = format!("{message}; nobody knows how far it came");
                        Err(TaskError::OutcomeUnknown { message, report, retry })
                    }
                    Exit::Cancelled => Err(TaskError::Cancelled(report)),
                    _ => Err(TaskError::Failed { message, report, retry }),
                }
            }
        }
    }
}

fn last_line(text: &str) -> String {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().chars().take(300).collect()
}

/// An output as an artifact; a missing one, or one that the command did not write, is a finding.
fn artifact(
    context: &TaskContext<'_>,
    title: &str,
    path: &Path,
    started: Timestamp,
) -> Result<Artifact, Box<Problem>> {
    let shown = path.display().to_string();
    let finding = |code: &str, message: String| {
        let mut found = problem(Severity::Medium, code, &shown, message);
        "correct `outputs` of the command, or the command".clone_into(&mut found.remedy);
        Box::new(found)
    };
    let (size, sha256, made) = digest_of(context.host.files(), path)
        .map_err(|error| finding("missing_output", format!("output \"{title}\" is not there: {error}")))?;
    // File systems keep times more coarsely than clocks; two seconds is the coarsest in use.
    if made.plus(std::time::Duration::from_secs(2)) < started {
        return Err(finding(
            "stale_output",
            format!("output \"{title}\" is of {made}, before the command ran"),
        ));
    }
    Ok(Artifact {
        kind: "report".to_owned(),
        name: title.to_owned(),
        path: shown,
        size,
        sha256,
        made,
        tag: context.step.run.to_string(),
        verified: false,
        copy: None,
    })
}

/// Size, digest and time of a file.
pub(super) fn digest_of(files: &dyn Files, path: &Path) -> Result<(u64, Digest, Timestamp), FileError> {
    let mut file = files.open(&files.canonical(path)?)?;
    let made = file.stat()?.modified;
    let mut hasher = Hasher::new();
    let mut size = 0;
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk).map_err(|e| FileError::of("read", path, &e))? {
            0 => return Ok((size, hasher.finish(), made)),
            count => {
                hasher.update(&chunk[..count]);
                size += count as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scripted::Answer;
    use crate::tasks::testing::Bench;

    const PROFILE: &str = r#"
        [command.suite]
        argv = ["edgefw-cli", "test", "--suite", "{suite}"]
        params = { suite = { type = "enum", values = ["basic", "security"] } }
        timeout = "1m"
        changes = true
        outputs = [{ path = "/var/out-{timestamp}.html", title = "Test report", format = "html" }]
    "#;

    #[test]
    fn parameters_are_checked_and_never_split_an_argument() {
        let bench = Bench::new(PROFILE);
        bench.host.answer("edgefw-cli", [Answer::Ends(Exit::Status(0), "fine\n".into())]);
        bench.file("/var/out-20251122T140211Z.html", b"<html>");
        let with = bench.with(r#"{"command":"suite","params":{"suite":"basic"}}"#);
        let report = bench.apply("command.run", &with).unwrap();
        assert_eq!(bench.host.script().started, [["edgefw-cli", "test", "--suite", "basic"]]);
        assert_eq!(report.artifacts[0].sha256, Digest::of(b"<html>"));
        assert_eq!(report.output_tail, "fine\n");
        for bad in [r#"{"suite":"basic; rm"}"#, r#"{"suite":"basic","x":1}"#, r#"{"suite":["basic"]}"#] {
            let with = bench.with(&format!(r#"{{"command":"suite","params":{bad}}}"#));
            assert!(matches!(bench.apply("command.run", &with), Err(TaskError::Declared(_))), "{bad}");
        }
        assert_eq!(bench.host.script().started.len(), 1);
    }

    #[test]
    fn the_exit_status_counts_and_a_missing_output_is_a_finding() {
        let bench = Bench::new(PROFILE);
        bench.host.answer("edgefw-cli", [Answer::Ends(Exit::Status(3), "2 tests failed\n".into())]);
        let with = bench.with(r#"{"command":"suite","params":{"suite":"basic"}}"#);
        let TaskError::Failed { message, report, retry } = bench.apply("command.run", &with).unwrap_err()
        else {
            panic!("a verdict")
        };
        assert_eq!(message, "command suite: exit status 3");
        assert_eq!(report.problems[0].evidence, "2 tests failed");
        assert_eq!(report.problems[1].code, "missing_output");
        assert_eq!(retry, None);
    }

    #[test]
    fn an_unknown_outcome_stays_unknown() {
        let bench = Bench::new(PROFILE);
        bench.host.answer("edgefw-cli", [Answer::Unknown]);
        let with = bench.with(r#"{"command":"suite","params":{"suite":"basic"}}"#);
        let error = bench.apply("command.run", &with).unwrap_err();
        assert!(matches!(&error, TaskError::OutcomeUnknown { .. }), "{error}");
    }

    #[test]
    fn a_change_that_was_ended_from_outside_is_unknown_and_a_look_is_not() {
        let with = r#"{"command":"suite","params":{"suite":"basic"}}"#;
        for exit in [Exit::TimedOut, Exit::Cancelled] {
            let changing = Bench::new(PROFILE);
            changing.host.answer("edgefw-cli", [Answer::Ends(exit, "half\n".into())]);
            let error = changing.apply("command.run", &changing.with(with)).unwrap_err();
            let TaskError::OutcomeUnknown { report, retry, .. } = error else { panic!("{exit}: {error}") };
            let timed_out = (exit == Exit::TimedOut).then_some(RetryKind::Timeout);
            assert_eq!(retry, timed_out, "tried again where its author says so, and after no cancel");
            assert_eq!(report.output_tail, "half\n", "what is known is kept");
            let reading = Bench::new(&PROFILE.replace("changes = true", "changes = false"));
            reading.host.answer("edgefw-cli", [Answer::Ends(exit, String::new())]);
            match (exit, reading.apply("command.run", &reading.with(with)).unwrap_err()) {
                (Exit::TimedOut, TaskError::Failed { retry: Some(RetryKind::Timeout), .. })
                | (Exit::Cancelled, TaskError::Cancelled(_)) => {}
                (_, error) => panic!("{exit}: {error:?}"),
            }
        }
    }
}
