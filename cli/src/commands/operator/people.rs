//! `fleetctl operator invite|list`.

use fleet_types::id::Name;
use fleet_types::time::Span;
use fleet_types::trust::{OperatorRole, TrustBundle};
use fleet_types::view::{OperatorItem, OperatorState, Page};

use crate::commands::trust_bundle::Publisher;
use crate::commands::watching;
use crate::confirm::{Danger, confirm};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Cell, Column, Table, Times, Tone, units};
use crate::session::Session;

/// Makes an invite for a person.
pub async fn invite(
    session: &mut Session<'_>,
    name: &Name,
    role: OperatorRole,
    valid_for: &Span,
) -> Result<ExitCode, Failure> {
    let doing = format!("invite \"{name}\" as {}, for {valid_for}", role.as_str());
    if session.would(&doing)? {
        return Ok(ExitCode::Done);
    }
    let context = session.context()?;
    let client = session.connect().await?;
    confirm(session, &Danger::Moderate, &doing, &Answer::default()).await?;
    let reason = session.settings.reason.clone().unwrap_or_default();
    let invite = client.invite_operator(name, role, valid_for.length(), &reason).await?;
    let times = session.times();
    let answer = Answer::of(&invite).name(&invite.invite).block(Block::Line(invite.invite.clone()));
    session.print(&answer)?;
    if invite.replaces {
        session.say(format!("an invite made for \"{name}\" before is void now"));
    }
    session.say(format!(
        "for \"{name}\" ({}), once, until {} ({}); it is not shown again\non their machine: fleetctl login INVITE --server {} --server-name {}",
        role.as_str(),
        times.absolute(invite.expires),
        times.show(invite.expires),
        context.enrol,
        context.server_name,
    ));
    Ok(ExitCode::Done)
}

/// Lists everybody.
pub async fn list(session: &mut Session<'_>) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    let signer = Publisher::load(&session.context()?, None)?;
    watching::print(session, async |session| {
        let trust = client.trust_bundle().await?;
        let bundle = signer.open(&trust.bundle, 0)?;
        let page = client.operators().await?;
        let (times, now) = (session.times(), (session.environment.now)());
        let mut answer = table(&page, &times);
        if trust.proposal.is_some() {
            answer = answer.line("a change of the list waits for signatures: fleetctl operator approve");
        }
        let left_to = delegation(&bundle).filter(|_| {
            bundle.operator_key_authority.as_ref().is_some_and(|authority| authority.not_after > now)
        });
        Ok(match left_to {
            Some(words) => answer.line(words),
            None => answer.line("only a root key changes whose signatures nodes take"),
        })
    })
    .await
}

/// To whom the root keys leave the list, in words.
fn delegation(bundle: &TrustBundle) -> Option<String> {
    let authority = bundle.operator_key_authority.as_ref()?;
    let people: Vec<&str> = bundle
        .content_keys
        .iter()
        .filter(|entry| authority.keys.contains(&entry.key.id()))
        .map(|entry| entry.person.as_str())
        .collect();
    Some(format!(
        "until {} {} may change whose signatures nodes take, without a root key: {} for somebody new, one to take somebody away",
        authority.not_after,
        people.join(", "),
        units::count(authority.threshold, "signature"),
    ))
}

fn table(page: &Page<OperatorItem>, times: &Times) -> Answer {
    let mut table = Table::new(&[
        Column::whole("NAME"),
        Column::whole("ROLE"),
        Column::whole("STATE"),
        Column::whole("SIGNATURES"),
        Column::whole("UNTIL"),
        Column::whole("SINCE").wide(),
        Column::whole("CONTENT KEY").wide(),
    ]);
    for item in &page.items {
        let key = item.content_key.map_or_else(String::new, |key| key.id().to_string());
        table.row([
            item.name.as_str().into(),
            item.role.as_str().into(),
            state(item.state),
            signatures(item),
            times.show_optional(item.until).into(),
            times.show_optional(item.since).into(),
            key.into(),
        ]);
    }
    let names = page.items.iter().map(|item| item.name.to_string());
    Answer::of(page).names(names).table(table, "nobody")
}

fn state(state: OperatorState) -> Cell {
    let tone = match state {
        OperatorState::Active => Tone::Good,
        OperatorState::Invited => Tone::Plain,
        OperatorState::Revoked => Tone::Bad,
    };
    Cell::toned(tone, state.as_str())
}

/// Do nodes take what they sign?
fn signatures(item: &OperatorItem) -> Cell {
    match (item.state, item.is_listed) {
        (OperatorState::Revoked, true) => Cell::toned(Tone::Bad, "still taken"),
        (OperatorState::Active, true) => Cell::toned(Tone::Good, "taken"),
        (OperatorState::Active, false) if item.role.may_sign_work() => Cell::toned(Tone::Warn, "refused"),
        _ => Cell::from("-"),
    }
}
