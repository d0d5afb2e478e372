//! Who ordered the work: link, wave, node, request and documents, each check with a rule of its own.
//!
//! Pure but for signatures. Nothing that fails here is ever resolved. Called by the dispatcher as the parts
//! of an assignment come together.

use fleet_types::assignment::{Assignment, WaveProof, verify_wave};
use fleet_types::authority::Authority;
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::document::Document;
use fleet_types::document::procedure::Procedure;
use fleet_types::document::profile::Profile;
use fleet_types::id::{Generation, LinkEpoch};
use fleet_types::label::request_means;
use fleet_types::request::{Request, RequestError};
use fleet_types::seal::{Envelope, Kind, PublicKey, SealError};
use fleet_types::time::Timestamp;
use fleet_types::trust::TrustBundle;

use super::local::{LocalPolicy, RequireSignature};
use super::refusal::Refusal;
use super::tick::{self, Due, Standing};
use crate::identity::NodeIdentity;
use crate::state::{Revision, SmallState};

/// Clocks of a node and of an operator's machine may differ by this much before a request "from the future"
/// is refused; it is far below any window.
const CLOCK_LEEWAY_MS: i64 = 60_000;

const ASK_OPERATOR: &str = "start a new run";
const ASK_TRUST: &str = "compare the fleet's trust bundle with the signer's key";

/// The link over which assignments come, as checked when it came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkTrust {
    /// Its store generation.
    pub generation: Generation,
    /// Its epoch.
    pub epoch: LinkEpoch,
    /// The key that signs its waves.
    pub dispatch: PublicKey,
}

/// Checks that an assignment is from this link's controller, now, and for this node.
pub fn check_assignment(
    assignment: &Assignment,
    proof: &WaveProof,
    link: &LinkTrust,
    node: &NodeIdentity,
) -> Result<(), Refusal> {
    if (assignment.generation, assignment.link_epoch) != (link.generation, link.epoch) {
        let message = format!(
            "the assignment is of generation {} and link {}, the link's are {} and {}",
            assignment.generation.0, assignment.link_epoch.0, link.generation.0, link.epoch.0
        );
        return Err(Refusal::new("fencing", message, "let the controller assign it anew"));
    }
    verify_wave(assignment, proof, node.fleet, &link.dispatch).map_err(|_| {
        let message = "the assignment does not belong to a wave that this controller signed";
        Refusal::new("wave-proof", message, "look for somebody between controller and node")
    })?;
    if assignment.job.node != node.node {
        let message = format!("the assignment is for node {}, this is {}", assignment.job.node, node.node);
        return Err(Refusal::new("other-node", message, ASK_OPERATOR));
    }
    Ok(())
}

pub(super) fn seal_refusal(what: &str, error: &SealError) -> Refusal {
    let rule = match error {
        SealError::UnknownKey(_) => "signature-unknown-key",
        SealError::Kind { .. } => "signature-kind",
        _ => "signature-bad",
    };
    Refusal::new(rule, format!("{what}: {error}"), ASK_TRUST)
}

/// Reads the request of an assignment and checks everything about it that needs no document.
pub fn open_request(
    assignment: &Assignment,
    envelope: &Envelope,
    node: &NodeIdentity,
    now: Timestamp,
) -> Result<Request, Refusal> {
    if envelope.digest() != assignment.authority.digest() {
        return Err(Refusal::new("request-digest", "the request is not the one assigned", ASK_OPERATOR));
    }
    let request: Request = canonical::from_signed(&envelope.payload)
        .map_err(|error| Refusal::new("request-malformed", error.to_string(), ASK_OPERATOR))?;
    request.check(node.fleet).map_err(|error| request_refusal(&error))?;
    if request.run != assignment.job.run {
        let message = format!("the request is for run {}, assigned is {}", request.run, assignment.job.run);
        return Err(Refusal::new("other-run", message, ASK_OPERATOR));
    }
    tick::check_authority(assignment, &request)?;
    if !request.nodes.contains(node.node, assignment.node_index, &assignment.node_path) {
        let message = format!("node {} is not in the request's node list", node.node);
        return Err(Refusal::new("node-not-listed", message, ASK_OPERATOR));
    }
    // The list above was resolved by the controller; these are the words that the operator saw and signed.
    let means = request_means(&request.selector, &node.name, &node.labels)
        .map_err(|error| Refusal::new("request-malformed", error.to_string(), ASK_OPERATOR))?;
    if !means {
        let message =
            format!("the request is for nodes with \"{}\", which this node is not", request.selector);
        return Err(Refusal::new(
            "not-selected",
            message,
            "look for somebody between operator and controller",
        ));
    }
    match request.check_time(now) {
        Err(RequestError::TooEarly(from)) if from.as_millis() - now.as_millis() <= CLOCK_LEEWAY_MS => {}
        Err(error) => return Err(request_refusal(&error)),
        Ok(()) => {}
    }
    Ok(request)
}

fn request_refusal(error: &RequestError) -> Refusal {
    let rule = match error {
        RequestError::Schema(_) => "request-schema",
        RequestError::OtherFleet(_) => "other-fleet",
        RequestError::Validity { .. } => "request-validity",
        RequestError::Nodes(_) => "request-nodes",
        RequestError::Parallel | RequestError::Failures => "request-parallel",
        RequestError::Plans | RequestError::RolloutPolicy => "request-plan",
        RequestError::TooEarly(_) => "request-too-early",
        RequestError::Ended(_) => "request-expired",
    };
    Refusal::new(rule, error.to_string(), ASK_OPERATOR)
}

/// The document that says what is to be done: of a request its procedure; where its gates are asked, its policy.
pub fn work_of(assignment: &Assignment, request: &Request) -> Result<Digest, Refusal> {
    match assignment.authority {
        Authority::Request(_) | Authority::Tick(_) => Ok(request.procedure),
        Authority::Gates(_) => request.rollout_policy.ok_or_else(|| {
            let message = "the request names no rollout policy whose gates could be asked";
            Refusal::new("request-gates", message, ASK_OPERATOR)
        }),
    }
}

/// The documents of a request, checked.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The procedure; of gates, one that only looks.
    pub procedure: Procedure,
    /// The profile.
    pub profile: Profile,
    /// The tick of a schedule that it is for.
    pub due: Option<Due>,
}

/// The signed parts of an assignment.
pub struct Sealed {
    /// The request.
    pub request: Envelope,
    /// What is to be done: [`work_of`].
    pub work: Envelope,
    /// The profile.
    pub profile: Envelope,
    /// What allows the request of a tick.
    pub standing: Option<Standing>,
}

/// The revisions that an operator signed for. An unsigned request names none: whoever made it could name any.
pub fn revisions(
    assignment: &Assignment,
    request: &Request,
    sealed_request: &Envelope,
    opened: &Opened,
    policy: &LocalPolicy,
) -> Vec<Revision> {
    let is_signed = !sealed_request.signature.is_empty() || opened.due.is_some();
    if !is_signed || policy.require_signature == RequireSignature::Off {
        return Vec::new();
    }
    let named = |kind: &str, name: &str, number: Option<u32>| {
        Some(Revision { document: format!("{kind}/{name}"), number: number? })
    };
    // The gates of a policy are no procedure that has revisions.
    let revision = request.procedure_revision.filter(|_| !assignment.authority.is_gates());
    let procedure = named("procedure", opened.procedure.name.as_str(), revision);
    let profile = named("profile", opened.profile.name.as_str(), request.profile_revision);
    let file = opened.due.as_ref().map(|due| due.file.clone());
    procedure.into_iter().chain(profile).chain(file).collect()
}

/// Refuses revisions older than this node has carried out, unless the operator means them: whoever has the controller
/// could show an old document as the newest, and have that signed.
pub fn check_revisions(request: &Request, revisions: &[Revision], state: &SmallState) -> Result<(), Refusal> {
    let older = revisions.iter().find_map(|one| Some((one, state.newer_than(one)?)));
    match older {
        Some((one, newest)) if !request.older_revisions => {
            let message = format!(
                "{} is revision {}, and this node has carried out revision {newest}",
                one.document.replacen('/', " ", 1),
                one.number
            );
            Err(Refusal::new(
                "older-revision",
                message,
                "apply it anew; or say that it is meant: --accept-changed",
            ))
        }
        _ => Ok(()),
    }
}

/// Reads procedure and profile, and checks signatures as far as local policy asks for them, whom they are
/// for, and that they belong together.
pub fn open_documents(
    assignment: &Assignment,
    request: &Request,
    sealed: &Sealed,
    bundle: &TrustBundle,
    policy: &LocalPolicy,
    node: &NodeIdentity,
) -> Result<Opened, Refusal> {
    let Sealed { request: sealed_request, work, profile, standing } = sealed;
    let what = if assignment.authority.is_gates() { "rollout policy" } else { "procedure" };
    let wanted = [(what, work_of(assignment, request)?, work), ("profile", request.profile, profile)];
    for (what, digest, envelope) in wanted {
        check_document(what, digest, envelope, bundle, policy)?;
    }
    let Document::Profile(profile) = read("profile", profile)? else { return Err(other_kind()) };
    let procedure = procedure_of(assignment, read(what, work)?, &profile)?;
    let due = if let Some(tick) = request.tick {
        let standing = standing.as_ref().ok_or_else(tick::no_order)?;
        Some(tick::check((request, tick), standing, bundle, policy, node)?)
    } else {
        check_signature(sealed_request, &procedure, bundle, policy)?;
        None
    };
    if procedure.profile != profile.name {
        let message = format!("procedure {} is for profile {}", procedure.name, procedure.profile);
        return Err(Refusal::new("profile-mismatch", message, ASK_OPERATOR));
    }
    let selectors = [("procedure", &procedure.selector), ("profile", &profile.selector)];
    for (what, selector) in selectors.into_iter().filter_map(|(what, s)| Some((what, s.as_ref()?))) {
        if !selector.matches(&node.name, &node.labels) {
            let message = format!("the {what} is for nodes with {selector}, which this node is not");
            return Err(Refusal::new("selector-mismatch", message, "choose nodes that the selector matches"));
        }
    }
    Ok(Opened { procedure, profile: *profile, due })
}

/// An unsigned order may read where policy lets it; a signature that is there must always be good.
fn check_signature(
    request: &Envelope,
    procedure: &Procedure,
    bundle: &TrustBundle,
    policy: &LocalPolicy,
) -> Result<(), Refusal> {
    let needed = match policy.require_signature {
        RequireSignature::Off => return Ok(()),
        RequireSignature::HighRisk => procedure.changes,
        RequireSignature::All => true,
    };
    if !request.signature.is_empty() {
        let verified = bundle.verify_content(request, Kind::Request);
        return verified.map(drop).map_err(|error| seal_refusal("the request", &error));
    }
    if needed {
        let message = "the request bears no operator's signature";
        return Err(Refusal::new(
            "signature-missing",
            message,
            "sign the request, or start it with fleetctl",
        ));
    }
    Ok(())
}

/// What a document asks this node to do. The gates of a policy are looked at by steps that only read, whatever the
/// procedure of the same request does.
pub fn procedure_of(
    assignment: &Assignment,
    work: Document,
    profile: &Profile,
) -> Result<Procedure, Refusal> {
    match (assignment.authority, work) {
        (Authority::Request(_) | Authority::Tick(_), Document::Procedure(procedure)) => Ok(*procedure),
        (Authority::Gates(_), Document::RolloutPolicy(policy)) => {
            policy.gate_procedure(&profile.name).ok_or_else(|| {
                let missing = policy.not_built().join(", ");
                let message =
                    format!("this agent cannot judge the gates of rollout policy {}: {missing}", policy.name);
                Refusal::new("gates-not-built", message, "upgrade the agent, or start with another policy")
            })
        }
        _ => Err(other_kind()),
    }
}

pub(super) fn other_kind() -> Refusal {
    let message = "a document of another kind stands where procedure, rollout policy or profile belongs";
    Refusal::new("document-kind", message, ASK_OPERATOR)
}

pub(super) fn check_document(
    what: &str,
    digest: Digest,
    envelope: &Envelope,
    bundle: &TrustBundle,
    policy: &LocalPolicy,
) -> Result<(), Refusal> {
    if envelope.digest() != digest {
        let message = format!("the {what} is not the one that the request names");
        return Err(Refusal::new("document-digest", message, ASK_OPERATOR));
    }
    // Reading work runs programs of the profile too: documents are signed unless policy says off.
    if policy.require_signature != RequireSignature::Off {
        bundle
            .verify_content(envelope, Kind::Document)
            .map_err(|error| seal_refusal(&format!("the {what}"), &error))?;
    }
    Ok(())
}

pub(super) fn read(what: &str, envelope: &Envelope) -> Result<Document, Refusal> {
    canonical::from_signed(&envelope.payload).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|s| format!(": {s}")).unwrap_or_default();
        Refusal::new("document-malformed", format!("the {what} cannot be read: {error}{cause}"), ASK_OPERATOR)
    })
}
