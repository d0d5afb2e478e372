//! Is what an operator sends signed by that operator, with a key that nodes accept? Asked before anything signed is read.

use fleet_types::seal::{Envelope, Kind as SealKind};

use super::caller::Operator;
use crate::context::Identities;
use crate::error::{ControllerError, Kind, Result};

/// Refuses what somebody else signed, or with a key that the trust bundle does not list; `what` names it in messages.
pub fn check(
    identities: &Identities,
    caller: &Operator,
    envelope: &Envelope,
    kind: SealKind,
    what: &str,
) -> Result<()> {
    if envelope.key != caller.record.content_key.id() {
        return Err(ControllerError::new(
            Kind::Refused,
            "foreign-signature",
            format!("{what}: it is signed with a key that is not yours"),
        )
        .fix("sign it with the content key that fleetctl login made for you"));
    }
    let trust = identities.trust.get();
    trust.0.verify_content(envelope, kind).map(drop).map_err(|error| {
        ControllerError::new(Kind::Blocked, "signature-refused", format!("{what}: {error}")).fix(
            "nodes accept only keys of the trust bundle: have a security-admin list yours (fleetctl operator admit; fleetctl whoami shows it)",
        )
    })
}
