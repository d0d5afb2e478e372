//! What a newcomer is told once the fleet is up: what is simulated, and what to try next, as commands that can
//! be copied.

use std::path::{Path, PathBuf};

use fleet_types::id::{Name, RunId};

use super::daily::PROCEDURE;
use super::node_spec::NodeSpec;
use super::stage::Stage;
use crate::session::Session;

impl Stage<'_, '_> {
    /// Everything here that a real fleet does not have, or has otherwise.
    pub fn tell_what_is_simulated(&mut self, has_packages: bool) {
        let folder = self.place.folder().display().to_string();
        self.tell("simulated", "units run under the agent's own supervisor, not systemd");
        self.tell("", "each agent is one process; a real one is two, with an account each");
        self.tell("", "the firewall and its nft are stand-ins: real files, no filtering;");
        self.tell("", "a relay before one node drops new connections as its rules say");
        self.tell("", "processor, memory, disks, interfaces are this machine's");
        self.tell(
            "",
            if has_packages {
                "packages: the machine's apt and dpkg, on each node's root alone"
            } else {
                "packages are not handled"
            },
        );
        self.tell("", "policy is \"enforce\"; a real node starts as \"read_only\"");
        self.tell("", "nodes do not wait for a healthy partner; a real one does");
        self.tell("", format!("all keys lie in one folder: {folder}"));
    }

    /// Commands for a second terminal. `context` is the fleet's name there, where it has one.
    pub fn tell_what_to_try(&mut self, context: Option<&Name>, nodes: &[NodeSpec], run: Option<RunId>) {
        let folder = self.place.folder().display().to_string();
        let program = own_program(self.session);
        let fleetctl = match context {
            Some(name) => format!("{program} --context {name}"),
            None => format!("FLEET_CONFIG_DIR={folder}/operator {program}"),
        };
        let node = nodes.first().map_or("", |node| node.name.as_str());
        let run = run.map(|run| format!("{fleetctl} run show {run}/{node}"));
        self.tell("try", "in a second terminal:");
        for line in [format!("{fleetctl} status")].into_iter().chain(run).chain([
            format!("{fleetctl} node show {node}"),
            format!("{fleetctl} run plan {PROCEDURE} --node {node} --wait"),
            format!("{fleetctl} run start {PROCEDURE} --node {node} --yes --wait"),
            format!("{fleetctl} run task health.check --with checks=all --profile dev-firewall --all"),
            format!("{fleetctl} backup list"),
            format!("{fleetctl} audit list --limit 10"),
            format!("ls {folder}/nodes/{node}/root/var/backups/zehrasec"),
            format!("cat {folder}/documents/procedures/{PROCEDURE}.toml"),
            format!("{fleetctl} config apply {folder}/documents"),
        ]) {
            self.tell("", format!("  {line}"));
        }
        self.tell("logs", format!("{folder}/logs"));
    }
}

/// How this program is called from a second terminal: by name where a shell finds it, else by its path.
fn own_program(session: &Session<'_>) -> String {
    let own = std::env::current_exe().unwrap_or_default();
    let folders = session.environment.get("PATH").unwrap_or_default().split(':');
    let found = folders.map(|folder| Path::new(folder).join("fleetctl")).find(|path| path.exists());
    let is_own = |path: PathBuf| path.canonicalize().is_ok_and(|path| path == own);
    if found.is_some_and(is_own) {
        return "fleetctl".to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    own.strip_prefix(here).unwrap_or(&own).display().to_string()
}
