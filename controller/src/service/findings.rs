//! Which advisory concerns which node: matched after an import and when a node's packages changed, away from the threads
//! that serve; and when each finding was seen first, kept so that nothing moves a clock.
//!
//! Started by the program. What fails for one node is told and tried again with the next news; the others go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_advisories::clock::Start;
use fleet_types::id::NodeId;
use fleet_types::time::Timestamp;
use fleet_types::view::FixState;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::matcher::Matcher;
use super::{advisories, packages, patches};
use crate::context::Context;
use crate::error::Result;
use crate::fleet::findings::{Due, Found, NodeFindings};
use crate::repo::advisories::{self as kept, StartRecord, StartsRecord};

/// Nodes whose packages are in memory at a time: 170 bytes a package, 50 MiB for nodes of 600.
const AT_ONCE: usize = 500;
/// Changes gather for so long: a wave of upgrades is matched together.
const GATHER: Duration = Duration::from_millis(200);
/// Deadlines come without news: counted anew as often.
const COUNT_EVERY: Duration = Duration::from_mins(1);
/// An advisory that a node does not have any more is remembered so long.
const REMEMBER: Duration = Duration::from_hours(24 * 365);

/// Runs until it is told to stop.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let work = async {
        if let Err(error) = advisories::load(&context).await {
            tracing::error!("the advisories cannot be read; import them again: {error}");
            let damaged = BTreeMap::from([("all".to_owned(), error.to_string())]);
            context.memory.findings.set_advisories(Arc::default(), damaged);
        }
        let mut matcher = None;
        loop {
            // Registered before looking, so that news between look and wait are not missed.
            let news = context.memory.findings.news.notified();
            if let Some(due) = context.memory.findings.take_due() {
                tracing::debug!(all = due.all, nodes = due.nodes.len(), "findings are looked for");
                if let Err(error) = match_with(&context, &mut matcher, &due).await {
                    // A thread that is gone is started anew.
                    matcher = None;
                    tracing::error!(
                        "findings cannot be told, they are looked for again in a minute: {error}"
                    );
                    context.memory.findings.due_again(due);
                }
            }
            context.memory.findings.set_deadlines(patches::count(&context).await);
            // Woken by news, or to count again.
            if timeout(COUNT_EVERY, news).await.is_ok() {
                timeout(GATHER, std::future::pending::<()>()).await.ok();
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

async fn match_with(context: &Context, matcher: &mut Option<Matcher>, due: &Due) -> Result<()> {
    let matcher = match matcher {
        Some(matcher) => matcher,
        None => matcher.insert(Matcher::start()?),
    };
    match_due(context, matcher, due).await
}

/// Matches what is due.
pub async fn match_due(context: &Context, matcher: &Matcher, due: &Due) -> Result<()> {
    let nodes: Vec<NodeId> =
        if due.all { context.memory.node_cache.ids(|_| true) } else { due.nodes.iter().copied().collect() };
    for some in nodes.chunks(AT_ONCE) {
        let mut inputs = Vec::new();
        for node in some {
            match packages::of_node(context, *node).await {
                Ok(Some((record, list))) => inputs.push((*node, record.state, list)),
                Ok(None) => context.memory.findings.forget(*node),
                Err(error) => {
                    tracing::error!(%node, "the packages of a node cannot be read: {error}");
                    let unknown = vec!["its list of packages cannot be read by the controller".to_owned()];
                    context.memory.findings.put(*node, NodeFindings { found: Vec::new(), unknown });
                }
            }
        }
        for (node, findings) in matcher.all(Arc::clone(&due.set), inputs).await? {
            // Removed meanwhile.
            if context.memory.node_cache.get(node).is_none() {
                context.memory.findings.forget(node);
                continue;
            }
            let findings = with_starts(context, node, findings).await?;
            context.memory.findings.put(node, findings);
        }
    }
    Ok(())
}

/// Puts in when each was seen first, and keeps what is new of that.
async fn with_starts(context: &Context, node: NodeId, mut findings: NodeFindings) -> Result<NodeFindings> {
    let now = context.storage.clock.now();
    let before = kept::first_seen(&context.storage.repo, node).await?;
    let after = advance(&before, &findings.found, now);
    if after != before {
        kept::keep_first_seen(&context.storage.audited, node, &after).await?;
    }
    for found in &mut findings.found {
        if let Some(start) = after.starts.get(&found.about.id) {
            let StartRecord { published, available, found: seen, .. } = *start;
            found.start = Start { published, available, found: seen };
        }
    }
    Ok(findings)
}

/// What is kept after a match. Instants only ever become earlier; what is gone stays for a while.
fn advance(before: &StartsRecord, found: &[Found], now: Timestamp) -> StartsRecord {
    let mut starts: BTreeMap<String, StartRecord> = before.starts.clone();
    for start in starts.values_mut() {
        start.gone = start.gone.or(Some(now));
    }
    for one in found {
        let none = StartRecord { published: None, available: None, found: now, gone: None };
        let start = starts.entry(one.about.id.clone()).or_insert(none);
        start.gone = None;
        start.published = [start.published, one.about.published].into_iter().flatten().min();
        // What is installed was in an archive before.
        let can_be_had = !matches!(one.is, FixState::FixNotInArchive | FixState::NoFix);
        if can_be_had {
            start.available = start.available.or(Some(now));
        }
    }
    starts.retain(|_, start| start.gone.is_none_or(|gone| now.since(gone) < REMEMBER));
    StartsRecord { starts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::findings::About;

    fn found(id: &str, is: FixState, published: Option<i64>) -> Found {
        let published = published.map(Timestamp::clamped);
        Found {
            about: Arc::new(About {
                id: id.to_owned(),
                cves: vec![],
                summary: String::new(),
                score: None,
                exploited: false,
                published,
            }),
            package: "p".to_owned(),
            version: "1".to_owned(),
            is,
            stands: String::new(),
            why: String::new(),
            start: Start { published, available: None, found: Timestamp::clamped(0) },
        }
    }

    #[test]
    fn z08_no_import_and_no_step_back_moves_a_clock() {
        let at = Timestamp::clamped;
        let first = advance(&StartsRecord::default(), &[found("A", FixState::NoFix, Some(50))], at(100));
        assert_eq!((first.starts["A"].found, first.starts["A"].available), (at(100), None));
        let fixed = advance(&first, &[found("A", FixState::FixInArchive, Some(70))], at(200));
        assert_eq!((fixed.starts["A"].available, fixed.starts["A"].published), (Some(at(200)), Some(at(50))));
        let again = advance(&fixed, &[found("A", FixState::FixInArchive, None)], at(250));
        assert_eq!(again, fixed, "the same once more writes nothing");
        let gone = advance(&fixed, &[], at(300));
        assert_eq!(gone.starts["A"].gone, Some(at(300)));
        assert_eq!(advance(&gone, &[], at(400)), gone);
        let back = advance(&gone, &[found("A", FixState::FixInArchive, Some(50))], at(500));
        assert_eq!(back, fixed);
        let long = at(300).plus(REMEMBER);
        assert!(advance(&gone, &[], long).starts.is_empty());
    }
}
