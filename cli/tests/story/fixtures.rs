//! What the scripted controller shows: two nodes, one of them hostile in everything it says.

use fleet_types::audit::{Actor, AuditRecord, Decision, RECORD_VERSION};
use fleet_types::authority::Authority;
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, ControllerId, FleetId, Generation, JobId, NodeId, RecordId, RunId};
use fleet_types::job::{EndCause, JobState, Outcome};
use fleet_types::label::Labels;
use fleet_types::report::{
    BootSpan, Problem, REPORT_SCHEMA, Report, Sample, StepReport, StepState, TaskReport,
};
use fleet_types::request::Request;
use fleet_types::run::{RunState, Tally};
use fleet_types::severity::Severity;
use fleet_types::view::{
    Attention, BackupItem, CertificateItem, CertificateState, Health, JobItem, JobView, NodeItem, NodeView,
    Presence, RunItem, RunView, SiteStatus, Status,
};
use fleetctl::clock;
use uuid::Uuid;

/// What a node could send to play with the reader's terminal.
pub const HOSTILE: &str = "\u{1b}[2J\u{9b}31m\u{202e}gnp\u{2066}\r\nerror[fake]: x\u{7}\u{200b}";

pub fn is_harmless(text: &str) -> bool {
    !text.contains(|c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

pub fn node_id(n: u128) -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(n))
}

pub fn nodes() -> Vec<NodeItem> {
    let node = |n: u128, site: &str, presence| NodeItem {
        id: node_id(10 - n),
        name: format!("fw-{n}").parse().unwrap(),
        labels: Labels::new([("site".to_owned(), site.to_owned()), ("ha_group".to_owned(), "a".to_owned())])
            .unwrap(),
        presence,
        last_seen: Some(clock::now()),
        agent_version: "0.1.0".into(),
        policy_mode: "enforce".into(),
        health: Some(Health {
            score: 70,
            problems: 1,
            worst: HOSTILE.into(),
            unknown: 0,
            at: clock::now(),
            fresh_until: None,
        }),
        hold: None,
        safe_mode: String::new(),
    };
    vec![node(1, "fra1", Presence::Online), node(2, "ams2", Presence::Offline)]
}

pub fn node(item: NodeItem) -> NodeView {
    let job = job(RunId::from_number(5));
    NodeView {
        schema: "fleet/v1/node".into(),
        item,
        facts: None,
        report_key: None,
        certificate_not_after: Some(clock::now()),
        jobs: vec![job.item],
        newest_report: job.report,
    }
}

pub fn certificates() -> Vec<CertificateItem> {
    let item = |holder: &str, n: u128, state| CertificateItem {
        holder: holder.to_owned(),
        id: Uuid::from_u128(n),
        serial: "4f".repeat(16),
        not_after: Some(clock::now()),
        state,
    };
    vec![
        item("operator/ada", 3, CertificateState::InUse),
        item("node/fw-1", 9, CertificateState::InUse),
        item("node/fw-1", 9, CertificateState::Awaited),
        item("node/fw-2", 8, CertificateState::Revoked),
    ]
}

pub fn status() -> Status {
    Status {
        schema: "fleet/v1/status".into(),
        fleet_name: "example".parse().unwrap(),
        as_of: clock::now(),
        sites: vec![
            SiteStatus { site: "ams2".into(), nodes: 1, offline: 1, ..SiteStatus::default() },
            SiteStatus { site: "fra1".into(), nodes: 1, ok: 1, ..SiteStatus::default() },
        ],
        attention: vec![Attention {
            subject: "fw-2".into(),
            message: format!("offline; last words: {HOSTILE}"),
            command: "fleetctl node show fw-2".into(),
        }],
        active_runs: vec![],
        deadlines: None,
    }
}

fn outcomes(state: RunState) -> [Outcome; 2] {
    match state {
        RunState::Partly => [Outcome::Succeeded, Outcome::Failed],
        RunState::Failed => [Outcome::Failed, Outcome::Lost],
        RunState::Cancelled => [Outcome::Cancelled, Outcome::Cancelled],
        _ => [Outcome::Succeeded, Outcome::SucceededWithWarnings],
    }
}

pub fn run(request: &Request, state: RunState) -> RunView {
    let mut tally = Tally::new(request.nodes.count);
    if state.is_terminal() {
        outcomes(state).into_iter().take(request.nodes.count as usize).for_each(|outcome| tally.add(outcome));
    }
    RunView {
        schema: "fleet/v1/run".into(),
        item: RunItem {
            run: request.run,
            verb: request.verb,
            procedure: "look".into(),
            state,
            tally,
            started: clock::now(),
            ended: state.is_terminal().then(clock::now),
            started_by: "ada".into(),
            reason: request.reason.clone(),
        },
        selector: request.selector.clone(),
        authority: Authority::Request(Digest::of(b"request")),
        schedule: None,
        procedure_digest: request.procedure,
        profile_digest: request.profile,
        procedure_revision: Some(1),
        params: request.params.clone(),
        max_parallel: request.max_parallel,
        max_failures: request.max_failures,
        plan: None,
        policy: String::new(),
        rings: vec![],
        paused_because: String::new(),
        not_before: Some(request.not_before),
        not_after: request.not_after,
        skipped: vec![],
        skipped_count: 0,
        open: std::collections::BTreeMap::new(),
        stopped_because: String::new(),
    }
}

fn job_item(run: RunId, n: u128, state: JobState) -> JobItem {
    JobItem {
        run,
        node: node_id(10 - n),
        node_name: format!("fw-{n}").parse().unwrap(),
        procedure: "look".into(),
        attempt: Attempt(1),
        state,
        disconnected: false,
        blocked: vec![],
        took_ms: Some(1250),
        summary: format!("summary {HOSTILE}"),
        plan: None,
        late_report: None,
    }
}

pub fn jobs(run: RunId, state: RunState) -> Vec<JobItem> {
    if !state.is_terminal() {
        return vec![job_item(run, 1, JobState::Accepted), job_item(run, 2, JobState::Queued)];
    }
    let ended = |n: u128, outcome| job_item(run, n, JobState::ended(outcome, format!("reason {HOSTILE}")));
    let [first, second] = outcomes(state);
    vec![ended(1, first), ended(2, second)]
}

pub fn job(run: RunId) -> JobView {
    let item = jobs(run, RunState::Failed).remove(0);
    let step = StepReport {
        id: "probe".into(),
        title: HOSTILE.into(),
        action: "health.check".into(),
        state: StepState::Failed,
        cause: Some(EndCause::TimedOut),
        started: Some(clock::now()),
        took_ms: 20,
        tries: 1,
        output: None,
        output_kept: None,
        body: TaskReport {
            summary: HOSTILE.into(),
            problems: vec![Problem {
                severity: Severity::High,
                code: "disk_used".into(),
                subject: HOSTILE.into(),
                message: HOSTILE.into(),
                evidence: HOSTILE.into(),
                remedy: HOSTILE.into(),
            }],
            samples: vec![Sample {
                metric: HOSTILE.into(),
                subject: HOSTILE.into(),
                value: 1.5,
                unit: HOSTILE.into(),
            }],
            output_tail: HOSTILE.into(),
            ..TaskReport::default()
        },
    };
    let report = Report {
        schema: REPORT_SCHEMA.into(),
        job: JobId::first(run, item.node),
        attempt: Attempt(1),
        authority: Authority::Request(Digest::of(b"request")),
        sequence: 1,
        previous: None,
        new_chain: None,
        outcome: Outcome::Failed,
        cause: Some(EndCause::TimedOut),
        reason: HOSTILE.into(),
        started: clock::now(),
        ended: clock::now(),
        boot: BootSpan { id: String::new(), started_ms: Some(1), ended_ms: 2 },
        checkpoint: None,
        working_ms: 20,
        steps: vec![step],
        plan: None,
    };
    JobView {
        schema: "fleet/v1/job".into(),
        item,
        report: Some(report),
        report_digest: Some(Digest::of(b"report")),
    }
}

pub fn backups() -> Vec<BackupItem> {
    let backup = |n: u128| BackupItem {
        node: format!("fw-{n}").parse().unwrap(),
        backup: "config".into(),
        path: format!("/var/backups/{HOSTILE}/a-rather-long-name-of-an-archive-{n}.tar.gz"),
        size: 123_456,
        sha256: Digest::of(b"archive"),
        made: clock::now(),
        verified: n == 1,
        run: RunId::from_number(5),
        listed_in: None,
        copy: None,
    };
    vec![backup(1), backup(2)]
}

/// The stored bytes of an audit record.
pub fn audit_record(fleet: FleetId, index: u64, action: &str) -> Vec<u8> {
    let record = AuditRecord {
        version: RECORD_VERSION,
        log: fleet,
        index,
        id: RecordId::from_uuid(Uuid::from_u128(u128::from(index) + 1)),
        time: clock::now(),
        controller: ControllerId::from_uuid(Uuid::from_u128(2)),
        generation: Generation(1),
        actor: Actor {
            role: "operator".into(),
            id: String::new(),
            name: "ada".into(),
            certificate: None,
            address: "127.0.0.1".into(),
        },
        action: action.into(),
        object: "run/r-0000000005".into(),
        decision: Decision::Allowed,
        reason: String::new(),
        idempotency_key: None,
        subject_digest: None,
        job: None,
        attempt: None,
        outcome: None,
        nodes: None,
        detail: std::collections::BTreeMap::new(),
        text: None,
        report: None,
        report_signature: None,
    };
    canonical::to_vec(&record).unwrap()
}
