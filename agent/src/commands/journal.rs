//! `fleet-agent journal`: the journal for people and programs.
//!
//! Reads a copy, so that it works while the executor holds the journal, repairs nothing and changes nothing.

use fleet_executor::damage;
use fleet_executor::durable::Reserve;
use fleet_executor::journal::{JobRecord, Journal, Opened};
use serde_json::{Value, json};

use super::settings::{self, print, print_json};
use crate::args::{Format, Show};
use crate::clock;
use crate::config::Config;
use crate::error::{Exit, Failure};

/// The journal, its numbers and the mark that it is damaged.
const FILES: [&str; 3] = ["journal", "journal.numbers", "journal.damage"];

/// Prints the journal, oldest run first.
pub fn run(args: &Show) -> Result<(), Failure> {
    let config = settings::load(&args.configured)?;
    let journal = read(&config)?;
    if args.output == Format::Json {
        let jobs: Vec<Value> = journal
            .table
            .iter()
            .map(|((run, attempt), job)| as_json(&run.to_string(), attempt.0, job))
            .collect();
        print_json(&json!({ "jobs": jobs, "damage": journal.damage }));
        return Ok(());
    }
    for ((run, attempt), job) in journal.table.iter() {
        print(format_args!("{run}  attempt {}  {}", attempt.0, state(job)));
        for step in &job.steps {
            let end = step.report.as_ref().map_or("running", |report| report.state.as_str());
            let summary = step.report.as_ref().map(|report| report.body.summary.as_str()).unwrap_or_default();
            print(format_args!("  {}  {:<24} {end:<10} {}", step.began, step.id, shown(summary)));
        }
    }
    if let Some(damage) = journal.damage {
        print(format_args!("SAFE MODE: {damage}"));
    }
    Ok(())
}

/// Everything that the journal knows.
pub fn read(config: &Config) -> Result<Opened, Failure> {
    let failed =
        |error: std::io::Error| Failure::new(Exit::Store, format!("cannot copy the journal: {error}"));
    let copy = tempfile::tempdir().map_err(failed)?;
    for name in FILES {
        match std::fs::copy(config.state_directory.join(name), copy.path().join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    let mut opened = Journal::open(copy.path(), Reserve::keep(copy.path()), clock::now())
        .map_err(|error| Failure::of(Exit::Store, &error))?;
    opened.damage = opened.damage.or_else(|| damage::missing(&config.state_directory));
    Ok(opened)
}

fn state(job: &JobRecord) -> String {
    let state = job.state();
    let reason = job.finished.as_ref().map(|finished| shown(&finished.reason)).unwrap_or_default();
    let acked = if job.is_unacknowledged() { "  (report not acknowledged)" } else { "" };
    format!("{}  {reason}{acked}", state.as_str()).trim_end().to_owned()
}

fn as_json(run: &str, attempt: u32, job: &JobRecord) -> Value {
    let steps: Vec<Value> = job
        .steps
        .iter()
        .map(|step| json!({ "id": step.id, "try": step.try_number, "began": step.began.to_string(), "report": step.report }))
        .collect();
    json!({
        "run": run, "attempt": attempt, "state": job.state(), "acknowledged": job.acked,
        "request": job.accepted.as_ref().map(|accepted| accepted.assignment.authority.digest()),
        "started": job.accepted.as_ref().map(|accepted| accepted.started.to_string()),
        "report": job.finished.as_ref().map(|finished| finished.report),
        "report_sequence": job.finished.as_ref().map(|finished| finished.sequence),
        "steps": steps,
    })
}

/// Text from programs: one line, no control characters (security-and-delivery §1.19).
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(160).collect()
}
