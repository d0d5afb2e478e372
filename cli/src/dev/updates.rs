//! The second part of the story: packages. An update that works, and one whose new version is not healthy and that is put
//! back by the node itself, with what is on the node compared.
//!
//! What is expected is judged by what lies on the nodes, not by what was reported alone. The second update is expected to
//! be rolled back: nothing else counts as a success of the story.

use fleet_types::job::{JobState, Outcome};
use fleet_types::view::JobView;

use super::daily::{RUN_LIMIT, RUN_WAIT, SHOW_LIMIT};
use super::inner::CONTEXT;
use super::node_spec::NodeSpec;
use super::packages::installed::Installed;
use super::packages::product::{BROKEN, GOOD, NAME};
use super::stage::Stage;
use crate::error::{ExitCode, Failure};

/// The procedure that moves the package.
pub const PROCEDURE: &str = "update";
/// The ring whose nodes are tried first: a single one, so that no pair is without a half meanwhile.
const FIRST: &str = "canary";
/// The selector of nodes that go before the rest ([`NodeSpec::goes_first`]).
const EARLY: &str = "ring!=rest";

impl Stage<'_, '_> {
    /// Both updates; gives the first exit code that is not as it should be.
    pub async fn show_updates(&mut self, nodes: &[NodeSpec]) -> Result<u8, Failure> {
        let code = self.update_to_good(nodes).await?;
        if code != 0 {
            return Ok(code);
        }
        let one = nodes.iter().find(|node| node.ring == FIRST).or(nodes.last());
        match one {
            Some(node) => self.update_to_broken(node).await,
            None => Ok(0),
        }
    }

    /// On the nodes that go first, where there are rings: enough to be seen, and soon over.
    async fn update_to_good(&mut self, nodes: &[NodeSpec]) -> Result<u8, Failure> {
        let has_rings = nodes.iter().any(NodeSpec::goes_first);
        let hit: Vec<_> = nodes.iter().filter(|node| !has_rings || node.goes_first()).collect();
        let everybody = ["--all", "--confirm", CONTEXT, "--reason", "a new version"];
        let target: &[&str] = if has_rings { &["-l", EARLY, "--yes"] } else { &everybody };
        let code = self.update(GOOD, target).await?;
        let mut there = 0;
        for node in &hit {
            there += usize::from(self.installed(node)?.version() == Some(GOOD));
        }
        self.tell(
            "on disk",
            format!("{NAME} {GOOD} on {there} of {} nodes, by dpkg's own database", hit.len()),
        );
        let good = code != 0 || there == hit.len();
        Ok(if good { code } else { ExitCode::Verification.number() })
    }

    /// Runs the procedure as an operator would, and says how.
    async fn update(&mut self, version: &str, target: &[&str]) -> Result<u8, Failure> {
        let version = format!("version={version}");
        let arguments = [&["run", "start", PROCEDURE, "--param", &version], target, &["--wait"]].concat();
        let shown: Vec<_> = arguments.iter().map(|word| quoted(word)).collect();
        self.tell("update", format!("$ fleetctl {}", shown.join(" ")));
        let call = self.inner.show(&[&arguments[..], &["--timeout", RUN_LIMIT]].concat());
        Ok(self.outcome(call, "the update", RUN_WAIT).await?.code)
    }

    async fn update_to_broken(&mut self, node: &NodeSpec) -> Result<u8, Failure> {
        let name = node.name.as_str();
        let before = self.installed(node)?;
        self.tell("update", format!("{NAME} {BROKEN} is broken: its daemon starts, and is never ready"));
        let code = self.update(BROKEN, &["--node", name, "--yes"]).await?;
        let Some(run) = self.newest_run().await? else {
            return Err(Failure::new(
                ExitCode::Unexpected,
                "dev-step",
                "the run of the update is not listed",
            ));
        };
        let job = format!("{run}/{name}");
        self.show("report", &["run", "show", &job]).await?;
        let call = self.inner.ask(&["run", "show", &job, "--output=json"]);
        let view: JobView =
            self.outcome(call, "fleetctl run show", SHOW_LIMIT).await?.json("fleetctl run show")?;
        let after = self.installed(node)?;
        let rolled_back = matches!(view.item.state, JobState::Ended { outcome: Outcome::RolledBack, .. });
        let mut wrong = before.differences(&after);
        if code != ExitCode::RunFailed.number() || !rolled_back {
            wrong.insert(0, format!("the run: exit code {code}, {}", view.item.state.as_str()));
        }
        if wrong.is_empty() {
            let (version, files) = (before.version().unwrap_or_default(), before.files.len());
            let daemons = before.daemons.iter().map(String::as_str).collect::<Vec<_>>().join(" and ");
            self.tell("put back", format!("exit code {code}: rolled back, as it should be"));
            self.tell(
                "",
                format!("{name} has {NAME} {version} as before: dpkg's database and {files} files"),
            );
            self.tell("", format!("byte for byte the same; {daemons} run"));
            return Ok(0);
        }
        for line in wrong {
            self.tell("NOT AS", format!("it should be: {line}"));
        }
        Ok(ExitCode::Verification.number())
    }

    fn installed(&self, node: &NodeSpec) -> Result<Installed, Failure> {
        Installed::look(&self.place.node(&node.name).join("root")).map_err(|error| {
            Failure::unexpected(format!("the packages of {} cannot be looked at", node.name), &error)
        })
    }
}

/// A word as it would be typed.
fn quoted(word: &str) -> String {
    if word.contains([' ', '!']) { format!("'{word}'") } else { word.to_owned() }
}
