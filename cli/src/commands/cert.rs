//! `fleetctl cert list|revoke`: whose certificates there are, and shutting a holder out for good.

use fleet_types::view::{CertificateItem, CertificateState, Page};

use super::{paging, watching};
use crate::confirm::{Danger, confirm};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Cell, Column, Table, Times, Tone};
use crate::session::Session;

/// Most certificates of one list: two of each node of the largest request.
const MAX_LISTED: usize = 2 * fleet_types::request::MAX_NODES;

/// Lists certificates.
pub async fn list(session: &mut Session<'_>) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    watching::print(session, async |session| {
        let page = paging::all("fleet/v1/certificate-list", MAX_LISTED, async |after| {
            client.certificates(after).await
        });
        Ok(list_answer(&page.await?, &session.times()))
    })
    .await
}

fn list_answer(page: &Page<CertificateItem>, times: &Times) -> Answer {
    let mut table = Table::new(&[
        Column::whole("HOLDER"),
        Column::whole("UNTIL"),
        Column::whole("STATE"),
        Column::whole("SERIAL"),
        Column::whole("ID").wide(),
    ]);
    for item in &page.items {
        table.row([
            item.holder.as_str().into(),
            times.show_optional(item.not_after).into(),
            state(item.state),
            item.serial.as_str().into(),
            item.id.to_string().into(),
        ]);
    }
    let names = page.items.iter().map(|item| item.holder.clone());
    Answer::of(page).names(names).table(table, "no certificates")
}

fn state(state: CertificateState) -> Cell {
    let tone = match state {
        CertificateState::InUse => Tone::Good,
        CertificateState::Awaited => Tone::Plain,
        CertificateState::Ended => Tone::Warn,
        CertificateState::Revoked => Tone::Bad,
    };
    Cell::toned(tone, state.as_str())
}

/// Shuts a holder out.
pub async fn revoke(session: &mut Session<'_>, holder: &str) -> Result<ExitCode, Failure> {
    let name = match holder.split_once('/') {
        Some(("node" | "operator", name)) if !name.is_empty() => name.to_owned(),
        _ => {
            let what = format!("\"{holder}\" is no holder of certificates: write node/NAME or operator/NAME");
            return Err(Failure::usage(what).fix("fleetctl cert list"));
        }
    };
    let what_ends = if holder.starts_with("node/") {
        "its link is closed, its open jobs end, and it comes back only as a new node"
    } else {
        "what they have open is closed, and they come back only with a new invite; what they have signed stays good (fleetctl operator revoke ends that too)"
    };
    let doing = format!("revoke {holder}, now and for good: {what_ends}");
    if session.would(&doing)? {
        return Ok(ExitCode::Done);
    }
    let client = session.connect().await?;
    let why = "a revocation is not taken back".to_owned();
    confirm(session, &Danger::Severe { name, why }, &doing, &Answer::default()).await?;
    let reason = session.settings.reason.clone().unwrap_or_default();
    let done = client.revoke_certificates(holder, &reason).await?;
    session.print(&Answer::of(&done).name(holder.to_owned()).line(&done.message))?;
    Ok(ExitCode::Done)
}
