//! A fleet of real programs on this machine: a controller, agents that joined with real tokens, fleetctl.
//!
//! Each node has a private root with the small firewall installation of `fleetctl dev`. Protocol timers are a
//! twentieth of the real ones. Signals go to own children only, by their pid. Everything lies in one folder that
//! goes with the value; when a story fails, the ends of all logs are shown.
//!
//! | module | holds |
//! |---|---|
//! | [`node`] | one node: its agent's process, its root, its journal |
//! | [`operator`] | the real fleetctl, in the sandbox's own configuration folder |
//! | [`identity`] | certificates of another time for the operator |
//! | [`agreement`] | record, journals, archives on disk and audit log compared |
//! | [`chance`] | moments and victims of a storm, with a seed |
//! | [`processes`] | what still runs of a sandbox |

pub mod agreement;
pub mod chance;
pub mod identity;
pub mod node;
pub mod operator;
pub mod processes;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fleet_types::id::RunId;
use fleet_types::view::{JoinTokenView, NodeItem, Page, Presence, RunView};
use fleetctl::dev::embedded::documents;
use fleetctl::dev::launch;
use fleetctl::dev::node_spec::{NodeSpec, nodes};
use tempfile::TempDir;

use crate::controller_process::{ControllerProcess, Options};
use crate::wait::{PATIENCE, wait_for};
use node::SandboxNode;
use operator::Fleetctl;

/// Divides the controller's timers: a heartbeat comes every 1.5 s, an offer is made again after the same.
pub const SCALE: u32 = 20;
/// The local policy of a node that may be changed.
pub const ENFORCE: &str = "[policy]\nmode = \"enforce\"\nrequire_healthy_partner = false\n\
                           max_disruptive_jobs = { count = 1000, within = \"24h\" }\nmin_free_disk = \"1MiB\"\n";

/// A procedure with a step that can be done again and one that cannot; and one with the latter alone.
const SHORT: [(&str, &str); 2] = [
    ("short.toml", include_str!("sandbox/short.toml")),
    ("signatures.toml", include_str!("sandbox/signatures.toml")),
];

/// A fleet under test.
pub struct Sandbox {
    /// The controller.
    pub controller: ControllerProcess,
    /// The operator's program, signed in as ada.
    pub operator: Fleetctl,
    /// Nodes by name.
    pub nodes: Vec<SandboxNode>,
    folder: TempDir,
    finished: bool,
}

impl Sandbox {
    /// A fleet of `count` nodes that are online, may be changed, and have the documents of `fleetctl dev`.
    pub async fn start(count: u32) -> Result<Self> {
        Self::start_with(Options::default(), count).await
    }

    /// The same with a controller that is set up in another way.
    pub async fn start_with(options: Options, count: u32) -> Result<Self> {
        let mut sandbox = Self::without_nodes_with(options).await?;
        for spec in nodes(count) {
            sandbox.join(&spec, ENFORCE).await?.start(&[])?;
        }
        sandbox.all_online().await?;
        sandbox.apply_documents().await?;
        Ok(sandbox)
    }

    /// A controller and an operator who has signed in.
    pub async fn without_nodes() -> Result<Self> {
        Self::without_nodes_with(Options::default()).await
    }

    /// The same with a controller that is set up in another way; its timers are the sandbox's.
    pub async fn without_nodes_with(options: Options) -> Result<Self> {
        let options = Options { scale: SCALE, ..options };
        let controller = ControllerProcess::start_new(&options).await?;
        let folder = tempfile::Builder::new().prefix("fleet-sandbox-").tempdir()?;
        let operator = Fleetctl::new(folder.path().join("operator"))?;
        let root_key = controller.root_key_path();
        let root_key = root_key.to_str().context("the folder has an odd name")?;
        operator.good(&launch::login(&controller.invite, &controller.served(), root_key)).await?;
        Ok(Self { controller, operator, nodes: Vec::new(), folder, finished: false })
    }

    /// Lays a node out and lets it join; its agent is not started. `policy` goes into its configuration.
    pub async fn join(&mut self, spec: &NodeSpec, policy: &str) -> Result<&mut SandboxNode> {
        let node = SandboxNode::lay_out(&self.path("nodes"), spec)?;
        self.join_as(node, spec, policy).await
    }

    /// The same for a node whose core has a process and an account of its own.
    pub async fn join_apart(
        &mut self,
        spec: &NodeSpec,
        policy: &str,
        core_user: &str,
    ) -> Result<&mut SandboxNode> {
        let mut node = SandboxNode::lay_out(&self.path("nodes"), spec)?;
        node.set_apart(core_user)?;
        self.join_as(node, spec, policy).await
    }

    /// The same with a node that was laid out before, such as on a small disk.
    pub async fn join_as(
        &mut self,
        node: SandboxNode,
        spec: &NodeSpec,
        policy: &str,
    ) -> Result<&mut SandboxNode> {
        node.configure(&self.controller, policy)?;
        let token = self.token(spec).await?;
        node.enrol(&token).await?;
        self.nodes.push(node);
        self.nodes.last_mut().context("it was pushed just now")
    }

    /// A join token for a node.
    pub async fn token(&self, spec: &NodeSpec) -> Result<String> {
        let arguments = launch::join_token(spec);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Ok(self.operator.json::<JoinTokenView>(&arguments).await?.token)
    }

    /// Writes the documents of `fleetctl dev` and two short procedures, and applies them.
    pub async fn apply_documents(&self) -> Result<()> {
        let folder = self.path("documents");
        for (path, text) in documents() {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().context("a document lies in a folder")?)?;
            std::fs::write(path, text)?;
        }
        for (name, text) in SHORT {
            std::fs::write(folder.join("procedures").join(name), text)?;
        }
        let folder = folder.to_str().context("the folder has an odd name")?;
        self.operator.good(&["config", "apply", folder, "--yes"]).await?;
        Ok(())
    }

    /// Waits until every node is online.
    pub async fn all_online(&self) -> Result<()> {
        for node in &self.nodes {
            self.online(&node.name).await?;
        }
        Ok(())
    }

    /// Waits until a node is online.
    pub async fn online(&self, name: &str) -> Result<()> {
        wait_for(&format!("{name} to be online"), PATIENCE, async || {
            let page: Page<NodeItem> = self.operator.json(&["node", "list"]).await?;
            let is_online =
                page.items.iter().any(|node| node.name.as_str() == name && node.presence == Presence::Online);
            Ok(is_online.then_some(()))
        })
        .await
    }

    /// Starts a procedure on all nodes and does not wait. The controller must be there.
    pub async fn start_run(&self, procedure: &str) -> Result<RunId> {
        let arguments =
            ["run", "start", procedure, "--all", "--confirm", "dev", "--reason", "a story", "--no-wait"];
        Ok(self.operator.json::<RunView>(&arguments).await?.item.run)
    }

    /// Waits until a run has ended.
    pub async fn ended(&self, run: RunId) -> Result<RunView> {
        let text = run.to_string();
        wait_for(&format!("run {run} to end"), PATIENCE * 3, async || {
            let view: RunView = self.operator.json(&["run", "show", &text]).await?;
            if view.item.state.is_terminal() {
                return Ok(Some(view));
            }
            anyhow::bail!("it is {} with {:?} open", view.item.state.as_str(), view.open)
        })
        .await
    }

    /// The node of this name.
    pub fn node(&mut self, name: &str) -> Result<&mut SandboxNode> {
        self.nodes.iter_mut().find(|node| node.name == name).with_context(|| format!("no node {name}"))
    }

    /// A place in the sandbox's folder.
    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// The folder that everything but the controller's data lies in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The end of a story: the audit log verifies with fleetctl, everything stops by itself, nothing is left.
    pub async fn finish(mut self) -> Result<()> {
        self.operator.good(&["audit", "verify", "--reports"]).await?;
        for node in &mut self.nodes {
            node.stop_all().await?;
        }
        self.controller.stop().await?;
        let left = processes::below(self.folder.path())?;
        ensure!(left.is_empty(), "processes are left: {left:?}");
        self.finished = true;
        Ok(())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        for node in &mut self.nodes {
            eprintln!("{}", node.log_tail());
            node.give_up();
        }
        eprintln!("{}", self.controller.log_tail());
    }
}
