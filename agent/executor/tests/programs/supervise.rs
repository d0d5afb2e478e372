//! The supervisor alone, for the tests of this crate: what the agent's binary does for its hidden subcommand.
//! With `run FOLDER` it is an agent that runs the program `effect` of that node once its input ends, to be killed while
//! it does.

#![allow(clippy::unwrap_used)] // a helper of tests

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use fleet_executor::host::{
    Host, HostConfig, Invocation, LinuxHost, Purpose, Running, Supervisor, UnitName, UnitsKind, supervise,
};
use fleet_executor::tasks::{CancelFlag, OutputSink, StepIdentity};
use fleet_types::id::{Attempt, NodeId, RunId};
use fleet_types::label::Labels;
use fleet_types::time::Timestamp;

struct Nowhere;

impl OutputSink for Nowhere {
    fn write(&self, _bytes: &[u8]) {}
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(word) if word == "run" => run(&PathBuf::from(arguments.next().unwrap_or_default())),
        Some(word) if word == "supervise" => supervise::main(arguments.collect::<Vec<OsString>>()),
        _ => ExitCode::FAILURE,
    }
}

fn run(folder: &Path) -> ExitCode {
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    let host = LinuxHost::open(&HostConfig {
        root: folder.join("root"),
        state: folder.join("state"),
        supervisor: Supervisor::of_this_program(),
        units: UnitsKind::Supervised,
    })
    .unwrap();
    let step = StepIdentity {
        run: RunId::from_number(7),
        node: NodeId::from_uuid(uuid::Uuid::from_u128(1)),
        node_name: "fw-1".parse().unwrap(),
        labels: Labels::default(),
        attempt: Attempt(1),
        step: "upgrade".to_owned(),
        try_number: 1,
        job_started: Timestamp::clamped(1_763_820_131_000),
    };
    let invocation = Invocation::new(vec!["effect".to_owned()], Duration::from_mins(1));
    let running = Running { output: &Nowhere, cancel: &CancelFlag::default() };
    let name = UnitName::new(&step, "main");
    let outcome = host.processes().run(&invocation, Purpose::Effect(&name), &running);
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
