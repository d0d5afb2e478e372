//! `fleetctl whoami`.

use std::time::Duration;

use fleet_types::view::WhoAmI;

use crate::context::Context;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Cell, Times, Tone};
use crate::renewal::ends_soon;
use crate::session::Session;

/// Clocks that differ by more than this make certificates and requests fail at their edges.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(1);

/// Shows who we are.
pub async fn run(session: &mut Session<'_>) -> Result<ExitCode, Failure> {
    let context = session.context()?;
    let client = session.connect().await?;
    let who = client.who_am_i().await?;
    let times = session.times();
    let ends_soon = ends_soon(client.certificate(), times.now);
    session.print(&answer(&context, &who, &times, ends_soon))?;
    for warning in warnings(&context, &who, &times, ends_soon) {
        session.say(format!("warning: {warning}"));
    }
    Ok(ExitCode::Done)
}

fn answer(context: &Context, who: &WhoAmI, times: &Times, ends_soon: bool) -> Answer {
    let mut answer = Answer::of(who).name(who.name.as_str());
    if let serde_json::Value::Object(object) = &mut answer.value {
        object.insert("context".to_owned(), context.name.as_str().into());
        object.insert("endpoint".to_owned(), context.endpoint.clone().into());
    }
    let listed = if who.content_key_listed {
        Cell::toned(Tone::Good, "listed in the trust bundle: nodes accept what you sign")
    } else {
        Cell::toned(Tone::Warn, "not listed in the trust bundle: nodes refuse what you sign")
    };
    let until = who.certificate_not_after;
    let tone = if ends_soon { Tone::Warn } else { Tone::Plain };
    answer.block(Block::Fields(vec![
        ("operator", format!("{} ({})", who.name, who.role.as_str()).into()),
        ("context", format!("{}  {}", context.name, context.endpoint).into()),
        ("fleet", format!("{} ({})", who.fleet_name, who.fleet).into()),
        ("certificate", Cell::toned(tone, format!("ends {} ({until})", times.show(until)))),
        ("content key", format!("{} on this machine", who.content_key.id().short()).into()),
        ("", listed),
        ("controller", who.controller_version.as_str().into()),
    ]))
}

fn warnings(context: &Context, who: &WhoAmI, times: &Times, ends_soon: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if ends_soon {
        let left = crate::render::units::length(who.certificate_not_after.since(times.now));
        warnings.push(format!(
            "your certificate ends in {left}; sign in again with a new invite: fleetctl login INVITE --context {}",
            context.name
        ));
    }
    if !who.content_key_listed && who.role.may_sign_work() {
        warnings.push(format!(
            "nodes refuse what you sign until a security-admin lists your content key: fleetctl operator admit {} --key {}",
            who.name,
            who.content_key.id()
        ));
    }
    let (ours, theirs) = (times.now, who.controller_time);
    let apart = ours.since(theirs).max(theirs.since(ours));
    if apart > CLOCK_TOLERANCE {
        let apart = crate::render::units::length(apart);
        warnings.push(format!("this machine's clock and the controller's are {apart} apart"));
    }
    warnings
}
