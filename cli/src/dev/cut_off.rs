//! The third part of the story: a rule set that cuts a node off from its controller, and that the node puts back by itself.
//!
//! What is expected is that nothing of it is left, judged by what lies on the node. Anything else is no success of the story.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use fleet_types::job::{EndCause, JobState, Outcome};
use fleet_types::view::JobView;

use super::config_files::Served;
use super::daily::SHOW_LIMIT;
use super::node_spec::NodeSpec;
use super::packet_filter::PacketFilter;
use super::stage::Stage;
use crate::error::{ExitCode, Failure};

/// The procedure that loads it.
const PROCEDURE: &str = "lock-out";
/// What runs, by the stand-in of nft.
const LOADED: &str = "run/nftables.loaded";
/// What is loaded at boot.
const FILE: &str = "etc/nftables.conf";

/// Does this rule set drop what a node says first to its controller? Each node of a development fleet dials another port.
fn drops(rules: &str) -> bool {
    rules.contains("policy drop")
}

/// Rules, none at first, and file, as they lie there.
fn look(root: &Path) -> (String, Option<String>) {
    let text = |file| fs::read_to_string(root.join(file)).ok();
    (text(LOADED).unwrap_or_default(), text(FILE))
}

/// The node that is cut off in the story: one that the updates leave alone.
pub fn cut_off_node(nodes: &[NodeSpec]) -> Option<&NodeSpec> {
    nodes.iter().find(|node| !node.goes_first()).or(nodes.first())
}

impl Stage<'_, '_> {
    /// Where a node dials: one has a packet filter before it.
    pub async fn dialled_by(
        &mut self,
        node: &NodeSpec,
        nodes: &[NodeSpec],
        at: &Served,
    ) -> Result<Served, Failure> {
        if cut_off_node(nodes).is_none_or(|chosen| chosen.name != node.name) {
            return Ok(at.clone());
        }
        let failed = |error: std::io::Error| Failure::unexpected("the stand-in of a packet filter", &error);
        let to: SocketAddr = at.agent.parse().map_err(|_| {
            Failure::new(ExitCode::Unexpected, "dev-step", format!("{} is no address", at.agent))
        })?;
        let filter =
            PacketFilter::before(to, &self.root_of(node).join(LOADED), drops).await.map_err(failed)?;
        let agent = filter.address().to_string();
        self.filters.push(filter);
        Ok(Served { agent, enrol: at.enrol.clone() })
    }

    fn root_of(&self, node: &NodeSpec) -> PathBuf {
        self.place.node(&node.name).join("root")
    }

    /// Cuts a node off; gives the first exit code that is not as it should be.
    pub async fn show_cut_off(&mut self, nodes: &[NodeSpec]) -> Result<u8, Failure> {
        let Some(node) = cut_off_node(nodes) else { return Ok(0) };
        let name = node.name.as_str();
        let before = look(&self.root_of(node));
        self.tell("cut off", "a rule set that forgets the controller; it is guarded");
        let arguments = ["run", "start", PROCEDURE, "--node", name, "--yes", "--wait"];
        let code = self.show("", &arguments).await?;
        let Some(run) = self.newest_run().await? else {
            return Err(Failure::new(ExitCode::Unexpected, "dev-step", "the run is not listed"));
        };
        let call = self.inner.ask(&["run", "show", &format!("{run}/{name}"), "--output=json"]);
        let view: JobView =
            self.outcome(call, "fleetctl run show", SHOW_LIMIT).await?.json("fleetctl run show")?;
        let put_back = matches!(
            view.item.state,
            JobState::Ended { outcome: Outcome::RolledBack, cause: Some(EndCause::Unconfirmed), .. }
        );
        let same = look(&self.root_of(node)) == before;
        if code == ExitCode::RunFailed.number() && put_back && same {
            self.tell(
                "put back",
                format!("exit code {code}: the guard of {name} heard nobody and undid it;"),
            );
            self.tell("", "rules and file are byte for byte as before");
            return Ok(0);
        }
        let how = format!("exit code {code}, {}, the same as before: {same}", view.item.state.as_str());
        self.tell("NOT AS", format!("it should be: {how}"));
        Ok(ExitCode::Verification.number())
    }
}
