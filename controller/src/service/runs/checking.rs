//! What every run is checked for, whoever starts it: its documents belong together, and its nodes can take part.
//!
//! Knows no caller and no signature: those are looked at before. Writes nothing. Called by `runs`, `ticks` and
//! `standing_orders`.

use std::collections::BTreeSet;

use fleet_types::digest::Digest;
use fleet_types::document::procedure::Procedure;
use fleet_types::document::profile::Profile;
use fleet_types::document::{Document, DocumentKind};
use fleet_types::id::NodeId;
use fleet_types::request::{NodeList, Request};
use fleet_types::view::Presence;

use super::NAMED;
use super::making::Start;
use crate::context::{Context, Memory, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::fleet::node_cache::Known;
use crate::service::{documents, limits, rollouts};

/// Longest request: its parameters are a few lines; the whole is fetched and kept by every node.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// A procedure with its profile.
pub struct Papers {
    /// The procedure.
    pub procedure: Procedure,
    /// Its profile.
    pub profile: Profile,
}

/// How a signed text names a procedure and its profile; `what` is the text in messages.
pub struct Named<'a> {
    /// `request` or `order`.
    pub what: &'a str,
    /// The procedure.
    pub procedure: Digest,
    /// Its number.
    pub procedure_revision: Option<u32>,
    /// The profile.
    pub profile: Digest,
    /// Its number.
    pub profile_revision: Option<u32>,
}

/// The documents that are named, if they belong together and have these numbers; `procedure` is the named one where it was
/// made for this run and never applied.
pub async fn papers(storage: &Storage, named: &Named<'_>, procedure: Option<Document>) -> Result<Papers> {
    let field = |name: &str| format!("{}.{name}", named.what);
    let document = match procedure {
        Some(made) => made,
        None => documents::document(storage, named.procedure).await?,
    };
    let Document::Procedure(procedure) = document else {
        return Err(ControllerError::invalid(&field("procedure"), "the digest is not of a procedure"));
    };
    let Document::Profile(profile) = documents::document(storage, named.profile).await? else {
        return Err(ControllerError::invalid(&field("profile"), "the digest is not of a profile"));
    };
    if procedure.profile != profile.name {
        return Err(ControllerError::invalid(
            &field("profile"),
            format!(
                "procedure \"{}\" belongs to profile \"{}\", not \"{}\"",
                procedure.name, procedure.profile, profile.name
            ),
        ));
    }
    for (kind, name, revision, digest) in [
        (DocumentKind::Procedure, procedure.name.as_str(), named.procedure_revision, named.procedure),
        (DocumentKind::Profile, profile.name.as_str(), named.profile_revision, named.profile),
    ] {
        if let Some(revision) = revision {
            documents::check_revision(storage, named.what, kind, name, (revision, digest)).await?;
        }
    }
    Ok(Papers { procedure: *procedure, profile: *profile })
}

/// A request whose authority was checked, with its bytes: everything else that it needs in order to become a run.
pub async fn check(
    context: &Context,
    (request, bytes): (Request, usize),
    nodes: &[NodeId],
    procedure: Option<Document>,
) -> Result<Start> {
    let now = context.storage.clock.now();
    request
        .check(context.identities.fleet.fleet)
        .and_then(|()| request.check_time(now.max(request.not_before)))
        .map_err(|error| ControllerError::invalid("request", error))?;
    limits::check_request(&request, now)?;
    if !nodes.windows(2).all(|pair| pair[0] < pair[1]) || NodeList::of(nodes) != request.nodes {
        return Err(ControllerError::invalid(
            "nodes",
            "they are not the nodes that the request was signed for",
        ));
    }
    let named = Named {
        what: "request",
        procedure: request.procedure,
        procedure_revision: request.procedure_revision,
        profile: request.profile,
        profile_revision: request.profile_revision,
    };
    let Papers { procedure, profile } = papers(&context.storage, &named, procedure).await?;
    if bytes > MAX_REQUEST_BYTES {
        let why = format!("{bytes} bytes; at most {MAX_REQUEST_BYTES} are allowed");
        return Err(ControllerError::invalid("request.params", why));
    }
    let nodes = check_nodes(&context.memory, nodes, &procedure)?;
    let rings = rollouts::rings(&context.storage, &context.settings, &request, &profile, &nodes).await?;
    Ok(Start { request, procedure, nodes, rings })
}

/// Every node exists, is enrolled, and has what the procedure needs; else all that are amiss, by name.
fn check_nodes(memory: &Memory, ids: &[NodeId], procedure: &Procedure) -> Result<Vec<Known>> {
    let needed: BTreeSet<&str> = procedure
        .steps
        .iter()
        .filter_map(|step| step.uses.as_deref())
        .chain(procedure.rollback.iter().chain(&procedure.finally).map(|undo| undo.uses.as_str()))
        .collect();
    let (mut nodes, mut faults) = (Vec::with_capacity(ids.len()), Vec::new());
    let (mut idle, mut lacking) = (false, false);
    for id in ids {
        let Some(known) = memory.node_cache.get(*id).filter(|known| known.presence != Presence::NotEnrolled)
        else {
            idle = true;
            faults.push(format!("node {id} does not exist or is not enrolled"));
            continue;
        };
        if let Some(hold) = known.record.hold() {
            idle = true;
            faults.push(format!("{} is {hold}", known.record.name));
        }
        // A node that never connected cannot say what it has; it refuses by itself.
        if !known.actions.is_empty() {
            let missing: Vec<&str> = needed
                .iter()
                .copied()
                .filter(|action| !known.actions.iter().any(|has| has == action))
                .collect();
            if !missing.is_empty() {
                lacking = true;
                faults.push(format!("{} cannot carry out {}", known.record.name, missing.join(", ")));
            }
        }
        nodes.push(known);
    }
    if faults.is_empty() {
        return Ok(nodes);
    }
    let count = faults.len();
    faults.truncate(NAMED);
    if count > NAMED {
        faults.push(format!("and {} more", count - NAMED));
    }
    let mut error = ControllerError::new(
        Kind::Blocked,
        "nodes-not-ready",
        format!("{count} of {} nodes cannot take part in \"{}\"", ids.len(), procedure.name),
    );
    error.detail.causes = faults;
    Err(error.fix(match (idle, lacking) {
        (true, false) => "leave these nodes out, or see to them: fleetctl node show NAME, fleetctl node release NAME",
        (false, _) => "leave these nodes out, or bring their agents to a version that has what is missing",
        (true, true) => "leave these nodes out; release those that are held, bring the agents of the others to a version that has what is missing",
    }))
}
