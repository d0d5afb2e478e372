//! One process of light agents. Commands come as lines on standard input: `connect SINCE` until each was welcomed after that time
//! (microseconds since 1970), `wait`; its end ends it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::plan::{Said, WorkerPlan};
use super::prepare::source;
use crate::fake_agent::{Activity, Credentials, FakeAgent, Script};
use crate::wait::wait_for;

/// Source addresses of one worker: below the 28,000 ports that the system gives to each.
const SOURCES: u8 = 4;
/// Longest wait for all agents: a thousand take seconds.
const LIMIT: Duration = Duration::from_mins(2);

/// Says a line to the parent.
pub fn say(said: &Said) -> Result<()> {
    println!("{}", serde_json::to_string(said)?);
    Ok(())
}

/// Runs until standard input ends.
pub async fn run(plan: WorkerPlan) -> Result<()> {
    let bytes = std::fs::read(&plan.credentials)?;
    let credentials: Vec<Credentials> = serde_json::from_slice(&bytes).context("credentials")?;
    let activity = Arc::new(Activity::default());
    let script = Script {
        connects: false,
        // Nothing is lost here; agents that look again would cost both sides the same for nothing.
        resend: Duration::from_mins(1),
        ..Script::default()
    };
    let mut agents = Vec::with_capacity(credentials.len());
    for (n, one) in credentials.into_iter().enumerate() {
        let last = 10 + plan.number * SOURCES + u8::try_from(n % usize::from(SOURCES))?;
        let activity = Arc::clone(&activity);
        agents.push(FakeAgent::start(one, plan.address, Some(source(last)), script.clone(), activity)?);
    }
    say(&Said::Ready)?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut rounds = 0;
    while let Some(line) = lines.next_line().await? {
        match line.split_once(' ').unwrap_or((line.as_str(), "")) {
            ("connect", since) => connect(&agents, since.parse()?).await?,
            ("wait", _) => {
                rounds += 1;
                acknowledged(&agents, rounds).await?;
            }
            (other, _) => anyhow::bail!("\"{other}\" is no command of a worker"),
        }
    }
    Ok(())
}

async fn connect(agents: &[FakeAgent], since: u64) -> Result<()> {
    for agent in agents {
        agent.script(|script| script.connects = true);
    }
    wait_for("all agents to be online", LIMIT, async || {
        let mut links = agents.iter().map(FakeAgent::links);
        Ok(links.all(|links| links.up && links.welcomed_us >= since).then_some(()))
    })
    .await?;
    let last_us = agents.iter().map(|agent| agent.links().welcomed_us).max().unwrap_or(0);
    say(&Said::Connected { last_us })
}

/// Waits until every agent has `rounds` acknowledged reports.
async fn acknowledged(agents: &[FakeAgent], rounds: usize) -> Result<()> {
    wait_for("all reports to be acknowledged", LIMIT, async || {
        let done = |agent: &FakeAgent| {
            agent.journal(|journal| journal.jobs.values().filter(|job| job.acked).count() >= rounds)
        };
        Ok(agents.iter().all(done).then_some(()))
    })
    .await?;
    let links: Vec<_> = agents.iter().map(FakeAgent::links).collect();
    let said = Said::Acknowledged {
        first_us: links.iter().map(|links| links.assigned_us).min().unwrap_or(0),
        last_us: links.iter().map(|links| links.acked_us).max().unwrap_or(0),
        faults: agents.iter().map(|agent| agent.journal(|journal| journal.faults.len())).sum(),
    };
    for agent in agents {
        agent.forget_times();
    }
    say(&said)
}
