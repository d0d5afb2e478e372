//! `fleetctl login`: redeems an invite on the enrolment port.
//!
//! Both keys are made here and stay here: the certificate's and the content key. The invite's pin is
//! compared before anything is sent, the root keys that come back are compared with the invite's root
//! pin, and the trust bundle is checked with them. Made so that it can be repeated after a lost reply.

use fleet_certs::slots::{IdentityDir, StoredIdentity};
use fleet_certs::token::{Token, TokenKind};
use fleet_certs::{CertificateDer, Identity, verify};
use fleet_types::id::{FleetId, Name};
use fleet_types::seal::PublicKey;
use fleet_types::trust::{OperatorRole, RootKeys, TrustBundle};
use serde::Serialize;

use super::trust_bundle;
use crate::args::LoginArgs;
use crate::client::{self, EnrolledOperator, EnrolmentRequest};
use crate::context::{CONTENT_KEY, Context, ContextEntry, ContextStore, ROOT_KEYS, make_or_load_content_key};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block};
use crate::session::Session;
use crate::signing::to_json;

/// Name of the context where none is given.
const DEFAULT_CONTEXT: &str = "default";
/// Port of the operator service, where `--endpoint` does not say another.
const OPERATOR_PORT: u16 = 7443;
/// Enrolment port, where `--server` does not say another.
const ENROL_PORT: u16 = 7444;

#[derive(Serialize)]
struct SignedIn<'a> {
    context: &'a str,
    operator: &'a str,
    role: OperatorRole,
    fleet: FleetId,
    content_key: PublicKey,
    content_key_listed: bool,
}

/// Where the controller is.
struct Addresses {
    enrol: String,
    endpoint: String,
    server_name: String,
}

/// Signs in.
pub async fn run(session: &mut Session<'_>, args: &LoginArgs) -> Result<ExitCode, Failure> {
    let text = if args.invite == "-" {
        session
            .environment
            .read_answer()
            .await
            .map_err(|error| Failure::unexpected("stdin cannot be read", &error))?
    } else {
        args.invite.clone()
    };
    let invite = Token::parse(TokenKind::Operator, &text)
        .map_err(|error| Failure::usage("the invite cannot be read").because(&error))?;
    let addresses = addresses(args)?;
    let name = context_name(session)?;
    let contexts = session.contexts()?;
    // Before the invite is spent: a file that is none would be found out too late.
    let root_key = args.root_key.as_deref();
    root_key.map(crate::context::load_signing_key).transpose()?;

    let folder = contexts.make_folder(&name)?;
    let identity = IdentityDir::open(&folder.join("identity")).map_err(|error| unusable(&error))?;
    let key = identity.pending_key().map_err(|error| unusable(&error))?;
    let content_key = make_or_load_content_key(&folder.join(CONTENT_KEY))?;
    let csr = key.request().map_err(|error| Failure::unexpected("the request cannot be made", &error))?;
    let enrolled = client::redeem(EnrolmentRequest {
        invite: &invite,
        address: &addresses.enrol,
        server_name: &addresses.server_name,
        request: csr,
        content_key: content_key.public(),
        context: name.as_str(),
        limit: session.settings.call_limit(),
        now: session.environment.now,
    })
    .await?;
    let bundle = checked(&invite, &enrolled)?;
    refuse_other_fleet(&contexts, &name, enrolled.fleet)?;

    let stored = StoredIdentity {
        key_pem: key.to_pem(),
        chain: enrolled.chain.clone(),
        controller_authorities: certificates(&bundle),
    };
    identity.store(&stored).map_err(|error| unusable(&error))?;
    write_root_keys(&folder.join(ROOT_KEYS), &enrolled.roots)?;
    let entry = ContextEntry {
        endpoint: addresses.endpoint,
        enrol: addresses.enrol,
        server_name: addresses.server_name,
        fleet: enrolled.fleet,
        operator: enrolled.operator,
        operator_name: enrolled.name.clone(),
    };
    contexts.put(&name, &entry, session.settings.context.is_none())?;
    let context = contexts.choose(Some(&name))?;

    let is_listed = bundle.content_key(&content_key.public().id()).is_some();
    let is_listed = match root_key {
        Some(root) if !is_listed => {
            trust_bundle::list_content_key(session, &context, &enrolled, content_key.public(), root).await?;
            true
        }
        _ => is_listed,
    };
    tell(session, &context, &enrolled, content_key.public(), is_listed)
}

fn tell(
    session: &mut Session<'_>,
    context: &Context,
    enrolled: &EnrolledOperator,
    content_key: PublicKey,
    is_listed: bool,
) -> Result<ExitCode, Failure> {
    let body = SignedIn {
        context: context.name.as_str(),
        operator: enrolled.name.as_str(),
        role: enrolled.role,
        fleet: enrolled.fleet,
        content_key,
        content_key_listed: is_listed,
    };
    let answer =
        Answer::local("fleet/v1/login", &body).name(context.name.as_str()).block(Block::Line(format!(
            "signed in as {} ({}), context \"{}\" at {}",
            enrolled.name,
            enrolled.role.as_str(),
            context.name,
            context.endpoint
        )));
    session.print(&answer)?;
    if !is_listed && enrolled.role.may_sign_work() {
        session.say(format!(
            "note: nodes refuse what you sign until your content key is listed; tell a security-admin, not by way of the controller:\n  \
             fleetctl operator admit {} --key {}",
            enrolled.name,
            content_key.id()
        ));
    }
    Ok(ExitCode::Done)
}

fn context_name(session: &Session<'_>) -> Result<Name, Failure> {
    match &session.settings.context {
        Some(name) => Ok(name.clone()),
        None => DEFAULT_CONTEXT
            .parse()
            .map_err(|error| Failure::unexpected("the default context has no name", &error)),
    }
}

fn addresses(args: &LoginArgs) -> Result<Addresses, Failure> {
    let server = args.server.as_str();
    // An IPv6 address stands in brackets where a port may follow, and without them in a certificate.
    let has_port =
        server.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let (host, port) = match server.rsplit_once(':').filter(|_| has_port) {
        Some((host, port)) => (host, port.parse::<u16>().ok()),
        None => (server, Some(ENROL_PORT)),
    };
    let (Some(port), false) = (port.filter(|port| *port > 0), host.is_empty()) else {
        return Err(Failure::usage(format!("--server \"{server}\": expected HOST or HOST:PORT")));
    };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let host = if bare.contains(':') { format!("[{bare}]") } else { bare.to_owned() };
    Ok(Addresses {
        enrol: format!("{host}:{port}"),
        endpoint: args.endpoint.clone().unwrap_or_else(|| format!("{host}:{OPERATOR_PORT}")),
        server_name: args.server_name.clone().unwrap_or_else(|| bare.to_owned()),
    })
}

/// Believes nothing of the answer that the invite's pins do not vouch for; gives the trust bundle.
fn checked(invite: &Token, enrolled: &EnrolledOperator) -> Result<TrustBundle, Failure> {
    let refused = |why: &str| {
        let what = format!("the controller's answer is refused: {why}");
        Failure::new(ExitCode::Verification, "not-trusted", what)
            .fix("ask for a new invite, and check where this one came from")
    };
    if enrolled.roots.pin() != invite.root_pin {
        return Err(refused("its root keys are not those of the invite"));
    }
    let bundle = enrolled.bundle.open(&enrolled.roots, enrolled.fleet, 0);
    let bundle = bundle.map_err(|error| refused("its trust bundle").because(&error))?;
    let leaf = enrolled.chain.first().ok_or_else(|| refused("it holds no certificate"))?;
    let described = verify::describe(leaf).map_err(|error| refused("its certificate").because(&error))?;
    if described.identity != Identity::Operator(enrolled.fleet, enrolled.operator) {
        return Err(refused("its certificate is for somebody else"));
    }
    Ok(bundle)
}

fn certificates(bundle: &TrustBundle) -> Vec<CertificateDer<'static>> {
    bundle.controller_authorities.iter().map(|a| CertificateDer::from(a.certificate.clone())).collect()
}

fn refuse_other_fleet(contexts: &ContextStore, name: &Name, fleet: FleetId) -> Result<(), Failure> {
    match contexts.load()?.contexts.get(name.as_str()) {
        Some(entry) if entry.fleet != fleet => Err(Failure::new(
            ExitCode::Conflict,
            "context-exists",
            format!("context \"{name}\" is of another fleet ({})", entry.fleet),
        )
        .fix("repeat the command with --context and another name; the invite stays good for the same keys only, so ask for a new one if it is refused")),
        _ => Ok(()),
    }
}

fn write_root_keys(path: &std::path::Path, roots: &RootKeys) -> Result<(), Failure> {
    let bytes = to_json(roots);
    fleet_certs::files::write_atomic(path, &bytes, fleet_certs::files::CERT_MODE)
        .map_err(|error| Failure::unexpected("the root keys cannot be kept", &error))
}

fn unusable(error: &dyn std::error::Error) -> Failure {
    Failure::new(ExitCode::Unexpected, "bad-identity", "the identity cannot be kept").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(server: &str) -> LoginArgs {
        LoginArgs {
            invite: String::new(),
            server: server.to_owned(),
            endpoint: None,
            server_name: None,
            root_key: None,
        }
    }

    #[test]
    fn the_other_addresses_follow_from_the_first() {
        for (server, enrol, endpoint, name) in [
            ("ctl.example:9000", "ctl.example:9000", "ctl.example:7443", "ctl.example"),
            ("ctl.example", "ctl.example:7444", "ctl.example:7443", "ctl.example"),
            ("[::1]:9000", "[::1]:9000", "[::1]:7443", "::1"),
            ("::1", "[::1]:7444", "[::1]:7443", "::1"),
        ] {
            let found = addresses(&args(server)).unwrap();
            let found = (found.enrol.as_str(), found.endpoint.as_str(), found.server_name.as_str());
            assert_eq!(found, (enrol, endpoint, name));
        }
        for bad in ["", ":7444", "ctl:", "ctl:x", "ctl:99999", "ctl:0"] {
            assert_eq!(
                addresses(&args(bad)).err().map(|failure| failure.exit),
                Some(ExitCode::Usage),
                "{bad}"
            );
        }
    }
}
