//! `fleetctl audit verify`.

use std::time::Instant;

use fleet_types::view::AuditHead;
use serde::Serialize;

use super::log_check::{LogCheck, LogFault};
use super::report_keys::ReportKeys;
use crate::client::Client;
use crate::context::{AuditMark, Context};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Tone, units};
use crate::session::Session;

/// Records asked for at once; the stream is opened again after these.
const STRIDE: u64 = 10_000;

#[derive(Serialize)]
struct Verified {
    log: String,
    size: u64,
    root: String,
    as_of: fleet_types::time::Timestamp,
    seen_before: Option<u64>,
    report_signatures: Option<u64>,
    reports_without_key: Option<u64>,
    took_ms: u64,
}

/// Reads the whole log and checks it; exit code 12 when it is not whole.
pub async fn verify(session: &mut Session<'_>, with_reports: bool) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let context = session.context()?;
    let client = session.connect().await?;
    let seen = AuditMark::load(&context.audit_mark_file())?;
    let head = client.audit_head().await?;
    let mut keys = if with_reports { Some(ReportKeys::new(&client, context.fleet).await?) } else { None };
    let mark = read_log(&client, &context, head.clone(), seen.as_ref(), keys.as_mut()).await?;
    let seen_size = seen.and_then(|seen| seen.marks.last().map(|mark| mark.size));
    mark.save(&context.audit_mark_file())?;
    let verified = Verified {
        log: head.log.to_string(),
        size: head.size,
        root: head.root.to_string(),
        as_of: head.as_of,
        seen_before: seen_size,
        report_signatures: keys.as_ref().map(|keys| keys.checked),
        reports_without_key: keys.as_ref().map(|keys| keys.without_key),
        took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    session.print(&answer(&verified, &head, &session.times()))?;
    Ok(ExitCode::Done)
}

async fn read_log(
    client: &Client,
    context: &Context,
    head: AuditHead,
    seen: Option<&AuditMark>,
    mut keys: Option<&mut ReportKeys>,
) -> Result<AuditMark, Failure> {
    let size = head.size;
    let mut check = LogCheck::new(context.fleet, head, seen).map_err(|fault| broken(&fault))?;
    let mut next = 0;
    while next < size {
        let mut leaves = client.read_audit(next, size.min(next + STRIDE)).await?;
        let before = next;
        while let Some((index, bytes)) = leaves.next().await? {
            let record = check.push(index, &bytes).map_err(|fault| broken(&fault))?;
            next = index + 1;
            if let Some(keys) = keys.as_mut() {
                keys.check(client, &record).await?.map_err(|why| not_whole(&why))?;
            }
        }
        if next == before {
            // Nothing came although there should be more: `finish` names the missing record.
            break;
        }
    }
    check.finish().map_err(|fault| broken(&fault))
}

fn broken(fault: &LogFault) -> Failure {
    not_whole(&fault.to_string())
}

fn not_whole(why: &str) -> Failure {
    Failure::new(ExitCode::Verification, "audit-broken", why)
        .cause("the audit log is not whole: records were changed, removed or exchanged, or the store is damaged")
        .fix("keep this machine's contexts folder as evidence; compare with the controllers' mirror files and a backup")
}

fn answer(verified: &Verified, head: &AuditHead, times: &crate::render::Times) -> Answer {
    let answer = Answer::local("fleet/v1/audit-verification", verified).name(verified.root.clone());
    let grown = match verified.seen_before {
        Some(seen) => format!("it holds unchanged what was seen here before ({seen} records)"),
        None => "first check from this machine; from now on a rewritten log will show".to_owned(),
    };
    let mut answer = answer
        .block(Block::Line(format!(
            "checked {} records as of {}, root {}…, {}",
            verified.size,
            times.absolute(head.as_of),
            head.root.short(),
            units::milliseconds(verified.took_ms)
        )))
        .block(Block::Toned(Tone::Good, format!("log whole   {grown}")));
    if let (Some(checked), Some(without)) = (verified.report_signatures, verified.reports_without_key) {
        let unknown =
            if without == 0 { String::new() } else { format!(", {without} of nodes without a known key") };
        answer = answer.line(format!("{checked} report signatures hold{unknown}"));
    }
    answer
}
