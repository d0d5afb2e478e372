//! Joining a fleet, the core's half: the token is redeemed, and once the executor has kept its part, the identity
//! is put in place.
//!
//! Order on disk: the pending key before the request leaves; trust and record of the executor; then the node's
//! record here, then the identity, whose pointer flips last and removes the pending key. A crash or a lost
//! reply anywhere leaves either the old state or one from which the same command goes on
//! (security-and-delivery §1.6, §1.8). Called by `fleet-agent enrol`, in its own process or behind
//! [`super::enrolment_channel`].

use std::path::PathBuf;

use fleet_certs::slots::{IdentityDir, SlotError};
use fleet_certs::token::Token;
use fleet_types::id::Name;
use fleet_types::seal::PublicKey;
use fleet_types::time::Timestamp;
use fleet_types::trust::{RootKeys, SignedBundle};

use super::enrol::{EnrolError, Enrolled, redeem};
use super::identity::{IdentityError, OwnIdentity};
use crate::config::Config;
use crate::error::{Exit, Failure};
use crate::node::NodeRecord;

/// What the executor's half asks for.
#[derive(Debug, Clone)]
pub struct Order {
    /// The join token.
    pub token: Token,
    /// Public half of the executor's report key; the core knows nothing else of it.
    pub report_key: PublicKey,
    /// Join although the node has an identity already.
    pub replace: bool,
}

/// What the executor's half is to keep before the identity is used.
#[derive(Debug, Clone)]
pub struct Brought {
    /// The node's record.
    pub record: NodeRecord,
    /// The fleet's root keys: of the token's pin, which the executor looks at again.
    pub roots: RootKeys,
    /// The trust bundle, signed by them.
    pub bundle: SignedBundle,
    /// End of the certificate.
    pub not_after: Timestamp,
}

/// A join whose answer has come; nothing of it is in use yet.
#[derive(Debug)]
pub struct Joining {
    slots: IdentityDir,
    directory: PathBuf,
    enrolled: Enrolled,
}

/// How far [`begin`] came.
#[derive(Debug)]
pub enum Begun {
    /// The node joined with this token before, and its identity is in place.
    Already(Name),
    /// The controller has answered.
    Joining(Box<Joining>),
}

/// Redeems the token, unless that was done before.
pub async fn begin(config: &Config, order: &Order) -> Result<Begun, Failure> {
    let token = &order.token;
    let slots = IdentityDir::open(&config.identity_directory).map_err(|e| unusable(&e))?;
    if let Some(present) = present(config)? {
        let record = &present.record;
        // Its certificate may have been renewed since.
        if record.token_id == token.id.to_string() {
            // A crash may have come between the new identity and the end of the pending key.
            slots.discard_pending().map_err(|e| unusable(&e))?;
            return Ok(Begun::Already(present.record.name));
        }
        if !order.replace {
            let message = format!(
                "this node is enrolled as {} ({}): use --replace to join anew with another token",
                record.name, record.node
            );
            return Err(Failure::new(Exit::Identity, message));
        }
    }
    let missing = |key: &str| Failure::new(Exit::Usage, format!("configuration: {key} is missing"));
    let address = config.enrol.as_deref().ok_or_else(|| missing("controller.enrol"))?;
    let server_name = config.server_name.clone().ok_or_else(|| missing("controller.server_name"))?;
    let key = slots.pending_key().map_err(|e| unusable(&e))?;
    let enrolled = redeem(address, server_name, token, &key, &order.report_key, &config.timers)
        .await
        .map_err(|error| Failure::of(exit_of(&error), &error))?;
    let directory = config.identity_directory.clone();
    Ok(Begun::Joining(Box::new(Joining { slots, directory, enrolled })))
}

impl Joining {
    /// What the executor's half is to keep.
    pub fn brought(&self) -> Brought {
        Brought {
            record: self.enrolled.record.clone(),
            roots: self.enrolled.roots.clone(),
            bundle: self.enrolled.bundle.clone(),
            not_after: self.enrolled.not_after,
        }
    }

    /// The executor has kept its part: puts the identity in place.
    pub fn keep(self) -> Result<(), Failure> {
        self.enrolled.record.store(&self.directory).map_err(|e| unusable(&e))?;
        self.slots.store(&self.enrolled.identity).map_err(|e| unusable(&e))?;
        Ok(())
    }
}

fn unusable(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::of(Exit::Identity, error)
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
        Err(error) => Err(unusable(&error)),
    }
}

const fn exit_of(error: &EnrolError) -> Exit {
    match error {
        EnrolError::Dial(_) | EnrolError::Transport { .. } | EnrolError::Timeout | EnrolError::Lost(_) => {
            Exit::Unreachable
        }
        _ => Exit::Identity,
    }
}
