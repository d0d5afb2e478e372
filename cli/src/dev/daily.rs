//! The main job: documents are applied, the daily checks run on all nodes, and what came of it is shown.

use std::time::Duration;

use fleet_types::id::RunId;
use fleet_types::view::{Page, RunItem};

use super::embedded::documents;
use super::inner::CONTEXT;
use super::stage::Stage;
use crate::error::Failure;

/// What the development fleet is for.
pub const PROCEDURE: &str = "daily-checks";
/// Applying is one call with a handful of small documents.
const APPLY_LIMIT: Duration = Duration::from_mins(1);
/// The procedure's own limit is 45 minutes; a run that takes longer than this on fresh files hangs.
pub const RUN_LIMIT: &str = "15m";
/// What does the work of systemd at boot.
const BOOT_PROCEDURE: &str = "start-services";
/// All but the second of each pair at once: machines boot when they boot.
const BOOT_PARALLEL: &str = "200";
/// A little more, so that the command's own message comes first.
pub const RUN_WAIT: Duration = Duration::from_mins(16);
/// Reading a log of a few hundred records.
pub const SHOW_LIMIT: Duration = Duration::from_mins(1);

impl Stage<'_, '_> {
    /// Writes the documents into the fleet's folder and applies them from there.
    pub async fn apply_documents(&mut self) -> Result<(), Failure> {
        for (path, text) in documents() {
            let path = format!("documents/{}", path.display());
            // What somebody has changed for trying things out stays.
            if self.place.path(&path).exists() {
                continue;
            }
            if let Some((folder, _)) = path.rsplit_once('/') {
                self.place.make(folder)?;
            }
            self.place.write(&path, text.as_bytes())?;
        }
        let folder = self.place.path("documents").to_string_lossy().into_owned();
        self.tell("documents", format!("$ fleetctl config apply {folder}"));
        let call = self.inner.ask(&["config", "apply", &folder, "--yes"]);
        let outcome = self.outcome(call, "fleetctl config apply", APPLY_LIMIT).await?;
        outcome.good("fleetctl config apply")?;
        for line in outcome.out.lines() {
            self.tell("", line);
        }
        Ok(())
    }

    /// Starts the services of all nodes by a run, as nobody else does it there.
    pub async fn start_services(&mut self) -> Result<(), Failure> {
        let reason = "boot of a development fleet";
        let arguments = run_start(BOOT_PROCEDURE, reason);
        self.tell("services", format!("$ fleetctl run start {BOOT_PROCEDURE} --all --wait"));
        let call = self.inner.ask(&[&arguments[..], &["--quiet", "--max-parallel", BOOT_PARALLEL]].concat());
        let outcome = self.outcome(call, "the start of services", RUN_WAIT).await?;
        if outcome.code != 0 {
            for line in outcome.out.lines() {
                self.tell("services", line);
            }
        }
        outcome.good(&format!("fleetctl run start {BOOT_PROCEDURE}"))?;
        self.tell("", "started on all nodes, by a run like any other");
        Ok(())
    }

    /// Runs a procedure on all nodes and shows it; gives the exit code of the run.
    pub async fn run_on_all(&mut self, procedure: &str, reason: &str) -> Result<u8, Failure> {
        let arguments = run_start(procedure, reason);
        self.tell("run", format!("$ fleetctl run start {procedure} --all --wait \\"));
        self.tell("", format!("    --confirm {CONTEXT} --reason \"{reason}\""));
        let call = self.inner.show(&arguments);
        Ok(self.outcome(call, "the run", RUN_WAIT).await?.code)
    }

    /// The newest run, to be named in what to try next.
    pub async fn newest_run(&mut self) -> Result<Option<RunId>, Failure> {
        let call = self.inner.ask(&["run", "list", "--limit", "1", "--output=json"]);
        let outcome = self.outcome(call, "fleetctl run list", SHOW_LIMIT).await?;
        let page: Page<RunItem> = outcome.json("fleetctl run list")?;
        Ok(page.items.first().map(|item| item.run))
    }

    /// Shows what a command prints; gives its exit code.
    pub async fn show(&mut self, about: &str, arguments: &[&str]) -> Result<u8, Failure> {
        self.tell(about, format!("$ fleetctl {}", arguments.join(" ")));
        let call = self.inner.show(arguments);
        Ok(self.outcome(call, &format!("fleetctl {}", arguments.join(" ")), SHOW_LIMIT).await?.code)
    }
}

/// The command line of a run on all nodes. It changes them, so it wants the fleet's name and a reason.
fn run_start<'a>(procedure: &'a str, reason: &'a str) -> [&'a str; 11] {
    [
        "run",
        "start",
        procedure,
        "--all",
        "--wait",
        "--confirm",
        CONTEXT,
        "--reason",
        reason,
        "--timeout",
        RUN_LIMIT,
    ]
}
