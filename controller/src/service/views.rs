//! What operators see of the fleet: who they are, status, nodes, backups.

use fleet_types::id::Name;
use fleet_types::label::Selector;
use fleet_types::time::Timestamp;
use fleet_types::view::{Attention, NodeItem, NodeView, Page, Presence, Status, WhoAmI};

use super::caller::Operator;
use super::{hints, inventory, operators, reports, run_views, schedules};
use crate::context::{Context, Identities, Memory, Storage};
use crate::error::{ControllerError, Result};
use crate::fleet::node_cache::Known;
use crate::keyring::{self, Keyring, Notice};
use crate::repo::nodes::NodeState;

/// Lines of one section of the status.
const LINES: usize = 20;
/// Jobs shown with a node.
const NODE_JOBS: usize = 10;
/// Largest page.
pub const MAX_PAGE: usize = 500;

/// The page size asked for, within limits; 0 means 100.
pub fn page_size(asked: u32) -> usize {
    match asked {
        0 => 100,
        n => (n as usize).min(MAX_PAGE),
    }
}

/// Who the caller is.
pub fn who_am_i(storage: &Storage, identities: &Identities, caller: &Operator) -> WhoAmI {
    let record = &caller.record;
    let trust = identities.trust.get();
    WhoAmI {
        schema: "fleet/v1/whoami".to_owned(),
        operator: record.id,
        name: record.name.clone(),
        role: record.role,
        fleet: identities.fleet.fleet,
        fleet_name: identities.fleet.name.clone(),
        certificate_not_after: caller.certificate.not_after,
        content_key: record.content_key,
        content_key_listed: trust.0.content_key(&record.content_key.id()).is_some(),
        controller_version: env!("CARGO_PKG_VERSION").to_owned(),
        controller_time: storage.clock.now(),
    }
}

/// The fleet on one screen, from kept counts.
pub async fn status(context: &Context) -> Result<Status> {
    let now = context.storage.clock.now();
    let mut attention = authorities_that_end(&context.identities.keyring, now);
    attention.extend(operators::attention(context).await?);
    // Half of the lines: what ails nodes has its place, however many schedules have missed something.
    attention.extend(schedules::attention(context, LINES / 2).await?);
    attention.extend(context.memory.node_cache.attention(LINES).iter().map(attention_of));
    attention.truncate(LINES);
    Ok(Status {
        schema: "fleet/v1/status".to_owned(),
        fleet_name: context.identities.fleet.name.clone(),
        as_of: now,
        sites: context.memory.node_cache.sites(now),
        attention,
        active_runs: run_views::open(&context.storage, &context.memory, LINES).await?,
        deadlines: context.memory.findings.deadlines(),
    })
}

/// What is to be said about the ends of authorities: with one of them a whole role goes.
fn authorities_that_end(keyring: &Keyring, now: Timestamp) -> Vec<Attention> {
    let ends = keyring.ends().into_iter().filter(|(_, end)| keyring::notice(now, *end) != Notice::None);
    ends.map(|(role, end)| Attention {
        subject: format!("{role} authority"),
        message: keyring::about_end(role, now, end),
        command: "fleetctl status".to_owned(),
    })
    .collect()
}

fn attention_of(known: &Known) -> Attention {
    let name = known.record.name.to_string();
    let message = match (&known.record.state, known.presence, &known.health) {
        (NodeState::Held(hold), _, _) => hold.to_string(),
        (_, Presence::Offline | Presence::Stale, _) => match known.last_seen {
            Some(seen) => format!("{}, last seen {seen}", known.presence.as_str()),
            None => format!("{}, never seen", known.presence.as_str()),
        },
        _ if !known.safe_mode.is_empty() => format!("starts no changes: {}", known.safe_mode),
        (_, _, Some(health)) => {
            let s = if health.problems == 1 { "" } else { "s" };
            format!(
                "{} (score {}, {} problem{s}, seen {})",
                health.worst, health.score, health.problems, health.at
            )
        }
        _ => String::new(),
    };
    Attention { command: format!("fleetctl node show {name}"), subject: name, message }
}

/// A page of nodes in order of their names.
pub fn nodes(memory: &Memory, selector: &str, after: &str, limit: usize) -> Result<Page<NodeItem>> {
    let selector: Selector = selector.parse().map_err(|error| ControllerError::invalid("selector", error))?;
    let after: Option<Name> = if after.is_empty() {
        None
    } else {
        Some(after.parse().map_err(|error| ControllerError::invalid("after", error))?)
    };
    let items: Vec<NodeItem> =
        memory.node_cache.page(&selector, after.as_ref(), limit).iter().map(Known::item).collect();
    let next = (items.len() == limit).then(|| items.last().map(|item| item.name.to_string())).flatten();
    Ok(Page { schema: "fleet/v1/node-list".to_owned(), items, next })
}

/// A node by name, or an error that names the nearest one.
pub fn find(memory: &Memory, name: &str) -> Result<Known> {
    memory.node_cache.by_name(name).ok_or_else(|| {
        let meant = hints::of_names(memory, &[name.to_owned()]).pop();
        meant.map_or_else(|| no_node(name), |meant| no_node(name).fix(meant))
    })
}

/// There is no node of this name.
pub fn no_node(name: &str) -> ControllerError {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(128).collect();
    ControllerError::not_found("node", shown).fix("list them: fleetctl node list")
}

/// One node with its newest jobs and its newest report that measured something.
pub async fn node(storage: &Storage, memory: &Memory, name: &str) -> Result<NodeView> {
    let known = find(memory, name)?;
    let id = known.record.id;
    let records = inventory::newest_jobs(&storage.repo, id, NODE_JOBS).await?;
    let mut newest_report = None;
    for at in records.iter().filter_map(|job| job.report) {
        if let Some((report, _)) = reports::stored_report(storage, id, at.chain, at.sequence).await?
            && report.steps.iter().any(|step| !step.body.samples.is_empty())
        {
            newest_report = Some(report);
            break;
        }
    }
    let mut items = Vec::new();
    for job in records {
        let procedure = run_views::procedure_of(storage, job.run).await?;
        items.push(run_views::with_rollout(storage, memory, job, procedure));
    }
    Ok(NodeView {
        schema: "fleet/v1/node".to_owned(),
        facts: inventory::facts(storage, id).await?,
        report_key: known.record.report_key,
        certificate_not_after: known.record.certificates.end(),
        item: known.item(),
        jobs: items,
        newest_report,
    })
}
