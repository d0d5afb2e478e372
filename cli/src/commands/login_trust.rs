//! With a root key at hand: lists one's own content key in the next trust bundle.
//!
//! The controller stores bundles and cannot make one (security-and-delivery §1.3), so this happens here.

use fleet_types::seal::{PublicKey, SigningKey};
use fleet_types::trust::{ContentKey, TrustBundle};

use crate::client::{Client, EnrolledOperator};
use crate::context::Context;
use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// Somebody else may publish a bundle in between; more often than this in a row is no coincidence.
const MAX_TRIES: u32 = 3;

/// Publishes version + 1 of the bundle with `key` listed.
pub(super) async fn list_content_key(
    session: &mut Session<'_>,
    context: &Context,
    enrolled: &EnrolledOperator,
    key: PublicKey,
    root: &SigningKey,
) -> Result<(), Failure> {
    if !enrolled.roots.keys.contains(&root.public()) {
        let what = "the root key in the file is none of this fleet's";
        return Err(Failure::new(ExitCode::Verification, "not-trusted", what)
            .fix("you are signed in; have your content key listed with the right file"));
    }
    if enrolled.roots.threshold > 1 {
        let what =
            format!("this fleet asks for {} root signatures on a trust bundle", enrolled.roots.threshold);
        return Err(Failure::new(ExitCode::Blocked, "threshold", what)
            .fix("you are signed in; signing with several root keys is not built yet"));
    }
    let mut newest = 0;
    let client = Client::connect(context, session.settings.call_limit(), session.environment.now).await?;
    let mut tries = 0;
    loop {
        tries += 1;
        let current = client.trust_bundle().await?.bundle;
        let bundle = current.open(&enrolled.roots, enrolled.fleet, newest).map_err(|error| {
            Failure::new(ExitCode::Verification, "not-trusted", "the controller's trust bundle is refused")
                .because(&error)
        })?;
        newest = bundle.version;
        if bundle.content_key(&key.id()).is_some() {
            return Ok(());
        }
        let next = next_bundle(bundle, enrolled, key, (session.environment.now)());
        let signed = next
            .sign(root)
            .map_err(|error| Failure::unexpected("the trust bundle cannot be written", &error))?;
        match client.publish_trust_bundle(&signed).await {
            Ok(_) => {
                session.say(format!(
                    "trust bundle version {} lists your content key {}",
                    next.version,
                    key.id().short()
                ));
                return Ok(());
            }
            Err(failure) if failure.exit == ExitCode::Conflict && tries < MAX_TRIES => {}
            Err(failure) => return Err(failure),
        }
    }
}

fn next_bundle(
    bundle: TrustBundle,
    enrolled: &EnrolledOperator,
    key: PublicKey,
    now: fleet_types::time::Timestamp,
) -> TrustBundle {
    let mut next = TrustBundle { version: bundle.version + 1, issued: now, ..bundle };
    // Older keys of the same person stay: documents that they signed are still in use.
    let (operator, person, role) = (enrolled.operator, enrolled.name.clone(), enrolled.role);
    next.content_keys.push(ContentKey { key, operator, person, role });
    next
}
