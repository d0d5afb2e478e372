//! What must be patched, by when: findings and their deadlines, as operators see them.
//!
//! Reads what `findings` has put into memory; deadlines are worked out for the instant of the question. The sums over a
//! fleet are worked out away from the threads that serve.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_advisories::clock::{
    Deadline, Lane, Rules, StartedBy, Verdict, deadline, lane, mirror_lag, verdict,
};
use fleet_types::id::NodeId;
use fleet_types::label::Selector;
use fleet_types::time::Timestamp;
use fleet_types::view::{
    DeadlineState, Deadlines, FixState, Page, PatchItem, PatchNode, PatchSla, PatchView, SlaNode,
};

use super::finding_holds::{FindingHolds, Held, NodeHolds};
use super::packages::is_fresh;
use super::response_times::ResponseTimes;
use crate::context::Context;
use crate::error::{ControllerError, Result};
use crate::fleet::findings::{About, Found, NodeFindings};
use crate::fleet::node_cache::Known;

/// Nodes of one answer; who wants others narrows it down.
const MAX_NODES: usize = 1000;

/// A node with its findings.
pub(super) struct Node {
    pub(super) known: Known,
    pub(super) findings: Arc<NodeFindings>,
    /// Is what it said last fresh enough?
    is_fresh: bool,
    /// The response times that count for it.
    rules: Rules,
    /// The rollout policies that say so.
    policies: Vec<String>,
    /// What may stay on it.
    holds: NodeHolds,
}

/// Findings and how their deadlines stand.
pub(super) struct Judged<'a> {
    pub(super) found: &'a Found,
    lane: Lane,
    deadline: Option<Deadline>,
    pub(super) state: DeadlineState,
    held: Option<&'a Arc<Held>>,
}

/// The nodes of a selection, with all that is known of their findings.
pub(super) async fn nodes(context: &Context, selector: &str) -> Result<Vec<Node>> {
    let selector: Selector = selector.parse().map_err(|error| ControllerError::invalid("selector", error))?;
    let times = ResponseTimes::read(&context.storage).await?;
    let now = context.storage.clock.now();
    let holds = FindingHolds::read(&context.storage.repo, now).await?;
    let all = context.memory.findings.all();
    let silent = Arc::new(NodeFindings {
        found: Vec::new(),
        unknown: vec!["it has not said what packages it has".to_owned()],
    });
    let of = |id: NodeId| {
        let known = context.memory.node_cache.get(id)?;
        let heard = context.memory.packages.heard(id);
        let is_fresh = heard.is_some_and(|heard| is_fresh(heard, now));
        let findings = Arc::clone(all.get(&id).unwrap_or(&silent));
        let (name, labels) = (&known.record.name, &known.record.labels);
        if !selector.matches(name, labels) {
            return None;
        }
        let (rules, policies) = times.of(name, labels);
        let holds = holds.of(name, labels);
        Some(Node { known, findings, is_fresh, rules, policies, holds })
    };
    Ok(context.memory.node_cache.ids(|_| true).into_iter().filter_map(of).collect())
}

/// `cve` is the one that is asked about; without it the finding stands as the worst of them.
pub(super) fn judge<'a>(found: &'a Found, node: &'a Node, cve: Option<&str>, now: Timestamp) -> Judged<'a> {
    let (rules, is_fresh) = (&node.rules, node.is_fresh);
    let held = match cve {
        Some(cve) => node.holds.of_cve(&found.about, cve),
        None => node.holds.of_all(&found.about),
    };
    let About { score, exploited, .. } = &*found.about;
    let lane = lane(score.as_ref().map(|(score, ..)| *score), *exploited, rules);
    let deadline = rules.tier(lane).map(|tier| deadline(&found.start, tier, rules, now));
    let state = match verdict(deadline.as_ref(), held.map(|held| held.until()), is_fresh, now) {
        Verdict::Late { .. } => DeadlineState::Late,
        Verdict::AtRisk { .. } => DeadlineState::AtRisk,
        Verdict::Unknown => DeadlineState::Unknown,
        Verdict::Held { .. } => DeadlineState::Held,
        Verdict::InTime { .. } => DeadlineState::InTime,
        Verdict::Nothing => DeadlineState::Nothing,
    };
    Judged { found, lane, deadline, state, held }
}

impl Judged<'_> {
    /// When it must be gone.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.deadline.as_ref().map(|deadline| deadline.due)
    }

    fn count(&self, into: &mut Deadlines, now: Timestamp) {
        into.count(self.state);
        let ahead = self.due().filter(|due| *due > now);
        into.next_due = [into.next_due, ahead].into_iter().flatten().min();
    }

    fn lane_word(&self) -> &'static str {
        match self.lane {
            Lane::Scored { tier, .. } => tier.as_str(),
            Lane::Unscored { .. } => "unknown",
            Lane::Nothing => "none",
        }
    }
}

/// What a finding is listed under: each of its CVEs, else its advisory.
pub(super) fn ids(about: &About) -> Vec<String> {
    if about.cves.is_empty() {
        return vec![about.id.clone()];
    }
    about.cves.iter().map(ToString::to_string).collect()
}

/// All findings by CVE, the worst first.
fn items(nodes: &[Node], now: Timestamp) -> Vec<PatchItem> {
    let mut items: BTreeMap<String, PatchItem> = BTreeMap::new();
    for node in nodes {
        // Two advisories of one CVE on one node are one; the one that ends first counts.
        let mut own: BTreeMap<String, Judged<'_>> = BTreeMap::new();
        for found in &node.findings.found {
            for id in ids(&found.about) {
                let judged = judge(found, node, Some(&id), now);
                let is_first = own.get(&id).is_none_or(|former| {
                    (judged.state, judged.due().is_none(), judged.due())
                        < (former.state, former.due().is_none(), former.due())
                });
                if is_first {
                    own.insert(id, judged);
                }
            }
        }
        for (id, judged) in own {
            let about = &judged.found.about;
            let item = items.entry(id.clone()).or_insert_with(|| PatchItem {
                id,
                summary: about.summary.clone(),
                score: about.score.as_ref().map(|(score, ..)| score.to_string()),
                score_by: about.score.as_ref().map(|(_, by, _)| by.clone()).unwrap_or_default(),
                severity: judged.lane_word().to_owned(),
                exploited: about.exploited,
                nodes: 0,
                fix_in_archive: 0,
                without_fix: 0,
                pending: 0,
                deadlines: Deadlines::default(),
                due: None,
            });
            item.nodes += 1;
            match judged.found.is {
                FixState::FixInArchive => item.fix_in_archive += 1,
                FixState::FixNotInArchive | FixState::NoFix => item.without_fix += 1,
                FixState::RebootPending | FixState::ServicesRunOldFiles => item.pending += 1,
            }
            item.due = [item.due, judged.due()].into_iter().flatten().min();
            judged.count(&mut item.deadlines, now);
        }
    }
    let mut items: Vec<PatchItem> = items.into_values().collect();
    items.sort_by(|a, b| (a.due.is_none(), a.due, &a.id).cmp(&(b.due.is_none(), b.due, &b.id)));
    items
}

/// A page of what must be patched: by CVE, the earliest end first.
pub async fn list(context: &Context, selector: &str, after: &str, limit: usize) -> Result<Page<PatchItem>> {
    let (nodes, now) = (nodes(context, selector).await?, context.storage.clock.now());
    let from: usize = if after.is_empty() {
        0
    } else {
        after.parse().map_err(|error| ControllerError::invalid("after", error))?
    };
    let mut items = aside(move || items(&nodes, now)).await?;
    let next = (items.len() > from.saturating_add(limit)).then(|| (from + limit).to_string());
    items.drain(..from.min(items.len()));
    items.truncate(limit);
    Ok(Page { schema: "fleet/v1/patch-list".to_owned(), items, next })
}

/// One CVE, or advisory, with its nodes.
pub async fn show(context: &Context, id: &str, selector: &str) -> Result<PatchView> {
    let (mut nodes, now) = (nodes(context, selector).await?, context.storage.clock.now());
    let wanted = id.to_owned();
    let is_meant = move |found: &Found| found.about.id == wanted || ids(&found.about).contains(&wanted);
    nodes.retain(|node| node.findings.found.iter().any(&is_meant));
    let shown: String = id.chars().filter(|c| !c.is_control()).take(80).collect();
    let missing = || {
        ControllerError::not_found("finding", &shown)
            .fix("no node has it, as far as is known: fleetctl patch list, and fleetctl patch sla for what is not known")
    };
    let wanted = id.to_owned();
    let view = aside(move || {
        let mut advisories: Vec<String> = Vec::new();
        let mut lines: Vec<PatchNode> = Vec::new();
        for node in &nodes {
            for found in node.findings.found.iter().filter(|found| is_meant(found)) {
                advisories.push(found.about.id.clone());
                let cve = (found.about.id != wanted).then_some(wanted.as_str());
                lines.push(line(node, &judge(found, node, cve, now), now));
            }
        }
        advisories.sort_unstable();
        advisories.dedup();
        lines.sort_by(|a, b| (a.due.is_none(), a.due, &a.node).cmp(&(b.due.is_none(), b.due, &b.node)));
        lines.truncate(MAX_NODES);
        let all = items(&nodes, now);
        // Asked by an advisory's id, it is shown under its first CVE.
        let item = all.iter().find(|item| item.id == wanted).or_else(|| {
            let first =
                nodes.iter().flat_map(|node| &node.findings.found).find(|found| found.about.id == wanted)?;
            all.iter().find(|item| ids(&first.about).contains(&item.id))
        });
        item.cloned().map(|item| PatchView {
            schema: "fleet/v1/patch".to_owned(),
            as_of: now,
            item,
            advisories,
            nodes: lines,
        })
    })
    .await?;
    view.ok_or_else(missing)
}

fn line(node: &Node, judged: &Judged<'_>, now: Timestamp) -> PatchNode {
    let found = judged.found;
    let is_missing = found.is == FixState::FixNotInArchive;
    PatchNode {
        node: node.known.record.name.clone(),
        advisory: found.about.id.clone(),
        package: found.package.clone(),
        version: found.version.clone(),
        is: found.is,
        stands: found.stands.clone(),
        why: found.why.clone(),
        deadline: judged.state,
        started_by: match judged.deadline.as_ref().map(|deadline| deadline.by) {
            Some(StartedBy::Published) => "published",
            Some(StartedBy::Available) => "available",
            Some(StartedBy::Found) => "found",
            None => "",
        }
        .to_owned(),
        started: judged.deadline.as_ref().map(|deadline| deadline.started),
        due: judged.due(),
        archive_lags_since: mirror_lag(found.start.published, is_missing, &node.rules, now)
            .map(|lag| lag.published),
        times_of: node.policies.clone(),
        held: judged.held.map(|held| held.by()),
    }
}

/// How deadlines stand, in all and a node.
pub async fn sla(context: &Context, selector: &str) -> Result<PatchSla> {
    let (nodes, now) = (nodes(context, selector).await?, context.storage.clock.now());
    let damaged = context.memory.findings.advisories().1;
    let unread: Vec<String> = damaged
        .keys()
        .map(|source| format!("advisories cannot be read, import them again: source {source}"))
        .collect();
    aside(move || {
        let (mut all, mut lines) = (Deadlines::default(), Vec::new());
        for node in &nodes {
            let line = sla_of(node, &unread, now, &mut all);
            if !line.next.is_empty() || !line.unknown.is_empty() {
                lines.push(line);
            }
        }
        lines.sort_by(|a, b| {
            let worst = |line: &SlaNode| (line.deadlines.late == 0, line.due.is_none(), line.due);
            worst(a).cmp(&worst(b)).then_with(|| a.node.cmp(&b.node))
        });
        let count = lines.len() as u64;
        lines.truncate(MAX_NODES);
        PatchSla { schema: "fleet/v1/patch-sla".to_owned(), as_of: now, deadlines: all, nodes: lines, count }
    })
    .await
}

fn sla_of(node: &Node, unread: &[String], now: Timestamp, all: &mut Deadlines) -> SlaNode {
    let mut line = SlaNode {
        node: node.known.record.name.clone(),
        site: node.known.record.labels.site().to_owned(),
        deadlines: Deadlines::default(),
        next: String::new(),
        due: None,
        unknown: unread.iter().chain(&node.findings.unknown).cloned().collect(),
    };
    for found in &node.findings.found {
        let judged = judge(found, node, None, now);
        judged.count(&mut line.deadlines, now);
        judged.count(all, now);
        if let Some(due) = judged.due()
            && line.due.is_none_or(|former| due < former)
        {
            line.due = Some(due);
            line.next = ids(&found.about).swap_remove(0);
        }
    }
    if !node.is_fresh && line.unknown.is_empty() {
        line.unknown.push("it has not said for a day what packages it has".to_owned());
    }
    all.nodes_unknown += u64::from(!line.unknown.is_empty());
    line
}

/// How deadlines stand in all, for the status; none where no advisories are known.
pub async fn count(context: &Context) -> Option<Deadlines> {
    let (set, damaged) = context.memory.findings.advisories();
    if set.entries() == 0 && damaged.is_empty() {
        return None;
    }
    match sla(context, "").await {
        Ok(sla) => Some(sla.deadlines),
        Err(error) => {
            tracing::error!("deadlines cannot be counted: {error}");
            None
        }
    }
}

/// How many nodes of a selection have this CVE, or what this advisory says.
pub fn nodes_with(context: &Context, id: &str, selector: &Selector) -> u32 {
    let is_meant = |node: &NodeId| {
        let known = context.memory.node_cache.get(*node);
        known.is_some_and(|known| selector.matches(&known.record.name, &known.record.labels))
    };
    let has = |about: &About| about.id == id || ids(about).iter().any(|cve| cve == id);
    let all = context.memory.findings.all();
    let with = all.iter().filter(|(_, findings)| findings.found.iter().any(|found| has(&found.about)));
    u32::try_from(with.filter(|(node, _)| is_meant(node)).count()).unwrap_or(u32::MAX)
}

/// Works it out away from the threads that serve.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(ControllerError::internal)
}
