//! `fleetctl node hold|release|remove`: what an operator decides about one node, each with a reason.

use fleet_types::id::Name;
use fleet_types::view::{Done, NodeItem};

use crate::confirm::{Danger, confirm};
use crate::error::{ExitCode, Failure};
use crate::render::Answer;
use crate::session::Session;

/// Gives a node no more work. Stopping is mild: it asks nobody.
pub async fn hold(session: &mut Session<'_>, name: &Name) -> Result<ExitCode, Failure> {
    let reason = reason(session, "hold", name)?;
    if session.would(&format!("hold {name}"))? {
        return Ok(ExitCode::Done);
    }
    let done = session.connect().await?.hold_node(name, &reason).await?;
    told(session, name, &done)?;
    session.say(format!("give it work again: fleetctl node release {name} --reason TEXT"));
    Ok(ExitCode::Done)
}

/// Gives a node work again: shows why it is held, and asks.
pub async fn release(session: &mut Session<'_>, name: &Name) -> Result<ExitCode, Failure> {
    let reason = reason(session, "release", name)?;
    let client = session.connect().await?;
    let item = client.node(name).await?.item;
    let doing = release_in_words(&item);
    if session.would(&doing)? {
        return Ok(ExitCode::Done);
    }
    confirm(session, &Danger::Moderate, &doing, &Answer::default()).await?;
    let done = client.release_node(name, &reason).await?;
    told(session, name, &done)?;
    Ok(ExitCode::Done)
}

fn release_in_words(item: &NodeItem) -> String {
    match &item.hold {
        None => format!("release {}: the pair that is held for a lost job of it becomes free", item.name),
        Some(hold) if hold.keeps_link() => format!("release {}, {hold}", item.name),
        Some(hold) => {
            format!(
                "release {}, {hold}; take the machine as it is now, with a new chain of reports",
                item.name
            )
        }
    }
}

/// Takes a node's record and certificate away.
pub async fn remove(session: &mut Session<'_>, name: &Name) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    // Asked first, so that nobody types the name of a node that does not exist.
    client.node(name).await?;
    let doing = format!("remove {name}: its agent is shut out for good and its open jobs end");
    if session.would(&doing)? {
        return Ok(ExitCode::Done);
    }
    let why = "the node is gone for good".to_owned();
    confirm(session, &Danger::Severe { name: name.to_string(), why }, &doing, &Answer::default()).await?;
    let reason = session.settings.reason.clone().unwrap_or_default();
    let done = client.remove_node(name, &reason).await?;
    told(session, name, &done)?;
    Ok(ExitCode::Done)
}

fn reason(session: &Session<'_>, verb: &str, name: &Name) -> Result<String, Failure> {
    match &session.settings.reason {
        Some(reason) if !reason.trim().is_empty() => Ok(reason.clone()),
        _ => Err(Failure::usage(format!("\"node {verb}\" wants a reason; nothing was done"))
            .fix(format!("fleetctl node {verb} {name} --reason TEXT"))),
    }
}

fn told(session: &mut Session<'_>, name: &Name, done: &Done) -> Result<(), Failure> {
    session.print(&Answer::of(done).name(name.to_string()).line(&done.message))
}
