//! `config.validate`: the declared validators, all failures reported with file and line. Reads only. Row: Z05.
//!
//! JSON, YAML and TOML are read here; Python by `python3` without writing a `.pyc`, nftables rules by `nft -c`. A
//! validator that cannot be carried out has failed: what nobody looked at is not valid. A file that is yet to be put in
//! place is looked at where it lies, as a [`Candidate`] for the place that a validator declares.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fleet_types::document::ids::Id;
use fleet_types::document::profile::{OnInvalid, Validator, ValidatorKind};
use fleet_types::report::{NOT_AVAILABLE, Problem, TaskReport};
use fleet_types::severity::Severity;

use super::contract::{Inspect, TaskContext, TaskError, TaskPlan};
use super::deadline::Deadline;
use super::fill::Filler;
use super::part::{bounded, problem};
use super::service_state::{Standing, judge};
use super::{args, programs, service_state, syntax};
use crate::host::{FileKind, Found, Purpose, walk};

/// The task.
pub(super) struct ConfigValidate;

/// A file that is looked at before it is put in place.
pub(super) struct Candidate {
    /// Where it is to lie, as declared.
    pub(super) place: PathBuf,
    /// Where it lies; its declared path is the one that is shown.
    pub(super) file: Found,
}

fn validators<'a>(context: &TaskContext<'a>) -> Result<Vec<(&'a Id, &'a Validator)>, TaskError> {
    args::ids(context, "validators", &context.profile.validators, false)
}

impl Inspect for ConfigValidate {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let validators = validators(context)?;
        let summary = format!("validate {}", service_state::names(validators.iter().map(|(id, _)| *id)));
        Ok(TaskPlan { summary, ..TaskPlan::default() })
    }

    fn inspect(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let validators = validators(context)?;
        let candidate = args::text(context, "candidate")?;
        for (id, validator) in validators.iter().filter(|_| candidate.is_some()) {
            takes_candidates(id, validator)?;
        }
        let mut report = TaskReport::default();
        let (mut invalid, mut looked_at) = (Vec::new(), 0);
        for (at, (id, validator)) in validators.iter().enumerate() {
            if let Err(halt) = Deadline::of(context).check() {
                return Err(halt.end(report));
            }
            looked_at += 1;
            let found = match candidate {
                None => validate(context, id, validator, None, &mut report)?,
                Some(path) => of_one(context, id, validator, path, &mut report)?,
            };
            if found.is_empty() {
                continue;
            }
            report.problems.extend(found);
            invalid.push(*id);
            if validator.on_failure == OnInvalid::Abort && at + 1 < validators.len() {
                let rest = service_state::names(validators[at + 1..].iter().map(|(id, _)| *id));
                let message = format!("not looked at, because {id} failed: {rest}");
                report.problems.push(problem(Severity::Low, "not_validated", id.as_str(), message));
                break;
            }
        }
        report.summary = if invalid.is_empty() {
            format!("{looked_at} validators found nothing wrong")
        } else {
            format!(
                "{} of {looked_at} validators failed: {}",
                invalid.len(),
                service_state::names(invalid.clone())
            )
        };
        let report = bounded(report);
        if invalid.is_empty() { Ok(report) } else { Err(TaskError::failed(report.summary.clone(), report)) }
    }
}

/// Refuses a validator that looks at nothing that a candidate could stand for.
pub(super) fn takes_candidates(id: &Id, validator: &Validator) -> Result<(), TaskError> {
    let why = match validator.kind {
        ValidatorKind::Service | ValidatorKind::FileExists => {
            "it looks at what is in place, not at candidates"
        }
        ValidatorKind::Command if validator.path.is_none() => {
            "its command takes no candidate: give it the path of the file that its command names"
        }
        _ => return Ok(()),
    };
    Err(TaskError::Declared(format!("validator {id}: {why}")))
}

/// The one file at `path`, for the one place that a validator declares.
fn of_one(
    context: &TaskContext<'_>,
    id: &Id,
    validator: &Validator,
    path: &str,
    report: &mut TaskReport,
) -> Result<Vec<Problem>, TaskError> {
    let filler = Filler::new(context);
    let what = format!("validator {id}");
    let mut places = validator.all_paths().map(|path| filler.glob(&what, path));
    let place = match (places.next().transpose()?, places.next()) {
        (Some(place), None) if !place.has_wildcard() => place.base(),
        _ => {
            let why = "it declares no single file that the candidate could be for";
            return Err(TaskError::Declared(format!("{what}: {why}")));
        }
    };
    let path = filler.path("parameter candidate", path)?;
    // What stands in it is a name, not a pattern.
    let files = context.host.files();
    let found = files.canonical(&path).and_then(|real| Ok((files.stat(&real)?, real)));
    let unusable =
        |code, message: String| vec![problem(Severity::High, code, path.display().to_string(), message)];
    match found {
        Ok((stat, real)) if stat.kind == FileKind::Regular => {
            let file = Found { declared: path, path: real, stat };
            validate(context, id, validator, Some(&[Candidate { place, file }]), report)
        }
        Ok(_) => Ok(unusable("missing_file", "it is no regular file".to_owned())),
        Err(error) => Ok(unusable("missing_file", error.to_string())),
    }
}

/// Problems that one validator found: in what is in place, or in the candidates for the places that it declares.
pub(super) fn validate(
    context: &TaskContext<'_>,
    id: &Id,
    validator: &Validator,
    candidates: Option<&[Candidate]>,
    report: &mut TaskReport,
) -> Result<Vec<Problem>, TaskError> {
    let one =
        |code: &str, subject: &str, message: String| vec![problem(Severity::High, code, subject, message)];
    match validator.kind {
        ValidatorKind::Command => command(context, id, validator, candidates, report),
        ValidatorKind::Service => {
            let name = validator.service.as_ref();
            let service = name.and_then(|name| context.profile.services.get(name)).ok_or_else(|| {
                TaskError::Declared(format!("validator {id}: it names no service of the profile"))
            })?;
            let verdict = judge(context.host, service, service.expect);
            Ok(match verdict.standing {
                Standing::Good => Vec::new(),
                Standing::Bad => one("service_down", id.as_str(), verdict.seen),
                Standing::Unknown => one(NOT_AVAILABLE, id.as_str(), verdict.seen),
            })
        }
        kind => {
            let (files, mut problems) = match candidates {
                None => files(context, id, validator, report)?,
                Some(candidates) => (chosen(context, id, validator, candidates)?, Vec::new()),
            };
            problems.extend(match kind {
                ValidatorKind::Json => syntax::json(context.host.files(), &files),
                ValidatorKind::Toml => syntax::toml(context.host.files(), &files),
                ValidatorKind::Nft => syntax::nft(context, &files),
                ValidatorKind::PythonSyntax => syntax::python(context, &files),
                ValidatorKind::Yaml => syntax::yaml(context.host.files(), &files),
                _ => Vec::new(),
            });
            Ok(problems)
        }
    }
}

fn command(
    context: &TaskContext<'_>,
    id: &Id,
    validator: &Validator,
    candidates: Option<&[Candidate]>,
    report: &mut TaskReport,
) -> Result<Vec<Problem>, TaskError> {
    let declared = |why: &str| TaskError::Declared(format!("validator {id}: {why}"));
    let name = validator.command.as_ref().ok_or_else(|| declared("it names no command"))?;
    let command =
        context.profile.commands.get(name).ok_or_else(|| declared("the command is not declared"))?;
    if command.changes {
        return Err(declared("its command changes the node"));
    }
    let mut ready = programs::ready(context, name, command, &BTreeMap::new())?;
    if let Some(candidates) = candidates {
        let path = validator.path.as_ref().ok_or_else(|| declared("it names no path"))?;
        let place = Filler::new(context).path(&format!("validator {id}"), path)?;
        let Some(candidate) = candidates.iter().find(|one| one.place == place) else { return Ok(Vec::new()) };
        if !put_in_place_of(&mut ready.invocation.argv, &place, &candidate.file.path) {
            return Err(declared("its command does not name the path of the validator"));
        }
    }
    let (message, evidence) = match programs::run(context, &ready.invocation, Purpose::ReadOnly) {
        Ok(outcome) if outcome.exit.is_success() => return Ok(Vec::new()),
        Ok(outcome) => {
            report.output_tail = programs::tail(&outcome.output);
            (format!("command {name}: {}", outcome.exit), syntax::short(&report.output_tail))
        }
        Err(error) => (error.to_string(), String::new()),
    };
    let mut found = problem(Severity::High, "invalid", id.as_str(), message);
    found.evidence = evidence;
    Ok(vec![found])
}

/// Names the candidate where a command names the file in place, by itself or as `--file=PATH`; false where it does not.
fn put_in_place_of(argv: &mut [String], place: &Path, candidate: &Path) -> bool {
    let (place, candidate) = (place.to_string_lossy(), candidate.to_string_lossy());
    let mut is_named = false;
    for word in argv.iter_mut().skip(1) {
        let front =
            word.strip_suffix(place.as_ref()).filter(|front| front.is_empty() || front.ends_with('='));
        if let Some(front) = front {
            *word = format!("{front}{candidate}");
            is_named = true;
        }
    }
    is_named
}

/// The candidates for places that a validator declares.
fn chosen(
    context: &TaskContext<'_>,
    id: &Id,
    validator: &Validator,
    candidates: &[Candidate],
) -> Result<Vec<Found>, TaskError> {
    let filler = Filler::new(context);
    let what = format!("validator {id}");
    let places = validator.all_paths().map(|path| filler.glob(&what, path)).collect::<Result<Vec<_>, _>>()?;
    let is_meant = |one: &&Candidate| places.iter().any(|place| place.matches(&one.place));
    Ok(candidates.iter().filter(is_meant).map(|one| one.file.clone()).collect())
}

/// The files of a validator. One that is written out must be there; a pattern may match nothing, which is said.
fn files(
    context: &TaskContext<'_>,
    id: &Id,
    validator: &Validator,
    report: &mut TaskReport,
) -> Result<(Vec<Found>, Vec<Problem>), TaskError> {
    let filler = Filler::new(context);
    let (mut all, mut problems) = (Vec::new(), Vec::new());
    for path in validator.all_paths() {
        let glob = filler.glob(&format!("validator {id}"), path)?;
        let mut found = match walk(context.host.files(), &glob) {
            Ok(found) => found,
            Err(error) => {
                problems.push(problem(Severity::High, "unreadable_file", glob.as_str(), error.to_string()));
                continue;
            }
        };
        found.retain(|one| one.stat.kind == FileKind::Regular);
        if found.is_empty() && glob.has_wildcard() {
            let message = "nothing matches".to_owned();
            report.problems.push(problem(Severity::Low, "empty_source", glob.as_str(), message));
        } else if found.is_empty() {
            let message = "the file is not there".to_owned();
            problems.push(problem(Severity::High, "missing_file", glob.as_str(), message));
        }
        all.extend(found);
    }
    Ok((all, problems))
}

#[cfg(test)]
mod tests {
    use crate::host::Exit;
    use crate::host::scripted::Answer;
    use crate::tasks::testing::Bench;

    const PROFILE: &str = r#"
        [command.check]
        argv = ["edgefw-cli", "validate"]
        timeout = "5s"
        changes = false
        [validator.json]
        kind = "json"
        paths = ["/etc/*.json"]
        on_failure = "warn"
        [validator.toml]
        kind = "toml"
        path = "/etc/a.toml"
        on_failure = "warn"
        [validator.cli]
        kind = "command"
        command = "check"
        on_failure = "abort"
        [validator.yaml]
        kind = "yaml"
        path = "/etc/a.yaml"
        [command.check-file]
        argv = ["edgefw-cli", "validate", "--file=/etc/fw.json"]
        timeout = "5s"
        changes = false
        [validator.product]
        kind = "command"
        command = "check-file"
        path = "/etc/fw.json"
        [validator.main]
        kind = "json"
        path = "/etc/fw.json"
        on_failure = "warn"
        [validator.scripts]
        kind = "python_syntax"
        paths = ["/scripts/**/*.py"]
        on_failure = "warn"
    "#;

    #[test]
    fn every_failure_names_file_and_line() {
        let bench = Bench::new(PROFILE);
        bench.file("/etc/a.json", b"{\"a\": 1}");
        bench.file("/etc/b.json", b"{\n \"a\": ,\n}");
        bench.file("/etc/a.toml", b"a = 1\nb = \n");
        bench.host.answer("edgefw-cli", [Answer::Ends(Exit::Status(1), "rule 7 is bad\n".into())]);
        let with = bench.with(r#"{"validators":["json","toml","cli","yaml"]}"#);
        let (message, report) = bench.failure("config.validate", &with);
        assert_eq!(message, "3 of 3 validators failed: json, toml, cli");
        let subjects: Vec<_> = report.problems.iter().map(|p| p.subject.as_str()).collect();
        assert_eq!(subjects, ["/etc/b.json:2", "/etc/a.toml:2", "cli", "cli"]);
        assert_eq!(report.problems[2].evidence, "rule 7 is bad");
        assert!(report.problems[3].message.ends_with("failed: yaml"));
        bench.file("/etc/a.yaml", b"a: 1\nb: [\n");
        let (_, report) = bench.failure("config.validate", &bench.with(r#"{"validators":["yaml"]}"#));
        assert_eq!(report.problems[0].subject, "/etc/a.yaml:3");
        bench.file("/etc/a.yaml", b"a: 1\nb: [1]\n");
        assert!(bench.apply("config.validate", &bench.with(r#"{"validators":["yaml"]}"#)).is_ok());
    }

    #[test]
    fn z05_a_candidate_is_looked_at_in_place_of_what_is_there() {
        let bench = Bench::new(PROFILE);
        bench.file("/etc/fw.json", b"{}");
        bench.file("/etc/new/fw*.json", b"{\n \"a\": ,\n}");
        bench.host.answer(
            "edgefw-cli",
            [Answer::Ends(Exit::Status(1), "no".into()), Answer::Ends(Exit::Status(0), String::new())],
        );
        let with =
            |ids: &str, path: &str| bench.with(&format!(r#"{{"validators":[{ids}],"candidate":"{path}"}}"#));
        let bad = with(r#""main","product""#, "/etc/new/fw*.json");
        let (message, report) = bench.failure("config.validate", &bad);
        assert_eq!(message, "2 of 2 validators failed: main, product");
        assert_eq!(report.problems[0].subject, "/etc/new/fw*.json:2");
        let argv = bench.host.script().started[0].clone();
        assert_eq!(argv[2], "--file=/etc/new/fw*.json");
        bench.file("/etc/new/fw*.json", b"{}");
        assert!(bench.apply("config.validate", &bad).is_ok());
        // What is in place is as good as before, and was never asked.
        let (_, report) = bench.failure("config.validate", &with(r#""main""#, "/etc/new/none.json"));
        assert_eq!(report.problems[0].code, "missing_file");
        for (id, why) in [
            ("cli", "its command takes no candidate"),
            ("json", "declares no single file"),
            ("scripts", "declares no single file"),
        ] {
            let error =
                bench.apply("config.validate", &with(&format!("\"{id}\""), "/etc/fw.json")).unwrap_err();
            assert!(error.to_string().contains(why), "{id}: {error}");
        }
    }

    #[test]
    fn good_files_pass_and_a_missing_one_does_not() {
        let bench = Bench::new(PROFILE);
        bench.file("/etc/a.json", b"[]");
        bench.file("/etc/a.toml", b"a = 1");
        let with = bench.with(r#"{"validators":["json","toml"]}"#);
        assert_eq!(bench.apply("config.validate", &with).unwrap().problems, []);
        std::fs::remove_file(bench.at("/etc/a.toml")).unwrap();
        std::fs::remove_file(bench.at("/etc/a.json")).unwrap();
        let (message, report) = bench.failure("config.validate", &with);
        assert_eq!(message, "1 of 2 validators failed: toml");
        assert!(report.problems.iter().any(|p| p.code == "missing_file"));
        assert!(report.problems.iter().any(|p| p.code == "empty_source"));
    }

    #[test]
    fn python_that_is_broken_or_cannot_be_looked_at_fails() {
        let bench = Bench::new(PROFILE);
        bench.file("/scripts/deep/x.py", b"def f(:\n");
        let with = bench.with(r#"{"validators":["scripts"]}"#);
        let (_, report) = bench.failure("config.validate", &with);
        assert!(report.problems[0].message.contains("cannot start python3"), "{:?}", report.problems);
        let real = bench.at("/scripts/deep/x.py").canonicalize().unwrap();
        let answer = format!("{}\t1\tinvalid syntax\n", real.display());
        bench.host.answer("python3", [Answer::Ends(Exit::Status(1), answer)]);
        let (_, report) = bench.failure("config.validate", &with);
        assert_eq!(report.problems[0].subject, "/scripts/deep/x.py:1");
        assert_eq!(report.problems[0].message, "invalid syntax");
        // An interpreter that says nothing and fails has not looked.
        bench.host.answer("python3", [Answer::Ends(Exit::Signal(9), String::new())]);
        bench.failure("config.validate", &with);
    }
}
