//! The text of every key. A key is built here and nowhere else.
//!
//! Ids are written in their canonical text, so that keys can be read by people and sort as ids do: run ids
//! and version 7 UUIDs by time.

use fleet_rollout::{Place, Scope};
use fleet_store::{Key, LogName, StoreError};
use fleet_types::digest::Digest;
use fleet_types::id::{NodeId, OperatorId, RecordId, RunId};
use fleet_types::time::Timestamp;

type Made = Result<Key, StoreError>;

fn key(text: String) -> Made {
    Key::new(text.into_bytes())
}

/// The fleet's own record.
pub fn fleet() -> Made {
    key("meta/fleet".to_owned())
}

/// The newest trust bundle, an object.
pub fn trust_bundle() -> Made {
    key("meta/trust-bundle".to_owned())
}

/// The tree over the audit log, as far as it was worked out.
pub fn audit_tree() -> Made {
    key("meta/audit-tree".to_owned())
}

/// Prefix of all node records.
pub const NODES: &str = "node/";
/// A node's record: what operators assigned, and its identity.
pub fn node(id: NodeId) -> Made {
    key(format!("{NODES}{id}"))
}

/// A node's name, pointing to its id: makes names unique.
pub fn node_name(name: &str) -> Made {
    key(format!("node-name/{name}"))
}

/// What was seen of a node; written at connects and when a link ends.
pub fn seen(id: NodeId) -> Made {
    key(format!("seen/{id}"))
}

/// Prefix of the nodes that were removed.
pub const REMOVED_NODES: &str = "removed-node/";
/// A node that was removed.
pub fn removed_node(id: NodeId) -> Made {
    key(format!("{REMOVED_NODES}{id}"))
}

/// A node's newest health.
pub fn health(id: NodeId) -> Made {
    key(format!("health/{id}"))
}

/// When a controller was last known to be up.
pub fn alive() -> Made {
    key("meta/alive".to_owned())
}

/// A node's facts, an object.
pub fn facts(id: NodeId) -> Made {
    key(format!("facts/{id}"))
}

/// Prefix of all join tokens.
pub const JOIN_TOKENS: &str = "join-token/";
/// A join token by its public id.
pub fn join_token(id: &str) -> Made {
    key(format!("{JOIN_TOKENS}{id}"))
}

/// Prefix of all invites.
pub const INVITES: &str = "invite/";
/// An operator's invite by its public id.
pub fn invite(id: &str) -> Made {
    key(format!("{INVITES}{id}"))
}

/// Prefix of all operator records.
pub const OPERATORS: &str = "operator/";
/// An operator's record.
pub fn operator(id: OperatorId) -> Made {
    key(format!("{OPERATORS}{id}"))
}

/// An operator's name, pointing to their id.
pub fn operator_name(name: &str) -> Made {
    key(format!("operator-name/{name}"))
}

/// A signed document or request by digest: JSON of its envelope, an object.
pub fn content(digest: &Digest) -> Made {
    key(format!("content/{digest}"))
}

/// The TOML source of a document by digest, an object.
pub fn source(digest: &Digest) -> Made {
    key(format!("source/{digest}"))
}

/// Prefix of the newest revisions of all documents.
pub const DOCUMENT_HEADS: &str = "document-head/";
/// The newest revision of a document.
pub fn document_head(kind: &str, name: &str) -> Made {
    key(format!("{DOCUMENT_HEADS}{kind}/{name}"))
}

/// Prefix of the newest revisions of the documents of one kind.
pub fn document_heads_of(kind: &str) -> String {
    format!("{DOCUMENT_HEADS}{kind}/")
}

/// One revision of a document.
pub fn document_revision(kind: &str, name: &str, revision: u32) -> Made {
    key(format!("document/{kind}/{name}/{revision:010}"))
}

/// Prefix of all runs, oldest first.
pub const RUNS: &str = "run/";
/// A run.
pub fn run(id: RunId) -> Made {
    key(format!("{RUNS}{id}"))
}

/// The run at the end of a key, behind a prefix; `None` when the key is of another shape.
pub fn run_in(key: &Key, prefix: &str) -> Option<RunId> {
    std::str::from_utf8(key.as_bytes().strip_prefix(prefix.as_bytes())?).ok()?.parse().ok()
}

/// Prefix of the runs by the controller's time of their start. Their ids hold the operator's time, which may be
/// wrong, and are random within a second. Whoever removes a run removes its entry here.
pub const RUNS_BY_TIME: &str = "run-by-time/";
/// Index: a run by the time when it was started.
pub fn run_by_time(started: Timestamp, id: RunId) -> Made {
    key(format!("{RUNS_BY_TIME}{:014}/{id}", started.as_millis()))
}

/// Says that every run of the store has its entry by time.
pub fn runs_by_time_made() -> Made {
    key("meta/runs-by-time".to_owned())
}

/// The entry by time whose key is `text` behind the prefix, as callers hold the place where a page ended.
pub fn run_by_time_at(text: &str) -> Option<Key> {
    let (started, id) = text.split_once('/')?;
    let (started, id) = (started.parse().ok()?, id.parse().ok()?);
    run_by_time(Timestamp::clamped(started), id).ok()
}

/// Run and page mark of an entry by time.
pub fn run_by_time_in(key: &Key) -> Option<(RunId, String)> {
    let text = std::str::from_utf8(key.as_bytes().strip_prefix(RUNS_BY_TIME.as_bytes())?).ok()?;
    Some((text.split_once('/')?.1.parse().ok()?, text.to_owned()))
}

/// Prefix of the runs that have not ended: what the runner reads at start.
pub const OPEN_RUNS: &str = "open-run/";
/// Marks a run that has not ended.
pub fn open_run(id: RunId) -> Made {
    key(format!("{OPEN_RUNS}{id}"))
}

/// Prefix of all jobs, run by run.
pub const JOBS: &str = "job/";
/// Prefix of the jobs of a run.
pub fn jobs_of(run: RunId) -> String {
    format!("{JOBS}{run}/")
}

/// The run of a job's key.
pub fn run_of_job(key: &Key) -> Option<RunId> {
    let text = std::str::from_utf8(key.as_bytes().strip_prefix(JOBS.as_bytes())?).ok()?;
    text.split_once('/')?.0.parse().ok()
}

/// A place behind all jobs of a run.
pub fn behind_jobs_of(run: RunId) -> Made {
    key(format!("{JOBS}{run}0"))
}

/// A job.
pub fn job(run: RunId, node: NodeId) -> Made {
    key(format!("{}{node}", jobs_of(run)))
}

/// Prefix of a node's jobs by time of their run.
pub fn node_jobs(node: NodeId) -> String {
    format!("node-job/{node}/")
}

/// Index: a node's part in a run.
pub fn node_job(node: NodeId, run: RunId) -> Made {
    key(format!("{}{run}", node_jobs(node)))
}

/// Prefix of what all nodes should be working on.
pub const INBOXES: &str = "inbox/";
/// Prefix of what a node should be working on.
pub fn inbox(node: NodeId) -> String {
    format!("{INBOXES}{node}/")
}

/// Node and run of an entry below [`INBOXES`].
pub fn inbox_entry_in(key: &Key) -> Option<(NodeId, RunId)> {
    let text = std::str::from_utf8(key.as_bytes().strip_prefix(INBOXES.as_bytes())?).ok()?;
    let (node, run) = text.split_once('/')?;
    Some((node.parse().ok()?, run.parse().ok()?))
}

/// One entry of a node's inbox.
pub fn inbox_entry(node: NodeId, run: RunId) -> Made {
    key(format!("{}{run}", inbox(node)))
}

/// Prefix of all that is held.
pub const HOLDS: &str = "hold/";
/// Says that every job in flight that was offered before there were holds has its own.
pub fn pair_holds_made() -> Made {
    key("meta/pair-holds-made".to_owned())
}

/// The hold of a pair, or of a place of a site or of the fleet: there while a job may be changing its node.
pub fn hold(place: &Place) -> Made {
    let number = place.number;
    key(match &place.scope {
        Scope::Pair(pair) => format!("{HOLDS}pair/{pair}"),
        Scope::Site(site) => format!("{HOLDS}site/{site}/{number:010}"),
        Scope::Fleet => format!("{HOLDS}fleet/{number:010}"),
    })
}

/// What is held by a key below [`HOLDS`]; `None` when the key is of another shape.
pub fn place_in(key: &Key) -> Option<Place> {
    let text = std::str::from_utf8(key.as_bytes().strip_prefix(HOLDS.as_bytes())?).ok()?;
    let (kind, rest) = text.split_once('/')?;
    let (scope, number) = match kind {
        "pair" => return Some(Place::pair(rest.to_owned())),
        "site" => rest.rsplit_once('/').map(|(site, number)| (Scope::Site(site.to_owned()), number))?,
        "fleet" => (Scope::Fleet, rest),
        _ => return None,
    };
    Some(Place { scope, number: number.parse().ok()? })
}

/// Prefix of all reports, node by node and chain by chain.
pub const REPORTS: &str = "report/";
/// Prefix of the reports of one chain of a node. The first chain has no number, as stores had it before there were
/// others.
pub fn reports_of(node: NodeId, chain: u32) -> String {
    match chain {
        0 => format!("{REPORTS}{node}/"),
        chain => format!("{REPORTS}{node}/chain-{chain:010}/"),
    }
}

/// A node's report by its number in a chain, an object.
pub fn report(node: NodeId, chain: u32, sequence: u64) -> Made {
    key(format!("{}{sequence:020}", reports_of(node, chain)))
}

/// Node and chain of the report that a key below [`REPORTS`] belongs to.
pub fn chain_in(key: &Key) -> Option<(NodeId, u32)> {
    let mut parts = key.as_bytes().strip_prefix(REPORTS.as_bytes())?.split(|byte| *byte == b'/');
    let mut next = || std::str::from_utf8(parts.next()?).ok();
    let node = next()?.parse().ok()?;
    let chain = next()?.strip_prefix("chain-").map_or(Some(0), |number| number.parse().ok())?;
    Some((node, chain))
}

/// A place behind all reports of a chain, and before those of the next.
pub fn behind_chain(node: NodeId, chain: u32) -> Made {
    key(format!("{}:", reports_of(node, chain)))
}

/// A place behind the parts of a report, and before the next one.
pub fn behind_report(node: NodeId, chain: u32, sequence: u64) -> Made {
    key(format!("{}{sequence:020}:", reports_of(node, chain)))
}

/// The number of the report that a key of a chain, or of a part of a report, belongs to.
pub fn report_in(key: &Key, prefix: &str) -> Option<u64> {
    let number = key.as_bytes().strip_prefix(prefix.as_bytes())?.get(..20)?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Prefix of all backup archives, by node.
pub const BACKUPS: &str = "backup/";
/// Prefix of the archives of one node.
pub fn backups_of(node: NodeId) -> String {
    format!("{BACKUPS}{node}/")
}

/// What follows the prefix in the key of an archive: the place where a page ended, as callers hold it.
pub fn backup_cursor(key: &Key) -> Option<String> {
    let tail = key.as_bytes().strip_prefix(BACKUPS.as_bytes())?;
    String::from_utf8(tail.to_vec()).ok()
}

/// The key at which a page of archives ended.
pub fn backup_at(cursor: &str) -> Made {
    key(format!("{BACKUPS}{cursor}"))
}

/// An archive on a node.
pub fn backup(node: NodeId, made_ms: i64, sha256: &Digest) -> Made {
    key(format!("{BACKUPS}{node}/{made_ms:014}-{}", sha256.short()))
}

/// Prefix of all answers to idempotency keys, objects.
pub const IDEMPOTENCY: &str = "idempotency/";
/// An idempotency key of an operator.
pub fn idempotency(operator: OperatorId, text: &Digest) -> Made {
    key(format!("{IDEMPOTENCY}{operator}/{text}"))
}

/// Is it the head of such an answer, and none of the parts behind it?
pub fn is_idempotency_head(key: &Key) -> bool {
    key.as_bytes().split(|byte| *byte == b'/').count() == 3
}

/// The audit log.
pub fn audit_log() -> Result<LogName, StoreError> {
    LogName::new("audit/leaf")
}

/// Free text of an audit record, kept aside so that it can be erased.
pub fn audit_text(id: RecordId) -> Made {
    key(format!("audit-text/{id}"))
}
