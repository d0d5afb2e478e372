//! The next trust bundle, made from the newest one, signed here and published.
//!
//! The controller stores bundles and cannot make one (security-and-delivery §1.3), so this happens here: with a root key, or
//! with the content key of a security-admin to whom the root keys leave the list of operators' keys. Called by `login`,
//! `node reset-fence` and `operator`.

use std::path::Path;

use fleet_proto::convert;
use fleet_types::digest::Digest;
use fleet_types::id::FleetId;
use fleet_types::seal::{Kind, PublicKey, SigningKey};
use fleet_types::time::Timestamp;
use fleet_types::trust::{ContentKey, Proposal, RootKeys, RootSignature, SignedBundle, TrustBundle};
use fleet_types::view::TrustView;

use crate::client::{Client, EnrolledOperator};
use crate::context::{Context, load_signing_key};
use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// Somebody else may publish a bundle in between; more often than this in a row is no coincidence.
const MAX_TRIES: u32 = 3;

/// Whose bundles these are, and the key that signs the next one.
pub(super) struct Publisher {
    /// The fleet.
    fleet: FleetId,
    /// Its root keys, as this machine keeps them.
    roots: RootKeys,
    /// A root key, or a content key.
    key: SigningKey,
    is_root: bool,
}

/// What became of the next bundle.
pub(super) struct Published {
    /// Its version.
    pub(super) version: u64,
    /// What the controller says of it: stored, or waiting for signatures.
    pub(super) message: String,
}

impl Publisher {
    /// With the root key in this file; without a file, with the content key of the context.
    pub(super) fn load(context: &Context, root_key: Option<&Path>) -> Result<Self, Failure> {
        let roots = root_keys(&context.root_keys_file())?;
        let key = match root_key {
            Some(file) => load_signing_key(file)?,
            None => load_signing_key(&context.content_key_file())?,
        };
        Self { fleet: context.entry.fleet, roots, key, is_root: root_key.is_some() }.checked()
    }

    fn checked(self) -> Result<Self, Failure> {
        if self.is_root && !self.roots.keys.contains(&self.key.public()) {
            let what = "the root key in the file is none of this fleet's";
            return Err(Failure::new(ExitCode::Verification, "not-trusted", what)
                .fix("name the right file with --root-key"));
        }
        Ok(self)
    }

    /// The newest bundle, checked with the root keys that this machine keeps.
    pub(super) fn open(&self, signed: &SignedBundle, seen: u64) -> Result<TrustBundle, Failure> {
        signed.open(&self.roots, self.fleet, seen).map_err(|error| {
            Failure::new(ExitCode::Verification, "not-trusted", "the controller's trust bundle is refused")
                .because(&error)
        })
    }

    /// May this key sign a change of the list of operators' keys? Asked before anything else is done.
    pub(super) fn check_may_list(&self, bundle: &TrustBundle) -> Result<(), Failure> {
        let id = self.key.public().id();
        let authority = bundle.operator_key_authority.as_ref();
        if self.is_root || authority.is_some_and(|authority| authority.keys.contains(&id)) {
            return Ok(());
        }
        let what = "the root keys leave the list of operators' keys to others, or to nobody";
        Err(Failure::new(ExitCode::Blocked, "not-delegated", what).fix(
            "add --root-key FILE, or have a holder of the root key leave it to you: fleetctl operator delegate NAME… --root-key FILE",
        ))
    }

    /// Publishes what `next` makes of the newest bundle, again where another one came in between; none where nothing is
    /// to be changed.
    pub(super) async fn publish(
        &self,
        client: &Client,
        reason: &str,
        next: impl Fn(TrustBundle) -> Option<TrustBundle>,
    ) -> Result<Option<Published>, Failure> {
        let (mut newest, mut tries) = (0, 0);
        loop {
            tries += 1;
            let TrustView { bundle: current, proposal, .. } = client.trust_bundle().await?;
            let bundle = self.open(&current, newest)?;
            newest = bundle.version;
            let Some(next) = next(bundle.clone()) else { return Ok(None) };
            let mut signed = next
                .sign(&self.key)
                .map_err(|error| Failure::unexpected("the trust bundle cannot be written", &error))?;
            if !self.is_root {
                let adds = next.content_keys.iter().any(|key| !bundle.content_keys.contains(key));
                signed.base = Some(Box::new(current.base_of_change(adds)));
            }
            match client.publish_trust_bundle(&signed, reason).await {
                Ok(done) => {
                    // Two changes of one bundle do not add up: whoever made the other one makes it anew.
                    let void =
                        if proposal.is_some() { "; the change that waited before is void" } else { "" };
                    let message = format!("{}{void}", done.message);
                    return Ok(Some(Published { version: next.version, message }));
                }
                Err(failure) if failure.exit == ExitCode::Conflict && tries < MAX_TRIES => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    /// What waits for signatures, if its signatures so far are worth something.
    pub(super) fn propose(&self, signed: &SignedBundle, current: &TrustBundle) -> Result<Proposal, Failure> {
        signed.propose(&self.roots, self.fleet, current).map_err(|error| {
            Failure::new(ExitCode::Verification, "not-trusted", "the trust bundle that waits is refused")
                .because(&error)
        })
    }

    /// The same with one signature more.
    pub(super) fn countersign(&self, mut signed: SignedBundle) -> SignedBundle {
        let (key, digest) = (self.key.public().id(), Digest::of(&signed.payload));
        let signature = self.key.sign(Kind::TrustBundle, self.fleet, digest);
        signed.signatures.push(RootSignature { key, signature });
        signed
    }

    /// The public half of the key that signs.
    pub(super) fn public(&self) -> PublicKey {
        self.key.public()
    }
}

fn root_keys(path: &Path) -> Result<RootKeys, Failure> {
    let unusable = |why: &dyn std::error::Error| {
        let what = format!("the root keys in {} cannot be read", path.display());
        Failure::new(ExitCode::Unexpected, "bad-identity", what)
            .because(why)
            .fix("sign in again: fleetctl login")
    };
    let bytes = std::fs::read(path).map_err(|error| unusable(&error))?;
    convert::json("root_keys", &bytes).map_err(|error| unusable(&error))
}

/// Publishes the next bundle with the content key of somebody who has just signed in.
pub(super) async fn list_content_key(
    session: &mut Session<'_>,
    context: &Context,
    enrolled: &EnrolledOperator,
    key: PublicKey,
    root_key: &Path,
) -> Result<(), Failure> {
    let client = Client::connect(context, session.settings.call_limit(), session.environment.now).await?;
    let now = (session.environment.now)();
    let (operator, person, role) = (enrolled.operator, enrolled.name.clone(), enrolled.role);
    let entry = ContentKey { key, operator, person, role };
    let next = |bundle: TrustBundle| with_content_key(bundle, &entry, now);
    let published = match Publisher::load(context, Some(root_key)) {
        Ok(root) => root.publish(&client, "", next).await,
        Err(failure) => Err(failure),
    };
    let published = published.map_err(|failure| {
        failure.cause("you are signed in; your content key is not listed in the trust bundle")
    })?;
    if let Some(Published { version, .. }) = published {
        session.say(format!("trust bundle version {version} lists your content key {}", key.id().short()));
    }
    Ok(())
}

/// The next bundle with a key more; none where it is listed. Older keys of the same person stay: documents that they
/// signed are still in use.
pub(super) fn with_content_key(
    bundle: TrustBundle,
    entry: &ContentKey,
    now: Timestamp,
) -> Option<TrustBundle> {
    if bundle.content_key(&entry.key.id()).is_some() {
        return None;
    }
    let keys = bundle.content_keys.iter().chain([entry]).cloned().collect();
    Some(bundle.with_content_keys(keys, now))
}
