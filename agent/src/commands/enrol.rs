//! `fleet-agent enrol`: joins a fleet.
//!
//! Order on disk: the pending key before the request leaves; trust, then the node's record, then the
//! identity, whose pointer flips last and removes the pending key. A crash or a lost reply anywhere leaves
//! either the old state or one from which the same command goes on (security-and-delivery §1.6, §1.8).

use std::io::Read as _;

use fleet_certs::slots::{IdentityDir, SlotError};
use fleet_certs::token::{Token, TokenKind};
use fleet_executor::{policy, state};

use super::settings::{self, print};
use crate::args;
use crate::config::Config;
use crate::core::enrol::{EnrolError, Enrolled, redeem};
use crate::core::identity::{IdentityError, OwnIdentity};
use crate::error::{Exit, Failure};
use crate::telemetry;

/// Longest token text; anything longer is not one.
const MAX_TOKEN_BYTES: u64 = 1024;

/// Redeems the token and stores what came back.
pub fn run(args: &args::Enrol) -> Result<(), Failure> {
    let config = settings::load(&args.configured)?;
    telemetry::init(&config);
    let token = token(&args.token)?;
    if config.trust_pin.is_some_and(|pin| !token.controller_pins.contains(&pin)) {
        let message =
            "the token does not name the controller CA of controller.trust_pin: it is of another fleet";
        return Err(Failure::new(Exit::Identity, message));
    }
    let slots = IdentityDir::open(&config.identity_directory).map_err(|e| Failure::of(Exit::Identity, &e))?;
    if let Some(present) = present(&config)? {
        let certificate = &present.certificate;
        let same = present.record.token_id == token.id.to_string()
            && present.record.certificate == certificate.fingerprint;
        if same {
            // A crash may have come between the new identity and the end of the pending key.
            slots.discard_pending().map_err(|e| Failure::of(Exit::Identity, &e))?;
            print(format_args!("{} is enrolled already with this token", present.record.name));
            return Ok(());
        }
        if !args.replace {
            let message = format!(
                "this node is enrolled as {} ({}): use --replace to join anew with another token",
                present.record.name, present.record.node
            );
            return Err(Failure::new(Exit::Identity, message));
        }
    }
    let enrolled = call(&config, &token, &slots)?;
    store(&config, &slots, &enrolled)?;
    let record = &enrolled.record;
    print(format_args!(
        "enrolled as {} ({}), certificate until {}",
        record.name, record.node, enrolled.not_after
    ));
    Ok(())
}

fn token(text: &str) -> Result<Token, Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(Exit::Usage, error);
    let mut read = String::new();
    if text == "-" {
        std::io::stdin().take(MAX_TOKEN_BYTES).read_to_string(&mut read).map_err(|e| failed(&e))?;
    } else {
        text.clone_into(&mut read);
    }
    Token::parse(TokenKind::Node, read.trim()).map_err(|e| failed(&e))
}

/// The identity that is here already; none on a new node. A damaged one is told, not replaced by accident.
fn present(config: &Config) -> Result<Option<OwnIdentity>, Failure> {
    match OwnIdentity::load(&config.identity_directory) {
        Ok(identity) => Ok(Some(identity)),
        // Nothing usable, or a crash between the new record and the new identity: going on is the repair.
        Err(
            IdentityError::Slots(SlotError::NotEnrolled(_) | SlotError::BothDamaged { .. })
            | IdentityError::Record(_)
            | IdentityError::Mixed { .. },
        ) => Ok(None),
        Err(error) => Err(Failure::of(Exit::Identity, &error)),
    }
}

fn call(config: &Config, token: &Token, slots: &IdentityDir) -> Result<Enrolled, Failure> {
    let missing = |key: &str| Failure::new(Exit::Usage, format!("configuration: {key} is missing"));
    let address = config.enrol.as_deref().ok_or_else(|| missing("controller.enrol"))?;
    let server_name = config.server_name.clone().ok_or_else(|| missing("controller.server_name"))?;
    let key = slots.pending_key().map_err(|e| Failure::of(Exit::Identity, &e))?;
    // The executor's key: the core is told its public half and nothing else.
    let report_key =
        state::report_key(&config.state_directory).map_err(|e| Failure::of(Exit::Identity, &e))?.public();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::of(Exit::Failed, &e))?;
    runtime
        .block_on(redeem(address, server_name, token, &key, &report_key, &config.timers))
        .map_err(|error| Failure::of(exit_of(&error), &error))
}

const fn exit_of(error: &EnrolError) -> Exit {
    match error {
        EnrolError::Dial(_) | EnrolError::Transport { .. } | EnrolError::Timeout | EnrolError::Lost(_) => {
            Exit::Unreachable
        }
        _ => Exit::Identity,
    }
}

fn store(config: &Config, slots: &IdentityDir, enrolled: &Enrolled) -> Result<(), Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(Exit::Identity, error);
    let trust = settings::trust_directory(config);
    policy::install(&trust, &enrolled.roots, &enrolled.bundle, enrolled.record.fleet)
        .map_err(|e| failed(&e))?;
    enrolled.record.store(&config.identity_directory).map_err(|e| failed(&e))?;
    slots.store(&enrolled.identity).map_err(|e| failed(&e))?;
    Ok(())
}
