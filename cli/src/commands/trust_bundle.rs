//! With a root key at hand: the next trust bundle, made from the newest one, signed here and published.
//!
//! The controller stores bundles and cannot make one (security-and-delivery §1.3), so this happens here. Called by
//! `login`, which lists one's own content key, and by `node reset-fence`.

use fleet_types::id::FleetId;
use fleet_types::seal::{PublicKey, SigningKey};
use fleet_types::time::Timestamp;
use fleet_types::trust::{ContentKey, RootKeys, TrustBundle};

use crate::client::{Client, EnrolledOperator};
use crate::context::Context;
use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// Somebody else may publish a bundle in between; more often than this in a row is no coincidence.
const MAX_TRIES: u32 = 3;

/// Whose bundles these are, and the root key that signs the next one.
pub(super) struct Root<'a> {
    /// The fleet.
    pub(super) fleet: FleetId,
    /// Its root keys, as this machine keeps them.
    pub(super) roots: &'a RootKeys,
    /// One of them, from its file.
    pub(super) key: &'a SigningKey,
}

impl Root<'_> {
    /// Publishes what `next` makes of the newest bundle, again where another one came in between. Gives its version;
    /// none where nothing is to be changed.
    pub(super) async fn publish(
        &self,
        client: &Client,
        reason: &str,
        next: impl Fn(TrustBundle) -> Option<TrustBundle>,
    ) -> Result<Option<u64>, Failure> {
        self.check()?;
        let (mut newest, mut tries) = (0, 0);
        loop {
            tries += 1;
            let current = client.trust_bundle().await?.bundle;
            let bundle = current.open(self.roots, self.fleet, newest).map_err(|error| {
                Failure::new(
                    ExitCode::Verification,
                    "not-trusted",
                    "the controller's trust bundle is refused",
                )
                .because(&error)
            })?;
            newest = bundle.version;
            let Some(next) = next(bundle) else { return Ok(None) };
            let signed = next
                .sign(self.key)
                .map_err(|error| Failure::unexpected("the trust bundle cannot be written", &error))?;
            match client.publish_trust_bundle(&signed, reason).await {
                Ok(_) => return Ok(Some(next.version)),
                Err(failure) if failure.exit == ExitCode::Conflict && tries < MAX_TRIES => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    fn check(&self) -> Result<(), Failure> {
        if !self.roots.keys.contains(&self.key.public()) {
            let what = "the root key in the file is none of this fleet's";
            return Err(Failure::new(ExitCode::Verification, "not-trusted", what)
                .fix("name the right file with --root-key"));
        }
        if self.roots.threshold > 1 {
            let what =
                format!("this fleet asks for {} root signatures on a trust bundle", self.roots.threshold);
            return Err(Failure::new(ExitCode::Blocked, "threshold", what)
                .fix("signing with several root keys is not built yet"));
        }
        Ok(())
    }
}

/// Publishes the next bundle with the content key of somebody who has just signed in.
pub(super) async fn list_content_key(
    session: &mut Session<'_>,
    context: &Context,
    enrolled: &EnrolledOperator,
    key: PublicKey,
    root: &SigningKey,
) -> Result<(), Failure> {
    let client = Client::connect(context, session.settings.call_limit(), session.environment.now).await?;
    let now = (session.environment.now)();
    let root = Root { fleet: enrolled.fleet, roots: &enrolled.roots, key: root };
    let next = |bundle: TrustBundle| {
        bundle.content_key(&key.id()).is_none().then(|| with_content_key(bundle, enrolled, key, now))
    };
    let published = root.publish(&client, "", next).await.map_err(|failure| {
        failure.cause("you are signed in; your content key is not listed in the trust bundle")
    })?;
    if let Some(version) = published {
        session.say(format!("trust bundle version {version} lists your content key {}", key.id().short()));
    }
    Ok(())
}

fn with_content_key(
    bundle: TrustBundle,
    enrolled: &EnrolledOperator,
    key: PublicKey,
    now: Timestamp,
) -> TrustBundle {
    let mut next = TrustBundle { version: bundle.version + 1, issued: now, ..bundle };
    // Older keys of the same person stay: documents that they signed are still in use.
    let (operator, person, role) = (enrolled.operator, enrolled.name.clone(), enrolled.role);
    next.content_keys.push(ContentKey { key, operator, person, role });
    next
}
