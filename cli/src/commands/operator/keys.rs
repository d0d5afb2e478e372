//! `fleetctl operator admit|approve|revoke|delegate`: whose signatures nodes take.
//!
//! The controller says who somebody is; that a content key is theirs it is not believed: whoever admits a person names the
//! key that the person read out to them.

use std::path::Path;
use std::time::Duration;

use fleet_types::digest::Digest;
use fleet_types::id::Name;
use fleet_types::seal::KeyId;
use fleet_types::trust::{ContentKey, OperatorKeyAuthority, OperatorRole, TrustBundle};
use fleet_types::view::{Done, OperatorItem, OperatorState};

use crate::client::Client;
use crate::commands::trust_bundle::{Published, Publisher, with_content_key};
use crate::confirm::{Danger, confirm};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Column, Table, units};
use crate::session::Session;

/// Two people decide together where there are two.
const USUAL_THRESHOLD: usize = 2;

/// Everybody who has or had a name, the one who has it last.
async fn of_name(client: &Client, name: &Name) -> Result<Vec<OperatorItem>, Failure> {
    let mut items = client.operators().await?.items;
    items.retain(|item| item.name == *name);
    items.sort_by_key(|item| (item.state == OperatorState::Invited, item.since));
    if items.is_empty() { Err(unknown(name)) } else { Ok(items) }
}

fn unknown(name: &Name) -> Failure {
    Failure::new(ExitCode::NotFound, "not-found", format!("there is no operator \"{name}\""))
        .fix("list them: fleetctl operator list")
}

fn severe(name: &Name, why: &str) -> Danger {
    Danger::Severe { name: name.to_string(), why: why.to_owned() }
}

fn print(session: &mut Session<'_>, name: &str, message: String) -> Result<ExitCode, Failure> {
    let done = Done::new(message);
    session.print(&Answer::of(&done).name(name.to_owned()).line(&done.message))?;
    Ok(ExitCode::Done)
}

/// Lists the content key of a person who has signed in.
pub async fn admit(
    session: &mut Session<'_>,
    name: &Name,
    key: Digest,
    root_key: Option<&Path>,
) -> Result<ExitCode, Failure> {
    let signer = Publisher::load(&session.context()?, root_key)?;
    let client = session.connect().await?;
    signer.check_may_list(&signer.open(&client.trust_bundle().await?.bundle, 0)?)?;
    let item = of_name(&client, name).await?.pop().ok_or_else(|| unknown(name))?;
    let entry = entry_of(&item, key)?;
    let doing = format!("let nodes take what {name} ({}) signs", item.role.as_str());
    if session.would(&doing)? {
        return Ok(ExitCode::Done);
    }
    confirm(session, &severe(name, "nodes do what this key signs"), &doing, &Answer::default()).await?;
    let (now, reason) = ((session.environment.now)(), session.settings.reason.clone().unwrap_or_default());
    let published = signer.publish(&client, &reason, |bundle| with_content_key(bundle, &entry, now)).await?;
    let message = published.map_or_else(
        || format!("the content key of {name} is listed already"),
        |Published { message, .. }| message,
    );
    print(session, name.as_str(), message)
}

fn entry_of(item: &OperatorItem, key: KeyId) -> Result<ContentKey, Failure> {
    let blocked = |code, what: String| Failure::new(ExitCode::Blocked, code, what);
    let name = &item.name;
    let (Some(operator), Some(known), OperatorState::Active) = (item.id, item.content_key, item.state) else {
        let what = format!("\"{name}\" is {}", item.state.as_str());
        return Err(blocked("not-active", what).fix("who has signed in is admitted: fleetctl login INVITE"));
    };
    if !item.role.may_sign_work() {
        let what = format!("{name} is {}: such a one signs no work", item.role.as_str());
        return Err(blocked("role-signs-nothing", what));
    }
    if known.id() != key {
        let what = format!("the controller knows another content key of {name}: {}", known.id());
        return Err(Failure::new(ExitCode::Verification, "other-key", what).fix(
            "ask them once more what fleetctl login said; where it is the same, somebody else signed in with their invite, or the controller lies",
        ));
    }
    Ok(ContentKey { key: known, operator, person: name.clone(), role: item.role })
}

/// Signs the change that waits.
pub async fn approve(session: &mut Session<'_>, root_key: Option<&Path>) -> Result<ExitCode, Failure> {
    let signer = Publisher::load(&session.context()?, root_key)?;
    let client = session.connect().await?;
    let trust = client.trust_bundle().await?;
    let current = signer.open(&trust.bundle, 0)?;
    let Some(waiting) = trust.proposal else {
        return print(session, "", "no change of the trust bundle waits for signatures".to_owned());
    };
    signer.check_may_list(&current)?;
    let proposal = signer.propose(&waiting, &current)?;
    if proposal.signers.contains(&signer.public().id()) {
        let what = "you have signed it already: another one must";
        return Err(Failure::new(ExitCode::Blocked, "signed-already", what));
    }
    let doing = format!("sign trust bundle version {}", proposal.bundle.version);
    if session.would(&doing)? {
        return Ok(ExitCode::Done);
    }
    // Signing is giving a word for all of it: what differs besides people is said too.
    let about = changes(&current, &proposal.bundle);
    confirm(session, &Danger::Moderate, &doing, &about).await?;
    let reason = session.settings.reason.clone().unwrap_or_default();
    let done = client.publish_trust_bundle(&signer.countersign(waiting), &reason).await?;
    print(session, "", done.message)
}

/// What a bundle changes, for whoever is to sign it.
fn changes(current: &TrustBundle, next: &TrustBundle) -> Answer {
    let mut table = Table::new(&[
        Column::whole("CHANGE"),
        Column::whole("PERSON"),
        Column::whole("ROLE"),
        Column::whole("CONTENT KEY"),
    ]);
    for (word, of, not_of) in [("added", next, current), ("taken away", current, next)] {
        for entry in of.content_keys.iter().filter(|entry| !not_of.content_keys.contains(entry)) {
            table.row([
                word.into(),
                entry.person.as_str().into(),
                entry.role.as_str().into(),
                entry.key.id().to_string().into(),
            ]);
        }
    }
    let (version, issued) = (current.version, current.issued);
    let keys = current.content_keys.clone();
    let rest = TrustBundle { version, issued, content_keys: keys, ..next.clone() };
    let answer = Answer::default().table(table, "nobody is added or taken away");
    if rest == *current { answer } else { answer.line("it changes other parts of the trust bundle too") }
}

/// Shuts a person out: their certificates, and what they signed.
pub async fn revoke(
    session: &mut Session<'_>,
    name: &Name,
    root_key: Option<&Path>,
) -> Result<ExitCode, Failure> {
    let signer = Publisher::load(&session.context()?, root_key)?;
    let client = session.connect().await?;
    let bundle = signer.open(&client.trust_bundle().await?.bundle, 0)?;
    let mut items = of_name(&client, name).await?;
    // Whoever has the name now is not shut out for the sake of one who had it before.
    let left_over = items.iter().position(|item| item.state == OperatorState::Revoked && item.is_listed);
    let item = match left_over {
        Some(at) => items.swap_remove(at),
        None => items.pop().ok_or_else(|| unknown(name))?,
    };
    if item.state == OperatorState::Invited {
        let what = format!("\"{name}\" has an invite and has not come");
        return Err(Failure::new(ExitCode::Blocked, "not-active", what)
            .fix("it ends by itself within 24h; a new one for the same name makes it void at once"));
    }
    let doing = if item.state == OperatorState::Revoked {
        format!("let nodes refuse what {name} signed, who was revoked")
    } else {
        format!("shut {name} out, now and for good")
    };
    if session.would(&doing)? {
        return Ok(ExitCode::Done);
    }
    confirm(session, &severe(name, "a revocation is not taken back"), &doing, &Answer::default()).await?;
    let reason = session.settings.reason.clone().unwrap_or_default();
    if item.state != OperatorState::Revoked {
        let done = client.revoke_certificates(&format!("operator/{name}"), &reason).await?;
        session.say(done.message);
    }
    let gone = |entry: &ContentKey| Some(entry.operator) == item.id;
    if !bundle.content_keys.iter().any(gone) {
        return print(session, name.as_str(), format!("no content key of {name} is listed"));
    }
    let still_listed =
        || format!("{name} opens nothing any more; nodes still take what their content key has signed");
    signer.check_may_list(&bundle).map_err(|failure| failure.cause(still_listed()))?;
    let now = (session.environment.now)();
    let next = |bundle: TrustBundle| {
        let keys: Vec<_> = bundle.content_keys.iter().filter(|entry| !gone(entry)).cloned().collect();
        (keys.len() < bundle.content_keys.len()).then(|| bundle.with_content_keys(keys, now))
    };
    let published =
        signer.publish(&client, &reason, next).await.map_err(|failure| failure.cause(still_listed()))?;
    tell_what_they_signed(session, &client, name).await?;
    let message = published.map_or_else(String::new, |Published { message, .. }| message);
    print(session, name.as_str(), message)
}

/// Documents are believed for their signature: theirs need another one.
async fn tell_what_they_signed(
    session: &mut Session<'_>,
    client: &Client,
    name: &Name,
) -> Result<(), Failure> {
    let documents = client.documents(None).await?;
    let theirs = documents.items.iter().filter(|item| item.signed_by == name.as_str());
    let theirs: Vec<String> = theirs.map(|item| format!("{} {}", item.kind, item.name)).collect();
    if !theirs.is_empty() {
        session.say(format!(
            "nodes refuse what {name} signed; apply these anew, so that your signature stands on them (fleetctl config apply FILE): {}",
            theirs.join(", ")
        ));
    }
    let schedules = client.schedules().await?.items;
    let theirs: Vec<String> = schedules
        .iter()
        .filter(|item| item.signed_by.as_ref() == Some(name))
        .map(fleet_types::view::ScheduleItem::name)
        .collect();
    if !theirs.is_empty() {
        session.say(format!(
            "schedules that {name} signed for fire no more; sign for them (fleetctl schedule apply FILE): {}",
            theirs.join(", ")
        ));
    }
    Ok(())
}

/// To whom the root keys leave the list, and how.
pub struct Delegation<'a> {
    /// Security-admins; nobody takes back what was left to others.
    pub names: &'a [Name],
    /// How many of them sign for somebody new; none: two where there are two.
    pub threshold: Option<usize>,
    /// For how long.
    pub length: Duration,
    /// A root key.
    pub root_key: &'a Path,
}

/// Leaves the list of operators' keys to security-admins for a while.
pub async fn delegate(session: &mut Session<'_>, order: Delegation<'_>) -> Result<ExitCode, Failure> {
    let signer = Publisher::load(&session.context()?, Some(order.root_key))?;
    let client = session.connect().await?;
    let bundle = signer.open(&client.trust_bundle().await?.bundle, 0)?;
    let authority = authority(&bundle, &order, (session.environment.now)())?;
    let doing = match &authority {
        Some(authority) => format!(
            "leave the list of operators' keys to {} until {}; {} for somebody new",
            order.names.iter().map(Name::as_str).collect::<Vec<_>>().join(", "),
            session.times().show(authority.not_after),
            units::count(authority.threshold, "signature"),
        ),
        None => "let nobody but the root keys change the list of operators' keys".to_owned(),
    };
    if session.would(&doing)? {
        return Ok(ExitCode::Done);
    }
    let fleet = session.context()?.name;
    let danger = if authority.is_some() {
        severe(&fleet, "they decide then whose signatures nodes take")
    } else {
        Danger::Moderate
    };
    confirm(session, &danger, &doing, &Answer::default()).await?;
    let reason = session.settings.reason.clone().unwrap_or_default();
    let now = (session.environment.now)();
    let next = |bundle: TrustBundle| {
        let keys = bundle.content_keys.clone();
        Some(TrustBundle { operator_key_authority: authority.clone(), ..bundle.with_content_keys(keys, now) })
    };
    let published = signer.publish(&client, &reason, next).await?;
    print(session, "", published.map_or_else(String::new, |Published { message, .. }| message))
}

fn authority(
    bundle: &TrustBundle,
    order: &Delegation<'_>,
    now: fleet_types::time::Timestamp,
) -> Result<Option<OperatorKeyAuthority>, Failure> {
    if order.names.is_empty() {
        return Ok(None);
    }
    let mut keys: Vec<KeyId> = Vec::new();
    for name in order.names {
        let theirs = bundle
            .content_keys
            .iter()
            .filter(|entry| entry.person == *name && entry.role == OperatorRole::SecurityAdmin)
            .map(|entry| entry.key.id());
        let before = keys.len();
        keys.extend(theirs);
        if keys.len() == before {
            let what = format!("the trust bundle lists no content key of a security-admin \"{name}\"");
            return Err(Failure::new(ExitCode::NotFound, "not-listed", what)
                .fix("a root key lists them first: fleetctl operator admit NAME --key KEY --root-key FILE"));
        }
    }
    keys.sort_unstable();
    keys.dedup();
    let threshold = order.threshold.unwrap_or_else(|| USUAL_THRESHOLD.min(order.names.len()));
    if threshold == 0 || threshold > order.names.len() {
        let what = format!("--threshold {threshold} of {}", units::count(order.names.len(), "person"));
        return Err(Failure::usage(what).fix("take 1 up to the number of people named"));
    }
    Ok(Some(OperatorKeyAuthority { keys, threshold, not_after: now.plus(order.length) }))
}
