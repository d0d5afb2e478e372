//! What nodes say of their jobs short of the end: live states, and the list at reconcile.
//!
//! Live states stay in memory: what lies between offer and end is the node's, and comes back at reconcile
//! (security-and-delivery §2.2, §2.8).

use fleet_proto::convert::JobUpdate;
use fleet_types::id::JobId;
use fleet_types::run::RunState;

use super::caller::Agent;
use crate::context::Context;
use crate::error::Result;
use crate::repo::keys;
use crate::repo::ledger::Leaf;
use crate::repo::records::{JobRecord, RunRecord, StoredReport};

/// What to do with one job of a node's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Continue,
    /// Stop.
    Cancel,
    /// Send the report (again).
    SendReport,
    /// It is stored: nothing more to do.
    Forget,
    /// Unknown to this store: go on, its report will be kept.
    Adopt,
}

/// Notes where a node says a job stands. In memory only: what lies between offer and end is the node's.
pub fn update(context: &Context, agent: &Agent, update: &JobUpdate) {
    if update.state.outcome().is_none() {
        context.registry.set_live(agent.node, update.run, update.attempt, update.state.clone());
        context.bell.job_changed(update.run, agent.node);
    }
}

/// Decides on one job of a node's list at connect.
pub async fn reconcile(context: &Context, agent: &Agent, listed: &JobUpdate) -> Result<Decision> {
    let finished = listed.report.is_some() || listed.state.outcome().is_some();
    let Some(job) = context.repo.get::<JobRecord>(&keys::job(listed.run, agent.node)?).await? else {
        let leaf = Leaf::new(agent.actor(), "job.adopt", format!("run/{}", listed.run))
            .job(JobId { run: listed.run, node: agent.node }, listed.attempt)
            .because("the node lists a job that this store does not have");
        context.ledger.commit(context.ledger.batch().using_reserve(), vec![leaf]).await?;
        return Ok(if finished { Decision::SendReport } else { Decision::Adopt });
    };
    let stored = |report: Option<StoredReport>| report.is_some_and(|r| Some(r.digest) == listed.report);
    if finished {
        let known = stored(job.record.report) || stored(job.record.late_report);
        return Ok(if known { Decision::Forget } else { Decision::SendReport });
    }
    update(context, agent, listed);
    if job.record.state.outcome().is_some() {
        // Given up here, still going there: it may end; its report will be late.
        return Ok(Decision::Continue);
    }
    let run = context.repo.get::<RunRecord>(&keys::run(listed.run)?).await?;
    let halting = run.is_some_and(|run| run.record.state == RunState::Halting);
    Ok(if halting { Decision::Cancel } else { Decision::Continue })
}
