//! Brings the fleet up: the controller, the operator, the nodes. Each step is the command that an operator
//! would type, and its failure is shown with the end of the log of whoever failed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fleet_types::view::{JoinTokenView, NodeItem, Page, Presence};

use super::config_files::{self, NodeFolders, Served};
use super::firewall;
use super::inner::CONTEXT;
use super::launch::{self, Made};
use super::node_spec::NodeSpec;
use super::packages::archive::Archive;
use super::stage::{Stage, ended};
use crate::context::ContextStore;
use crate::environment::Environment;
use crate::error::{ExitCode, Failure};

/// Making keys, opening the store, first handshakes: each takes well under a second; a machine that builds
/// something beside it may take thirty times as long.
const LIMIT: Duration = Duration::from_mins(1);

/// What the files of a development fleet begin with.
const WRITTEN: &str = "# Of a development fleet, written anew by each `fleetctl dev`.\n";
/// What a development node has beside the places of its files.
const NODE: &str = "\
# A restarted controller is found again at once.
[controller.backoff]
max = \"2s\"

# The node owner's last word. A real node starts as read_only; a development node may be changed, also
# while nothing is known about its partner.
[policy]
mode = \"enforce\"
require_healthy_partner = false
max_disruptive_jobs = { count = 1000, within = \"24h\" }
min_free_disk = \"64MiB\"

[timers]
drain = \"3s\"
";

impl Stage<'_, '_> {
    /// Makes the fleet; gives the invite of its first operator.
    pub async fn make_fleet(&mut self, operator: &str) -> Result<String, Failure> {
        let program = self.crew.programs().controller.clone();
        let (data, root_key) = (self.place.path("controller"), self.place.path("operator/root.key"));
        // Its answer holds the invite, so it does not go where logs go.
        let answer = self.place.path("operator/init.json");
        let mut command = launch::init(&program, &data, &root_key, operator);
        let log = self.run_to_end("fleet-controller init", &mut command, &answer).await?;
        let made: Option<Made> = log.lines().find_map(|line| serde_json::from_str(line).ok());
        std::fs::remove_file(&answer).map_err(|error| {
            Failure::unexpected(format!("{} cannot be removed", answer.display()), &error)
        })?;
        made.map(|made| made.invite).ok_or_else(|| {
            Failure::new(ExitCode::Unexpected, "dev-step", "fleet-controller init printed no invite")
                .fix("fleetctl and fleet-controller must be of the same build")
        })
    }

    /// Starts the controller and waits until it serves; says where.
    pub async fn start_controller(&mut self) -> Result<Served, Failure> {
        let (config, ready) = (self.place.path("controller.toml"), self.place.path("controller/ready.json"));
        let data = self.place.path("controller");
        let write = |stage: &Self, at: &Served| {
            let text = WRITTEN.to_owned() + &config_files::controller(&data, at, "");
            stage.place.write("controller.toml", text.as_bytes())
        };
        write(self, &Served::anywhere())?;
        match std::fs::remove_file(&ready) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::unexpected(format!("{} cannot be removed", ready.display()), &error));
            }
            _ => {}
        }
        let log = self.place.log("controller");
        let pid = self.crew.start_controller(&config, &ready, &log)?;
        let served: Served = self
            .until("the controller to serve", LIMIT, |_| {
                let text = std::fs::read_to_string(&ready).ok()?;
                Some(
                    serde_json::from_str(&text)
                        .map_err(|error| Failure::unexpected("ready.json cannot be read", &error)),
                )
            })
            .await?;
        // From now on at these ports, so that agents find it again when it is started again.
        write(self, &served)?;
        self.tell("controller", format!("serves agents and operators on {}", served.agent));
        self.tell("", format!("enrolment on {}, pid {pid}", served.enrol));
        Ok(served)
    }

    /// Redeems the invite, as `fleetctl login`.
    pub async fn sign_in(&mut self, invite: &str, at: &Served) -> Result<(), Failure> {
        let root_key = self.place.path("operator/root.key").to_string_lossy().into_owned();
        let call = self.inner.ask(&launch::login(invite, at, &root_key));
        let outcome = self.outcome(call, "fleetctl login", LIMIT).await?;
        outcome.good("fleetctl login")?;
        let line = outcome.out.trim();
        self.tell("operator", line.split_once(" at ").map_or(line, |(said, _address)| said));
        Ok(())
    }

    /// Writes the controller's addresses of today into the fleet's own context.
    pub fn correct_context(&self, at: &Served) -> Result<(), Failure> {
        let contexts = self.own_contexts()?;
        let name =
            CONTEXT.parse().map_err(|error| Failure::unexpected("the context has a bad name", &error))?;
        let mut entry = contexts.choose(Some(&name))?.entry;
        entry.endpoint.clone_from(&at.agent);
        entry.enrol.clone_from(&at.enrol);
        contexts.put(&name, &entry, true)
    }

    /// The fleet's own folder of contexts.
    pub fn own_contexts(&self) -> Result<ContextStore, Failure> {
        let folder = self.place.path("operator").to_string_lossy().into_owned();
        ContextStore::open(&Environment::fixed(
            &[("FLEET_CONFIG_DIR", &folder)],
            self.session.environment.now,
        ))
    }

    /// Lays a node out and lets it join.
    pub async fn join(
        &mut self,
        node: &NodeSpec,
        packages: Option<&Archive>,
        at: &Served,
    ) -> Result<(), Failure> {
        let folder = self.place.node(&node.name);
        self.place.make(&format!("nodes/{}", node.name))?;
        firewall::lay_out(&folder.join("root"), node, (self.session.environment.now)()).map_err(|error| {
            Failure::unexpected(format!("the root of {} cannot be laid out", node.name), &error)
        })?;
        if let Some(packages) = packages {
            packages.install(&folder.join("root")).map_err(|error| {
                Failure::unexpected(format!("{} cannot be given packages", node.name), &error)
            })?;
        }
        self.configure(node, at)?;
        let arguments = launch::join_token(node);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--output=json"]).collect();
        let call = self.inner.ask(&arguments);
        let outcome = self.outcome(call, "fleetctl join-token create", LIMIT).await?;
        let token: JoinTokenView = outcome.json("fleetctl join-token create")?;
        let program = self.crew.programs().agent.clone();
        let mut command = launch::agent(&program, "enrol", &self.place.agent_config(&node.name));
        // By variable: arguments can be read by every user of the machine.
        command.env("FLEET_JOIN_TOKEN", &token.token);
        let what = format!("enrolment of {}", node.name);
        self.run_to_end(&what, &mut command, &self.place.log(&node.name)).await?;
        Ok(())
    }

    /// Writes the configuration of a node's agent.
    pub fn configure(&self, node: &NodeSpec, at: &Served) -> Result<(), Failure> {
        let folders = NodeFolders::below(&self.place.node(&node.name));
        let text = WRITTEN.to_owned() + &config_files::agent(&node.name, &folders, at, NODE);
        self.place.write(&format!("nodes/{}/agent.toml", node.name), text.as_bytes())
    }

    /// Starts a node's agent.
    pub fn start_agent(&mut self, node: &NodeSpec) -> Result<(), Failure> {
        let (config, log) = (self.place.agent_config(&node.name), self.place.log(&node.name));
        let pid = self.crew.start_agent(&node.name, &config, &log)?;
        self.tell("node", format!("{}  {}, pid {pid}", node.name, node.in_words()));
        Ok(())
    }

    /// Waits until the controller sees all nodes.
    pub async fn all_online(&mut self, nodes: &[NodeSpec]) -> Result<(), Failure> {
        let mut call = self.inner.ask(&["node", "list", "--output=json"]);
        let mut offline = Vec::new();
        let waited = self
            .until("all nodes to be online", LIMIT, |stage| {
                let outcome = call.try_recv().ok()?;
                let page: Page<NodeItem> = match outcome.json("fleetctl node list") {
                    Ok(page) => page,
                    Err(failure) => return Some(Err(failure)),
                };
                let is_online = |node: &&NodeSpec| {
                    page.items
                        .iter()
                        .any(|item| item.name.as_str() == node.name && item.presence == Presence::Online)
                };
                offline =
                    nodes.iter().filter(|node| !is_online(node)).map(|node| node.name.clone()).collect();
                if offline.is_empty() {
                    return Some(Ok(()));
                }
                call = stage.inner.ask(&["node", "list", "--output=json"]);
                None
            })
            .await;
        waited.map_err(|failure| {
            offline.iter().fold(failure, |failure, name| {
                let lines = super::process::tail(&self.place.log(name));
                let last = lines.last().map_or("its log is empty", String::as_str);
                failure.cause(format!("{name} is not online: {last}"))
            })
        })
    }

    /// Runs a program that ends by itself; gives what it added to its log.
    async fn run_to_end(&mut self, what: &str, command: &mut Command, log: &Path) -> Result<String, Failure> {
        let mut process = self.crew.process(command, log)?;
        let status = self.until(what, LIMIT, |_| process.ended().map(Ok)).await?;
        if !status.success() {
            return Err(ended(what, status, log));
        }
        std::fs::read_to_string(log)
            .map_err(|error| Failure::unexpected(format!("{} cannot be read", log.display()), &error))
    }
}
