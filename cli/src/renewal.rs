//! The certificate of a context renews itself: whatever command connects when 60 % of its life are over asks for the next
//! one, with a new key, and uses it from then on (security-and-delivery §1.8, docs/adr/0044).
//!
//! Whoever comes back after it has ended is given another one on the enrolment port (§1.9, docs/adr/0035).
//!
//! It never asks anybody, prints nothing but what `--verbose` wants to know, and holds up no command: one that cannot
//! renew goes on with what it has. Of several programs at once one renews. Called by [`crate::session`].

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use fleet_certs::PeerIdentity;
use fleet_certs::ca::pin_of;
use fleet_certs::csr::PrivateKey;
use fleet_certs::files::KEY_MODE;
use fleet_certs::issue::{issued_at, renewal_due};
use fleet_certs::slots::{IdentityDir, Slot, StoredIdentity};
use fleet_certs::{rejoin, verify};
use fleet_types::seal::Kind;
use fleet_types::time::Timestamp;
use tokio::time::timeout;

use crate::client::{self, Client, RejoinRequest};
use crate::context::{Context, load_signing_key};
use crate::error::{ExitCode, Failure};

/// A controller that answers at all does so at once; the command itself is what is waited for.
const LIMIT: Duration = Duration::from_secs(5);
/// The end of a certificate is worth a warning from here on, or in the last quarter of a shorter life.
const WARN_BEFORE: Duration = Duration::from_hours(7 * 24);

/// Is it time to worry about its end?
pub fn ends_soon(certificate: &PeerIdentity, now: Timestamp) -> bool {
    let life = certificate.not_after.since(issued_at(certificate.not_before));
    certificate.not_after.since(now) < WARN_BEFORE.min(life / 4)
}

/// Renews the certificate of `client` where that is due; gives a connection with the new one. None where there is nothing
/// to do, or another program does it.
pub async fn if_due(
    context: &Context,
    client: &Client,
    limit: Duration,
    now: fn() -> Timestamp,
) -> Result<Option<Client>, Failure> {
    let present = client.certificate();
    // Without jitter: people do not come all at once.
    if now() < renewal_due(present.not_before, present.not_after, 0) {
        return Ok(None);
    }
    let folder = IdentityDir::open(&context.identity_folder()).map_err(|error| unusable(&error))?;
    let Some(_held) = lock(&context.identity_folder().join("lock"))? else { return Ok(None) };
    let loaded = folder.load().map_err(|error| unusable(&error))?;
    let is_present = verify_leaf(&loaded.identity)?.serial == present.serial;
    if !is_present {
        // Another program has renewed it since this one read it.
        return Client::connect(context, limit, now).await.map(Some);
    }
    let key = folder.pending_key().map_err(|error| unusable(&error))?;
    let csr = key.request().map_err(|error| unusable(&error))?;
    let asked = timeout(LIMIT, client.renew_certificate(csr)).await;
    let chain = asked.map_err(|_| {
        Failure::new(ExitCode::TimedOut, "timed-out", "the controller did not answer in time")
    })??;
    let renewed = StoredIdentity { key_pem: key.to_pem(), chain, ..loaded.identity };
    check(context, &renewed, present, now)?;
    folder.store(&renewed).map_err(|error| unusable(&error))?;
    used(context, &folder, loaded.slot, (limit, now)).await
}

/// Asks for another certificate with one that has ended, with proof by its key and by the content key, and connects.
/// Programs that come at once wait for the one that asks.
pub async fn come_back(
    context: &Context,
    limit: Duration,
    now: fn() -> Timestamp,
) -> Result<Client, Failure> {
    let folder = IdentityDir::open(&context.identity_folder()).map_err(|error| unusable(&error))?;
    let path = context.identity_folder().join("lock");
    let waiting = tokio::task::spawn_blocking(move || {
        let file = open_lock(&path)?;
        file.lock().map(|()| file).map_err(|error| unusable(&error))
    });
    let late = |_| Failure::new(ExitCode::TimedOut, "timed-out", "another fleetctl does not end its renewal");
    let _held = timeout(limit, waiting).await.map_err(late)?.map_err(|error| unusable(&error))??;
    let loaded = folder.load().map_err(|error| unusable(&error))?;
    let present = verify_leaf(&loaded.identity)?;
    if now() < present.not_after {
        return Client::connect(context, limit, now).await;
    }
    let key = folder.pending_key().map_err(|error| unusable(&error))?;
    let csr = key.request().map_err(|error| unusable(&error))?;
    let certificate = loaded.identity.chain.first().map(|der| der.to_vec()).unwrap_or_default();
    let subject = rejoin::subject(context.fleet, &certificate, &csr);
    let last_key = PrivateKey::from_pem(&loaded.identity.key_pem).map_err(|error| unusable(&error))?;
    let content_key = load_signing_key(&context.content_key_file())?;
    let authorities = &loaded.identity.controller_authorities;
    let chain = client::rejoin(RejoinRequest {
        context,
        pins: authorities.iter().map(pin_of).collect::<Result<_, _>>().map_err(|error| unusable(&error))?,
        certificate,
        request: csr,
        signature: rejoin::sign(&last_key, subject).map_err(|error| unusable(&error))?,
        content_signature: content_key.sign(Kind::Rejoin, context.fleet, subject),
        limit,
        now,
    })
    .await?;
    let renewed = StoredIdentity { key_pem: key.to_pem(), chain, ..loaded.identity };
    check(context, &renewed, &present, now)?;
    folder.store(&renewed).map_err(|error| unusable(&error))?;
    Client::connect(context, limit, now).await
}

/// Tries the new one. Where the controller does not accept it, the one before is put back; where nobody answers, that is
/// for the next command to find out.
async fn used(
    context: &Context,
    folder: &IdentityDir,
    before: Slot,
    (limit, now): (Duration, fn() -> Timestamp),
) -> Result<Option<Client>, Failure> {
    let tried = async {
        let client = Client::connect(context, limit, now).await?;
        client.who_am_i().await?;
        Ok::<_, Failure>(client)
    };
    match tried.await {
        Ok(client) => Ok(Some(client)),
        Err(failure) if failure.exit == ExitCode::NotAllowed => {
            folder.select(before).map_err(|error| unusable(&error))?;
            Err(failure)
        }
        Err(_) => Ok(None),
    }
}

/// The certificate must be ours, of the key that was asked for, good now, and last longer.
fn check(
    context: &Context,
    renewed: &StoredIdentity,
    present: &PeerIdentity,
    now: fn() -> Timestamp,
) -> Result<(), Failure> {
    let refused = |why: &str| {
        Failure::new(ExitCode::Verification, "not-trusted", format!("the certificate that came {why}"))
    };
    let certificate = verify_leaf(renewed)?;
    if certificate.identity != present.identity {
        return Err(refused("is somebody else's"));
    }
    if certificate.not_after <= present.not_after {
        return Err(refused("lasts no longer than the present one"));
    }
    // As the controller will look at it; also refuses a certificate of another key.
    client::tls(context, renewed, now).map(drop)
}

fn verify_leaf(identity: &StoredIdentity) -> Result<PeerIdentity, Failure> {
    let leaf = identity.chain.first();
    let leaf =
        leaf.ok_or_else(|| Failure::new(ExitCode::Verification, "not-trusted", "no certificate came"))?;
    verify::describe(leaf).map_err(|error| unusable(&error))
}

/// Holds the renewal of a context; none where another program does.
fn lock(path: &Path) -> Result<Option<File>, Failure> {
    let file = open_lock(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(unusable(&error)),
    }
}

fn open_lock(path: &Path) -> Result<File, Failure> {
    let file = File::options().create(true).truncate(false).write(true).mode(KEY_MODE).open(path);
    file.map_err(|error| unusable(&error))
}

fn unusable(error: &dyn std::error::Error) -> Failure {
    Failure::new(ExitCode::Unexpected, "bad-identity", "the identity cannot be kept").because(error)
}
