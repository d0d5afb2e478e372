//! The trial of the whole: controller and agents are killed at random moments while six real nodes work through
//! many runs; then record, journals, archives on disk and audit log are compared.

use std::time::Duration;

use anyhow::Result;
use fleet_tests::sandbox::chance::Chance;
use fleet_tests::sandbox::{Sandbox, agreement};
use fleet_tests::wait::pass;
use fleet_types::id::RunId;
use fleet_types::job::Outcome;
use fleet_types::view::RunView;

/// Kills in all; `FLEET_STORM_KILLS` asks for more.
const KILLS: usize = 40;
/// Runs that are open at the same time, so that every kill hits something.
const RUNS_AT_ONCE: usize = 2;
/// Longest time between two kills: a job takes one to two seconds.
const BETWEEN: Duration = Duration::from_millis(900);

async fn open_runs(sandbox: &Sandbox, runs: &[RunId]) -> Result<usize> {
    let mut open = 0;
    for run in runs.iter().rev().take(RUNS_AT_ONCE + 1) {
        let view: RunView = sandbox.operator.json(&["run", "show", &run.to_string()]).await?;
        open += usize::from(!view.item.state.is_terminal());
    }
    Ok(open)
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_kills_of_controller_and_agents_lose_and_double_nothing() -> Result<()> {
    let mut chance = Chance::new()?;
    let kills = match std::env::var("FLEET_STORM_KILLS") {
        Ok(text) => text.parse()?,
        Err(_) => KILLS,
    };
    let mut sandbox = Sandbox::start(6).await?;
    let boot = sandbox.start_run("start-services").await?;
    sandbox.ended(boot).await?;
    let mut runs = Vec::new();
    for kill in 0..kills {
        // After the kill before it the controller serves again; an agent may still be starting.
        while open_runs(&sandbox, &runs).await? < RUNS_AT_ONCE {
            runs.push(sandbox.start_run("daily-checks").await?);
        }
        pass(chance.time(BETWEEN)).await;
        let victim = chance.below(sandbox.nodes.len() + 3);
        match sandbox.nodes.get_mut(victim) {
            Some(node) => {
                node.kill().await?;
                node.start(&[])?;
            }
            None => sandbox.controller.kill_and_restart().await?,
        }
        eprintln!(
            "kill {kill}: {}",
            sandbox.nodes.get(victim).map_or("controller", |node| node.name.as_str())
        );
    }
    for run in &runs {
        sandbox.ended(*run).await?;
    }
    let agreed = agreement::check(&sandbox).await?;
    eprintln!("{agreed:#?}");
    let jobs = sandbox.nodes.len() * (runs.len() + 1);
    assert_eq!((agreed.runs, agreed.reports), (runs.len() + 1, jobs));
    // A kill may leave an effect unknown; nothing else may go wrong.
    assert!(
        agreed.outcomes.keys().all(|outcome| matches!(
            outcome,
            Outcome::Succeeded | Outcome::SucceededWithWarnings | Outcome::Failed
        )),
        "{:?}",
        agreed.outcomes
    );
    assert!(agreed.outcomes[&Outcome::Succeeded] * 2 > jobs, "{:?}", agreed.outcomes);
    sandbox.finish().await
}
