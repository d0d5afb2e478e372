//! `fleetctl run start --plan`: what the nodes planned, as it was shown, on those nodes and nothing else.
//!
//! Each different plan is fetched and hashed here; the digests that are signed are of what this machine could show. A node
//! starts none but its own plan, and that only when it is among them (docs/adr/0025).

use std::collections::BTreeMap;

use fleet_types::digest::Digest;
use fleet_types::document::procedure::Procedure;
use fleet_types::document::profile::Profile;
use fleet_types::id::{Name, NodeId, RunId};
use fleet_types::job::Outcome;
use fleet_types::request::{BoundPlan, MAX_PLANS, Verb};
use fleet_types::view::{JobItem, RunView};

use super::order::{self, Prepared, Shown, Work};
use super::show;
use crate::args::HowToRun;
use crate::client::Client;
use crate::error::{ExitCode, Failure};
use crate::render::units;
use crate::session::Session;
use crate::settings::TargetFlags;
use crate::targets::{self, Chosen};

/// Most nodes that an error names.
const MAX_NAMED: usize = 5;

/// The order that starts a plan, bound to it.
pub async fn prepare(
    session: &mut Session<'_>,
    client: &Client,
    run: RunId,
    profile: Option<&Name>,
    how: &HowToRun,
) -> Result<Prepared, Failure> {
    if !session.settings.targets.is_empty() {
        return Err(Failure::usage("--plan says which nodes; a target beside it would be another")
            .fix("leave --node, -l, --site and --all out, or plan for those nodes"));
    }
    let plan = client.run(run).await?;
    if plan.item.verb != Verb::Plan {
        return Err(Failure::usage(format!("run {run} is no plan")).fix("fleetctl run plan PROCEDURE -l …"));
    }
    if !plan.item.state.is_terminal() {
        let what = format!("plan {run} is not complete yet");
        return Err(
            Failure::new(ExitCode::Blocked, "plan-incomplete", what).fix(format!("fleetctl run wait {run}"))
        );
    }
    let jobs = show::all_jobs(client, run).await?;
    let digests = digests(run, &jobs)?;
    for (digest, job) in &digests {
        let shown = client.job(run, &job.node_name).await?.report.and_then(|report| report.plan?.digest());
        if shown != Some(*digest) {
            let what = format!(
                "what the controller shows as the plan of {} is not what its digest says",
                job.node_name
            );
            return Err(Failure::new(ExitCode::Verification, "digest-mismatch", what)
                .fix("compare `fleetctl version` with the controller's"));
        }
    }
    let chosen = nodes_of(client, &plan, &jobs).await?;
    let (procedure, profile) = documents(client, &plan, profile).await?;
    let work = (Work::Applied(Box::new(procedure)), &profile);
    let bound = BoundPlan { run, digests: digests.into_keys().collect() };
    Ok(order::prepared(session, chosen, work, plan.params, how, Verb::Run)?.bound_to(bound))
}

/// Every different plan, with one job that has it.
fn digests(run: RunId, jobs: &[JobItem]) -> Result<BTreeMap<Digest, &JobItem>, Failure> {
    let without: Vec<_> = jobs
        .iter()
        .filter(|job| job.plan.is_none() || job.state.outcome() != Some(Outcome::Succeeded))
        .map(|job| job.node_name.as_str())
        .collect();
    if !without.is_empty() {
        let named = without.iter().take(MAX_NAMED).copied().collect::<Vec<_>>().join(", ");
        let more = without.len().saturating_sub(MAX_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let nodes = units::count(without.len(), "node");
        let what = format!("{nodes} of plan {run} could not start what was planned: {named}{more}");
        return Err(Failure::new(ExitCode::Blocked, "plan-incomplete", what)
            .fix(format!("fleetctl run show {run}/{} says why; plan again without them", without[0])));
    }
    let digests: BTreeMap<_, _> = jobs.iter().filter_map(|job| Some((job.plan?, job))).collect();
    if digests.len() > MAX_PLANS {
        let what =
            format!("the nodes would do {} different things; one start binds {MAX_PLANS}", digests.len());
        return Err(Failure::new(ExitCode::Blocked, "plans-differ", what).fix("plan for fewer nodes at once"));
    }
    Ok(digests)
}

/// The plan's nodes as they are now, under the selector that chose them.
async fn nodes_of(client: &Client, plan: &RunView, jobs: &[JobItem]) -> Result<Chosen, Failure> {
    let names = jobs.iter().map(|job| job.node_name.clone()).collect();
    let flags = TargetFlags { nodes: names, ..TargetFlags::default() };
    let chosen = targets::resolve(client, &flags, "run start --plan").await?;
    let mut planned: Vec<NodeId> = jobs.iter().map(|job| job.node).collect();
    planned.sort_unstable();
    if chosen.nodes.iter().map(|node| node.id).ne(planned) {
        return Err(stale(plan.item.run, "a node of it was removed and joined again"));
    }
    Ok(Chosen { selector: plan.selector.clone(), ..chosen })
}

/// The documents that were planned, which must still be the newest of their names.
async fn documents(
    client: &Client,
    plan: &RunView,
    profile: Option<&Name>,
) -> Result<(Shown<Procedure>, Shown<Profile>), Failure> {
    let run = plan.item.run;
    if plan.procedure_revision.is_none() {
        return Err(Failure::usage(format!("plan {run} is of a single task"))
            .fix("fleetctl run task carries it out; what changes is asked before"));
    }
    let name: Name = plan.item.procedure.parse().map_err(|_| stale(run, "its procedure has no name"))?;
    let procedure = order::procedure(client, &name).await?;
    if procedure.digest() != plan.procedure_digest {
        return Err(stale(run, &format!("procedure \"{name}\" was applied again since")));
    }
    let name = profile.unwrap_or(&procedure.document.profile).clone();
    let profile = order::profile(client, &name).await?;
    if profile.digest() != plan.profile_digest {
        let why = format!("profile \"{name}\" was applied again since, or it was planned with another one");
        return Err(stale(run, &why));
    }
    Ok((procedure, profile))
}

fn stale(run: RunId, why: &str) -> Failure {
    Failure::new(ExitCode::Conflict, "plan-stale", format!("plan {run} cannot be started: {why}"))
        .fix("plan again, look at the plan, then start that one")
}
