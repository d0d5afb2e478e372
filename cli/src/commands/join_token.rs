//! `fleetctl join-token`.

use fleet_types::id::Name;
use fleet_types::time::Span;

use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block};
use crate::session::Session;

/// Creates a node's record and its token.
pub async fn create(
    session: &mut Session<'_>,
    name: &Name,
    (labels, replace_labels): (&[(String, String)], bool),
    valid_for: &Span,
) -> Result<ExitCode, Failure> {
    if session.would(&format!("create node \"{name}\" and a token for it, good for {valid_for}"))? {
        return Ok(ExitCode::Done);
    }
    let context = session.context()?;
    let token =
        session.connect().await?.create_join_token(name, labels, replace_labels, valid_for.length()).await?;
    let times = session.times();
    let answer = Answer::of(&token).name(&token.token).block(Block::Line(token.token.clone()));
    session.print(&answer)?;
    if token.replaces {
        session.say(format!("a token made for node \"{}\" before is void now", token.node));
    }
    session.say(format!(
        "for node \"{}\", once, until {} ({}); it is not shown again\non the node, with {} as its enrolment address: fleet-agent enrol --token TOKEN",
        token.node,
        times.absolute(token.expires),
        times.show(token.expires),
        context.enrol,
    ));
    Ok(ExitCode::Done)
}
