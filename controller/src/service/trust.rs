//! The trust bundle: stored and handed out here, made and signed elsewhere.

use fleet_types::trust::SignedBundle;
use fleet_types::view::{Done, TrustView};

use super::caller::Operator;
use super::idempotency::Once;
use crate::context::Context;
use crate::error::{ControllerError, Kind, Result};
use crate::repo::keys;
use crate::repo::ledger::Leaf;
use crate::repo::reader::BatchExt as _;

/// The newest bundle.
pub fn view(context: &Context) -> TrustView {
    let trust = context.trust.get();
    TrustView { schema: "fleet/v1/trust".to_owned(), version: trust.0.version, bundle: trust.1.clone() }
}

/// Takes a newer bundle that the root keys signed, and tells every connected node.
pub async fn publish(
    context: &Context,
    caller: &Operator,
    bytes: &[u8],
    idempotency_key: &str,
) -> Result<Done> {
    let once = Once::new(caller, idempotency_key, "trust.publish", &[bytes])?;
    if let Some(answer) = once.answer(context).await? {
        return Ok(answer);
    }
    let signed: SignedBundle = fleet_proto::convert::json("trust_bundle", bytes)?;
    let current = context.trust.get();
    let next = current.0.version + 1;
    let bundle = signed.open(&context.fleet.roots, context.fleet.fleet, next).map_err(|error| {
        ControllerError::new(Kind::Refused, "trust-refused", error.to_string())
            .fix("sign a bundle of the next version with the fleet's root key")
    })?;
    if bundle.version != next {
        return Err(ControllerError::new(
            Kind::Conflict,
            "trust-version",
            format!("the bundle has version {}, the next one is {next}", bundle.version),
        )
        .fix("fetch the newest bundle, change that, and sign it again"));
    }
    // A bundle without our own authorities would cut every node off from this controller.
    let keeps = |old: &[fleet_types::trust::Authority], new: &[fleet_types::trust::Authority]| {
        old.iter().all(|authority| new.contains(authority))
    };
    if !keeps(&current.0.controller_authorities, &bundle.controller_authorities)
        || !keeps(&current.0.agent_authorities, &bundle.agent_authorities)
        || !keeps(&current.0.operator_authorities, &bundle.operator_authorities)
        || bundle.audit_key != current.0.audit_key
    {
        return Err(ControllerError::new(
            Kind::Blocked,
            "trust-drops-authority",
            "the bundle leaves out an authority or key that is in use",
        )
        .fix("rotating authorities is not built yet; keep all that the newest bundle lists"));
    }
    let answer = Done {
        schema: "fleet/v1/done".to_owned(),
        message: format!("trust bundle version {next} is stored and sent to connected nodes"),
    };
    let stored = serde_json::to_vec(&signed).map_err(ControllerError::internal)?;
    let mut batch = context.ledger.batch().put_object(&keys::trust_bundle()?, &stored)?;
    batch = once.store(context, batch, &answer)?;
    let leaf = Leaf::new(caller.actor(), "trust.publish", format!("trust-bundle/{next}"))
        .subject(fleet_types::digest::Digest::of(&signed.payload))
        .idempotency(idempotency_key);
    context.ledger.commit(batch, vec![leaf]).await?;
    context.trust.set(bundle, signed);
    Ok(answer)
}
