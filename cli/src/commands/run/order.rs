//! From what was typed to a signed request: procedure and profile by digest, targets, parameters.
//!
//! What the controller says a procedure is, is hashed again here before its digest is signed.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_types::action::nearest;
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::document::procedure::Procedure;
use fleet_types::document::{Document, DocumentKind, Key};
use fleet_types::id::Name;
use fleet_types::request::Verb;
use fleet_types::view::{RunView, Target};
use serde::Serialize;

use crate::args::WhatToRun;
use crate::client::Client;
use crate::error::{ExitCode, Failure};
use crate::render::Answer;
use crate::session::Session;
use crate::signing::{BACK_DATED, Order, Signer};
use crate::targets::{self, Chosen};

/// Nodes at once where nobody says: a fleet of a few dozen is through in a handful of steps, and a
/// mistake is seen before most of it has begun.
pub const DEFAULT_PARALLEL: u32 = 5;
/// A request lives at most this long (security-and-delivery §1.15).
const MAX_VALID_FOR: Duration = Duration::from_hours(24);

/// What is to be started, resolved and not yet signed.
pub struct Prepared {
    /// The procedure.
    pub procedure: Procedure,
    /// The nodes.
    pub chosen: Chosen,
    order: Order,
}

/// Resolves names and targets, and checks what can be checked here.
pub async fn prepare(
    session: &Session<'_>,
    client: &Client,
    what: &WhatToRun,
    verb: Verb,
) -> Result<Prepared, Failure> {
    // Asked first: it needs no controller, and is the most common mistake.
    let words = if verb == Verb::Plan { "run plan" } else { "run start" };
    let chosen = targets::resolve(client, &session.settings.targets, words).await?;
    let (document, digest) = document(client, DocumentKind::Procedure, what.procedure.as_str()).await?;
    let Document::Procedure(procedure) = document else {
        return Err(not_what_was_asked(what.procedure.as_str()));
    };
    check_parameters(&procedure, &what.params)?;
    let profile = what.profile.as_ref().unwrap_or(&procedure.profile);
    let (_, profile) = self::document(client, DocumentKind::Profile, profile.as_str()).await?;
    let nodes: Vec<_> = chosen.nodes.iter().map(|node| node.id).collect();
    let all = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let default = if verb == Verb::Plan { all } else { DEFAULT_PARALLEL.min(all) };
    if what.valid_for.length() > MAX_VALID_FOR {
        return Err(Failure::usage(format!(
            "--valid-for {}: a run is valid for at most 24h",
            what.valid_for
        )));
    }
    // The request begins a little before now, and both ends together may span no more than the limit.
    let valid_for = what.valid_for.length().min(MAX_VALID_FOR.saturating_sub(BACK_DATED));
    let order = Order {
        verb,
        procedure: digest,
        profile,
        params: what.params.iter().cloned().collect(),
        selector: chosen.selector.clone(),
        nodes,
        max_parallel: what.max_parallel.unwrap_or(default),
        valid_for,
        reason: session.settings.reason.clone().unwrap_or_default(),
    };
    Ok(Prepared { procedure: *procedure, chosen, order })
}

/// What a start would do, for `--dry-run`.
#[derive(Serialize)]
struct Preview<'a> {
    would: &'a str,
    procedure: &'a Name,
    procedure_digest: Digest,
    profile_digest: Digest,
    changes: bool,
    params: &'a BTreeMap<String, serde_json::Value>,
    selector: &'a str,
    max_parallel: u32,
    nodes: &'a [Target],
}

impl Prepared {
    /// What is about to be done: `start "daily-checks" on 6 nodes at 2 sites, at most 5 at once`.
    pub fn in_words(&self, verb: &str) -> String {
        let (name, nodes) = (&self.procedure.name, self.chosen.in_words());
        format!("{verb} \"{name}\" on {nodes}, at most {} at once", self.at_once())
    }

    /// Of a pair that changes never more than one is under way, whatever the request allows.
    fn at_once(&self) -> usize {
        let allowed = usize::try_from(self.order.max_parallel).unwrap_or(usize::MAX);
        if self.procedure.changes { allowed.min(self.chosen.groups()) } else { allowed }
    }

    /// What would be done, and on which nodes.
    pub fn preview(&self, would: &str) -> Answer {
        let preview = Preview {
            would,
            procedure: &self.procedure.name,
            procedure_digest: self.order.procedure,
            profile_digest: self.order.profile,
            changes: self.procedure.changes,
            params: &self.order.params,
            selector: &self.order.selector,
            max_parallel: self.order.max_parallel,
            nodes: &self.chosen.nodes,
        };
        Answer {
            value: Answer::local("fleet/v1/start-preview", &preview).value,
            names: self.chosen.nodes.iter().map(|node| node.name.to_string()).collect(),
            ..self.chosen.answer().line(self.in_words(would))
        }
    }

    /// Signs the request and sends it.
    pub async fn send(self, session: &mut Session<'_>, client: &Client) -> Result<RunView, Failure> {
        let signer = Signer::load(&session.context()?)?;
        let sealed = signer.request(self.order, (session.environment.now)())?;
        let run = sealed.run;
        let unknown = format!("interrupted; whether {run} was started is not known: fleetctl run show {run}");
        session.when_interrupted = Some(unknown);
        let started = client.start_run(sealed).await.map_err(|failure| match failure.exit {
            ExitCode::NotReachable | ExitCode::TimedOut => {
                failure.fix(format!("see whether it was started: fleetctl run show {run}"))
            }
            _ => failure,
        })?;
        let going =
            format!("interrupted; run {run} goes on: fleetctl run wait {run}, or fleetctl run cancel {run}");
        session.when_interrupted = Some(going);
        Ok(started)
    }
}

/// A document and the digest of its canonical form, made here.
async fn document(client: &Client, kind: DocumentKind, name: &str) -> Result<(Document, Digest), Failure> {
    let view = client.document(kind, name, 0).await?;
    let document: Document = serde_json::from_value(view.content).map_err(|error| {
        Failure::new(
            ExitCode::Unexpected,
            "not-understood",
            format!("{kind} \"{name}\" cannot be read by this fleetctl"),
        )
        .because(&error)
    })?;
    let bytes = canonical::to_vec(&document)
        .map_err(|error| Failure::unexpected(format!("{kind} \"{name}\" cannot be written"), &error))?;
    let digest = Digest::of(&bytes);
    if digest != view.item.digest || document.name().as_str() != name {
        return Err(not_what_was_asked(name));
    }
    Ok((document, digest))
}

fn not_what_was_asked(name: &str) -> Failure {
    let what =
        format!("what the controller shows as \"{name}\" is not what its digest says; nothing was signed");
    Failure::new(ExitCode::Verification, "digest-mismatch", what)
        .fix("compare `fleetctl version` with the controller's")
}

/// Names and required ones; values are checked by the node, which alone resolves.
fn check_parameters(procedure: &Procedure, given: &[(String, serde_json::Value)]) -> Result<(), Failure> {
    let known: Vec<&str> = procedure.params.keys().map(Key::as_str).collect();
    let mut seen = BTreeMap::new();
    for (key, value) in given {
        if !known.contains(&key.as_str()) {
            let failure =
                Failure::usage(format!("procedure \"{}\" has no parameter \"{key}\"", procedure.name));
            return Err(match nearest(key, known.iter().copied()) {
                Some(meant) => failure.fix(format!("did you mean \"{meant}\"?")),
                None if known.is_empty() => failure.cause("it has none at all"),
                None => failure.fix(format!("parameters: {}", known.join(", "))),
            });
        }
        if seen.insert(key, value).is_some() {
            return Err(Failure::usage(format!("parameter \"{key}\" is given twice")));
        }
    }
    Ok(())
}
