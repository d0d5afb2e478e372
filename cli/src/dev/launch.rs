//! How the programs of a fleet on one machine are called and where they write: the one launcher of `fleetctl dev` and
//! of the tests.
//!
//! Pure but for logs: it starts nothing. Whoever does watches what they started, each in their own way, and ends it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};

use fleet_types::id::FleetId;
use serde::Deserialize;

use super::config_files::{SERVER_NAME, Served};
use super::inner::CONTEXT;
use super::node_spec::NodeSpec;

/// What `fleet-controller init --json` prints.
#[derive(Debug, Deserialize)]
pub struct Made {
    /// The new fleet.
    pub fleet: FleetId,
    /// The invite of its first operator.
    pub invite: String,
}

/// `fleet-controller init`, which prints [`Made`].
pub fn init(program: &Path, data: &Path, root_key: &Path, operator: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["init", "--name", CONTEXT, "--operator", operator, "--json", "--data"]).arg(data);
    command.arg("--root-key").arg(root_key);
    command
}

/// `fleet-controller run`, which writes [`Served`] to `ready`.
pub fn controller(program: &Path, config: &Path, ready: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["run", "--config"]).arg(config).arg("--ready-file").arg(ready);
    command
}

/// A command of `fleet-agent`, such as `run`.
pub fn agent(program: &Path, verb: &str, config: &Path) -> Command {
    let mut command = Command::new(program);
    command.args([verb, "--config"]).arg(config);
    command
}

/// `fleetctl login` with the invite of a fleet on this machine.
pub fn login<'a>(invite: &'a str, at: &'a Served, root_key: &'a str) -> [&'a str; 12] {
    [
        "login",
        invite,
        "--context",
        CONTEXT,
        "--server",
        &at.enrol,
        "--endpoint",
        &at.agent,
        "--server-name",
        SERVER_NAME,
        "--root-key",
        root_key,
    ]
}

/// `fleetctl join-token create` for a node.
pub fn join_token(node: &NodeSpec) -> Vec<String> {
    let mut arguments = vec!["join-token".to_owned(), "create".to_owned(), node.name.clone()];
    arguments.extend(node.labels().into_iter().flat_map(|label| ["--label".to_owned(), label]));
    arguments
}

/// From now on the command adds what it says to `log` and hears nothing.
pub fn into_log<'a>(command: &'a mut Command, log: &Path) -> io::Result<&'a mut Command> {
    let output = File::options().create(true).append(true).open(log)?;
    Ok(command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output))
}

/// The last so many bytes of a log; nothing where there is none.
pub fn end_of(log: &Path, bytes: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        // What is no file has no length, and may have no end.
        let length = file.metadata()?.len();
        let start = length.saturating_sub(bytes);
        file.seek(SeekFrom::Start(start))?;
        let mut end = Vec::new();
        file.take(length - start).read_to_end(&mut end)?;
        Ok(end)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}
