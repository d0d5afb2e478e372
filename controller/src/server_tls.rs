//! The controller's own certificate: made at the start, and again while it runs, between 60 and 75 % of its life
//! (security-and-delivery §1.8). Listeners read what is published for every new connection; connections that exist
//! stay as they are. With it the authority vouches anew for the dispatch key, which agents are told of at every
//! connect. Key and certificate are in memory only. Also says in the log when an authority is about to end.
//!
//! Started by the program; nobody else publishes settings.

use std::sync::Arc;
use std::time::Duration;

use fleet_certs::issue::{issued_at, renewal_due};
use fleet_certs::tls::{self, EnrolmentServer, MutualServer, TlsClock};
use fleet_certs::{CertificateDer, PeerIdentity, ServerConfig, ServerName};
use fleet_types::time::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::keyring::{self, KeyringError};

/// How often it looks whether a renewal is due: by the wall clock, since timers stand still while the machine is
/// suspended. A failed one is tried again at the next look.
const LOOK: Duration = Duration::from_mins(1);
/// Looks in a life at least, where tests make it short.
const LOOKS_A_LIFE: u32 = 40;
/// How often the ends of the authorities are told.
const TELL_EVERY: Duration = Duration::from_hours(24);

/// Why there is no certificate, or no settings with it.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// The authority gives none.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Clients would refuse it.
    #[error("tls settings cannot be used")]
    Tls(#[from] tls::TlsError),
}

/// What is published for the two ports.
pub struct ServerCertificate {
    context: Arc<Context>,
    server_names: Vec<String>,
    mutual: watch::Sender<Arc<ServerConfig>>,
    enrolment: watch::Sender<Arc<ServerConfig>>,
    certificate: PeerIdentity,
    due: Timestamp,
}

/// Settings with one certificate.
struct Settings {
    mutual: Arc<ServerConfig>,
    enrolment: Arc<ServerConfig>,
    certificate: PeerIdentity,
}

fn make(context: &Context, server_names: &[String]) -> Result<Settings, ServerTlsError> {
    let identities = &context.identities;
    let fleet = identities.fleet.fleet;
    let name = (fleet, identities.fleet.controller);
    let (now, life) = (context.storage.clock.now(), context.settings.controller_certificate);
    let identity = identities.keyring.server_identity(name, server_names, now, life)?;
    let certificate = identity.describe()?;
    // The configuration was validated: every name parses.
    let server_name = server_names.first().and_then(|name| ServerName::try_from(name.clone()).ok());
    let server_name = server_name.ok_or_else(|| tls::TlsError::Trust("server name".to_owned()))?;
    let trust = identities.trust.get();
    let certificates = |authorities: &[fleet_types::trust::Authority]| -> Vec<CertificateDer<'static>> {
        authorities.iter().map(|authority| CertificateDer::from(authority.certificate.clone())).collect()
    };
    let clock = context.storage.clock.clone();
    let tls_clock = TlsClock::reading(move || clock.now());
    let controller_authorities = certificates(&trust.0.controller_authorities);
    let mutual = MutualServer {
        fleet,
        identity: identity.clone(),
        server_name: server_name.clone(),
        controller_authorities: controller_authorities.clone(),
        agent_authorities: certificates(&trust.0.agent_authorities),
        operator_authorities: certificates(&trust.0.operator_authorities),
        denied: Arc::clone(&identities.denied),
        clock: tls_clock.clone(),
    };
    let enrolment =
        EnrolmentServer { fleet, identity, server_name, controller_authorities, clock: tls_clock };
    Ok(Settings { mutual: mutual.build()?, enrolment: enrolment.build()?, certificate })
}

impl ServerCertificate {
    /// A first certificate; the receivers are for the listeners of the two ports.
    pub fn publish(
        context: Arc<Context>,
        server_names: Vec<String>,
    ) -> Result<(Self, tls::ServerTls, tls::ServerTls), ServerTlsError> {
        let Settings { mutual, enrolment, certificate } = make(&context, &server_names)?;
        let ((mutual, main_port), (enrolment, enrolment_port)) =
            (tls::publish(mutual), tls::publish(enrolment));
        let due = due(&context, &certificate);
        Ok((Self { context, server_names, mutual, enrolment, certificate, due }, main_port, enrolment_port))
    }

    /// Renews it until the stop.
    pub async fn keep(mut self, stop: CancellationToken) {
        let life = self.certificate.not_after.since(issued_at(self.certificate.not_before));
        let look = LOOK.min(life / LOOKS_A_LIFE);
        let mut tell = self.context.storage.clock.now();
        loop {
            let now = self.context.storage.clock.now();
            // A clock that was set back by more than that must not silence it.
            if now >= tell || tell.since(now) > TELL_EVERY {
                tell_ends(&self.context, now);
                tell = now.plus(TELL_EVERY);
            }
            if let Err(error) = self.renew_if_due() {
                tracing::error!(
                    not_after = %self.certificate.not_after,
                    "the controller's own certificate is not renewed: {error}; it is tried again"
                );
            }
            if timeout(look, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    fn renew_if_due(&mut self) -> Result<bool, ServerTlsError> {
        let now = self.context.storage.clock.now();
        // Set back behind its start, clients whose clocks are right have no use for it either.
        if self.certificate.not_before <= now && now < self.due {
            return Ok(false);
        }
        let identities = &self.context.identities;
        let fleet = &identities.fleet;
        let statement = identities.keyring.dispatch_statement(fleet.fleet, fleet.controller, now)?;
        let Settings { mutual, enrolment, certificate } = make(&self.context, &self.server_names)?;
        identities.wave_signer.renew(statement);
        self.mutual.send_replace(mutual);
        self.enrolment.send_replace(enrolment);
        tracing::info!(not_after = %certificate.not_after, "the controller's own certificate is renewed");
        self.due = due(&self.context, &certificate);
        self.certificate = certificate;
        Ok(true)
    }
}

fn due(context: &Context, certificate: &PeerIdentity) -> Timestamp {
    let random = u16::from_be_bytes(context.storage.clock.random());
    renewal_due(certificate.not_before, certificate.not_after, random)
}

fn tell_ends(context: &Context, now: Timestamp) {
    for (role, end) in context.identities.keyring.ends() {
        match keyring::notice(now, end) {
            keyring::Notice::None => {}
            keyring::Notice::Warn => tracing::warn!("{}", keyring::about_end(role, now, end)),
            keyring::Notice::Urgent => tracing::error!("{}", keyring::about_end(role, now, end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use fleet_store::MemoryStore;

    use super::*;
    use crate::clock::Clock;
    use crate::testing::TestContext;

    #[tokio::test]
    async fn the_own_certificate_is_renewed_in_time_and_so_is_the_word_for_the_dispatch_key() {
        let begin: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let test = TestContext::at(Arc::new(MemoryStore::new()), Clock::manual(begin)).await;
        let clock = test.context.storage.clock.clone();
        let names = vec!["localhost".to_owned()];
        let (mut own, mut main_port, mut enrolment_port) =
            ServerCertificate::publish(Arc::clone(&test.context), names).unwrap();
        let (first, statement) = (own.certificate.clone(), test.context.identities.wave_signer.statement());
        assert_eq!(first.not_after, begin.plus(Duration::from_hours(72)));
        clock.set(begin.plus(Duration::from_hours(43)));
        assert!(!own.renew_if_due().unwrap() && !main_port.has_changed().unwrap());
        clock.set(begin.plus(Duration::from_hours(54)));
        assert!(own.renew_if_due().unwrap());
        assert!(main_port.has_changed().unwrap() && enrolment_port.has_changed().unwrap());
        assert_ne!(own.certificate.serial, first.serial);
        assert_eq!(own.certificate.not_after, begin.plus(Duration::from_hours(54 + 72)));
        assert_ne!(*test.context.identities.wave_signer.statement(), *statement);
        // A clock that is set back by a month gets one that clients with the right time accept.
        main_port.mark_unchanged();
        enrolment_port.mark_unchanged();
        clock.set(begin.minus(Duration::from_hours(720)));
        assert!(own.renew_if_due().unwrap() && main_port.has_changed().unwrap());
        assert!(own.certificate.not_before < begin.minus(Duration::from_hours(719)));
    }

    #[tokio::test]
    async fn an_authority_that_ends_this_half_year_is_told_in_the_status() {
        let begin: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let test = TestContext::at(Arc::new(MemoryStore::new()), Clock::manual(begin)).await;
        let told = async || -> Vec<String> {
            let status = crate::service::views::status(&test.context).await.unwrap();
            status.attention.into_iter().map(|line| format!("{}: {}", line.subject, line.message)).collect()
        };
        assert!(told().await.is_empty());
        test.context.storage.clock.set(begin.plus(Duration::from_hours(87600 - 100 * 24)));
        let lines = told().await;
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("agent authority: the agent authority ends 2036-"), "{}", lines[1]);
        assert!(lines[1].contains("in 100 days"), "{}", lines[1]);
    }
}
