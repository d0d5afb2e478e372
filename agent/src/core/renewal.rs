//! Renewal of the node's certificate: when it is due, and one try of it (security-and-delivery §1.8, docs/adr/0044). Also
//! coming back with one that has ended (§1.9, docs/adr/0035), which differs in whom it asks, and how.
//!
//! Between 60 and 75 % of the certificate's life, by the wall clock, a new key is made and written, its request sent over
//! the live link, and what comes back checked and stored in the slot that is not in use. A try that fails
//! is made again after a growing pause, in proportion to the certificate's life. Only the link's owner drives it
//! ([`super::identity_in_use`]); over a link nothing here dials.

use std::sync::Arc;
use std::time::Duration;

use fleet_certs::ca::pin_of;
use fleet_certs::csr::{PrivateKey, RequestError};
use fleet_certs::dial::{Connector, DialError};
use fleet_certs::issue::{issued_at, renewal_due};
use fleet_certs::slots::{IdentityDir, SlotError, StoredIdentity};
use fleet_certs::tls::{EnrolmentClient, TlsClock, publish};
use fleet_certs::verify::{NameError, describe};
use fleet_certs::{CertificateDer, ClientConfig, Identity, PeerIdentity, ServerName, rejoin};
use fleet_proto::MAX_CONTROL_BYTES;
use fleet_proto::pb;
use fleet_proto::pb::agent_service_client::AgentServiceClient;
use fleet_proto::pb::enrol_service_client::EnrolServiceClient;
use fleet_types::time::Timestamp;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint};

use super::identity::{Certified, client};
use super::link::status_detail;
use crate::clock;
use crate::error::chain;

/// The controller writes one record; a slow disk may take seconds.
const REPLY_LIMIT: Duration = Duration::from_secs(30);
/// First and longest pause after a try that failed, as parts of a life: two minutes and 70 minutes of three days. At 75 %
/// of its life a certificate has time for a dozen of the longest ones.
const PAUSES: (u32, u32) = (2048, 64);

/// Why there is no new certificate yet. The one in use stays.
#[derive(Debug, thiserror::Error)]
pub enum NotRenewed {
    /// A controller of an earlier release.
    #[error("this controller cannot renew certificates yet: upgrade it")]
    NotBuilt,
    /// It said no.
    #[error("the controller refuses it: {0}")]
    Refused(String, Option<Duration>),
    /// The enrolment service.
    #[error("the enrolment service is not reached: {0}")]
    Unreachable(String),
    /// The link broke, or no answer came: the same request again brings the same certificate.
    #[error("no answer came")]
    NoAnswer,
    /// The key or its request.
    #[error("the request cannot be made")]
    Request(#[from] RequestError),
    /// Key or identity cannot be read or written.
    #[error("the identity cannot be stored")]
    Slots(#[from] SlotError),
    /// What came is no certificate.
    #[error("the certificate that came cannot be read")]
    Name(#[from] NameError),
    /// It names somebody else.
    #[error("the certificate that came is {found}'s, not {expected}'s")]
    OtherIdentity {
        /// This node.
        expected: Identity,
        /// Found.
        found: Identity,
    },
    /// It begins later than this machine's clock says.
    #[error(
        "the certificate that came begins {not_before} and this machine's clock says {now}: set the clock"
    )]
    Early {
        /// Its begin.
        not_before: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// It lasts no longer than the one in use.
    #[error(
        "the certificate that came ends {0}, no later than the one in use: look at the controller's agent authority"
    )]
    Useless(Timestamp),
    /// Peers would refuse it, or it is not of the key that was asked for.
    #[error("the certificate that came cannot be used")]
    Tls(#[from] fleet_certs::tls::TlsError),
    /// A defect here.
    #[error("the renewal ended without a result")]
    Defect(#[from] JoinError),
}

/// When to try.
#[derive(Debug)]
pub struct Schedule {
    due: Timestamp,
    life: Duration,
    pause: Duration,
    not_until: Option<Instant>,
}

impl Schedule {
    /// For a certificate; `random` spreads its renewal.
    pub fn new(certificate: &PeerIdentity, random: u16) -> Self {
        let life = certificate.not_after.since(issued_at(certificate.not_before));
        Self {
            due: renewal_due(certificate.not_before, certificate.not_after, random),
            life,
            pause: life / PAUSES.0,
            not_until: None,
        }
    }

    /// Is it time to try? A clock that was set back waits, one that was set forward asks at once; what the
    /// certificate is worth is for the controller's clock to say.
    pub fn is_due(&self, wall: Timestamp, now: Instant) -> bool {
        wall >= self.due && self.not_until.is_none_or(|at| now >= at)
    }

    /// A try has failed. `draw` gives a length up to its argument. Gives the pause.
    pub fn failed(
        &mut self,
        why: &NotRenewed,
        now: Instant,
        draw: impl Fn(Duration) -> Duration,
    ) -> Duration {
        let longest = self.life / PAUSES.1;
        let named = match why {
            NotRenewed::NotBuilt => Some(longest),
            // A controller that asks for more is wrong or hostile.
            NotRenewed::Refused(_, named) => named.map(|named| named.min(longest)),
            _ => None,
        };
        let half = self.pause / 2;
        let pause = named.unwrap_or(half + draw(half));
        self.pause = (self.pause * 2).min(longest);
        self.not_until = Some(now + pause);
        pause
    }
}

/// Whom a try asks.
#[derive(Debug)]
pub enum Way {
    /// The controller at the other end of the live link.
    Link(AgentServiceClient<Channel>),
    /// The enrolment service, with proof by the key of the certificate that has ended.
    Enrolment(Enrolment),
}

/// Where nodes enrol and come back.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// As configured.
    pub address: String,
    /// Longest wait for a connection.
    pub connect: Duration,
}

/// What a try needs; owned, since it goes on while the link does other things.
#[derive(Debug)]
pub struct Try {
    /// Whom it asks.
    pub way: Way,
    /// Where identities lie.
    pub directory: IdentityDir,
    /// The one in use.
    pub present: Certified,
    /// As configured.
    pub server_name: ServerName<'static>,
}

impl Try {
    /// Asks for a certificate for the pending key, checks and stores it. When this gives an identity, it is the one that
    /// the next start uses.
    pub async fn carry_out(self) -> Result<Certified, NotRenewed> {
        let (directory, slot) = (self.directory.clone(), self.present.slot);
        // The key is on the disk before its request leaves: after a crash or a lost reply it is asked for again. The new
        // identity must not go where the one in use lies, which after going back to it is not where the pointer led.
        let key = spawn_blocking(move || {
            directory.select(slot)?;
            directory.pending_key()
        })
        .await??;
        let (csr, present) = (key.request()?, self.present);
        let reply = match self.way {
            Way::Link(mut client) => timeout(REPLY_LIMIT, client.renew(pb::RenewRequest { csr })).await,
            Way::Enrolment(enrolment) => {
                let mut client = enrolment.dial(&present, &self.server_name).await?;
                let request = rejoin_request(&present, csr)?;
                timeout(REPLY_LIMIT, client.rejoin(request)).await
            }
        };
        let reply = match reply {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => return Err(refusal(&status)),
            Err(_) => return Err(NotRenewed::NoAnswer),
        };
        let chain: Vec<_> = reply.certificate_chain.into_iter().map(CertificateDer::from).collect();
        let identity = StoredIdentity { key_pem: key.to_pem(), chain, ..present.stored };
        let certificate = check(&identity, &present.certificate, clock::now())?;
        // As a controller will look at it; also refuses a certificate of another key than ours.
        client(&identity, certificate.identity.fleet(), self.server_name)?;
        let directory = self.directory;
        spawn_blocking(move || {
            let slot = directory.store(&identity)?;
            Ok(Certified { stored: identity, certificate, slot })
        })
        .await?
    }
}

impl Enrolment {
    /// TLS settings without a certificate of one's own, for a controller whose authority this node knows.
    pub fn tls(
        present: &Certified,
        server_name: &ServerName<'static>,
    ) -> Result<Arc<ClientConfig>, fleet_certs::tls::TlsError> {
        let authorities = &present.stored.controller_authorities;
        let settings = EnrolmentClient {
            pins: authorities.iter().map(pin_of).collect::<Result<_, _>>()?,
            fleet: Some(present.certificate.identity.fleet()),
            server_name: server_name.clone(),
            clock: TlsClock::reading(clock::now),
        };
        settings.build()
    }

    async fn dial(
        &self,
        present: &Certified,
        server_name: &ServerName<'static>,
    ) -> Result<EnrolServiceClient<Channel>, NotRenewed> {
        let (_published, tls) = publish(Self::tls(present, server_name)?);
        let connector = Connector::new(tls, server_name.clone()).with_limits(self.connect, self.connect);
        let unreachable = |error: tonic::transport::Error| {
            let words = DialError::find(&error).map_or_else(|| chain(&error), |dial| chain(dial));
            NotRenewed::Unreachable(words)
        };
        let channel = Endpoint::from_shared(format!("http://{}", self.address))
            .map_err(unreachable)?
            .connect_timeout(self.connect * 3)
            .connect_with_connector(connector)
            .await
            .map_err(unreachable)?;
        Ok(EnrolServiceClient::new(channel).max_decoding_message_size(MAX_CONTROL_BYTES))
    }
}

fn rejoin_request(present: &Certified, csr: Vec<u8>) -> Result<pb::RejoinRequest, NotRenewed> {
    let certificate = present.stored.chain.first().map(|der| der.to_vec()).unwrap_or_default();
    let subject = rejoin::subject(present.certificate.identity.fleet(), &certificate, &csr);
    let key = PrivateKey::from_pem(&present.stored.key_pem)?;
    let signature = rejoin::sign(&key, subject)?;
    Ok(pb::RejoinRequest { certificate, csr, signature, content_signature: Vec::new() })
}

fn refusal(status: &tonic::Status) -> NotRenewed {
    let detail = status_detail(status);
    match status.code() {
        tonic::Code::Unimplemented => NotRenewed::NotBuilt,
        code => match detail {
            Some(detail) => {
                let retry = (detail.retry_after_ms > 0).then(|| Duration::from_millis(detail.retry_after_ms));
                let words = detail.message.chars().filter(|c| !c.is_control()).take(300).collect();
                NotRenewed::Refused(words, retry)
            }
            // Nobody but the transport has spoken.
            None if matches!(
                code,
                tonic::Code::Unknown | tonic::Code::Unavailable | tonic::Code::Cancelled
            ) =>
            {
                NotRenewed::NoAnswer
            }
            None => NotRenewed::Refused(format!("{code:?}"), None),
        },
    }
}

/// Is it this node's, good by this machine's clock, and longer than the present one?
fn check(
    identity: &StoredIdentity,
    present: &PeerIdentity,
    now: Timestamp,
) -> Result<PeerIdentity, NotRenewed> {
    let leaf = identity.chain.first().ok_or(NameError::Unreadable("none was sent"))?;
    let certificate = describe(leaf)?;
    if certificate.identity != present.identity {
        return Err(NotRenewed::OtherIdentity { expected: present.identity, found: certificate.identity });
    }
    if now < certificate.not_before {
        return Err(NotRenewed::Early { not_before: certificate.not_before, now });
    }
    if certificate.not_after <= present.not_after {
        return Err(NotRenewed::Useless(certificate.not_after));
    }
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use fleet_types::digest::Digest;

    use super::*;

    const LIFE: Duration = Duration::from_hours(72);

    fn issued() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn certificate() -> PeerIdentity {
        let name = "fleet://0192f0c1-0000-7000-8000-000000000001/agent/0192f0c1-0000-7000-8000-000000000002";
        PeerIdentity {
            identity: name.parse().unwrap(),
            serial: "4001".parse().unwrap(),
            not_before: issued().minus(Duration::from_mins(5)),
            not_after: issued().plus(LIFE),
            fingerprint: Digest::of(b"x"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_is_due_by_the_wall_clock_whatever_it_said_before() {
        let (schedule, now) = (Schedule::new(&certificate(), 0), Instant::now());
        let due = issued().plus(LIFE * 60 / 100);
        let last = Schedule::new(&certificate(), u16::MAX);
        assert!(!schedule.is_due(due.minus(Duration::from_millis(1)), now) && schedule.is_due(due, now));
        assert!(!last.is_due(due, now) && last.is_due(issued().plus(LIFE * 75 / 100), now));
        // A machine that boots in 1970 waits; one that jumps ahead asks at once, and waits again when it is set back.
        assert!(!schedule.is_due(Timestamp::clamped(0), now));
        assert!(schedule.is_due(issued().plus(LIFE * 2), now));
        assert!(!schedule.is_due(issued(), now));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_in_proportion_to_the_life_and_end_long_before_it() {
        let mut schedule = Schedule::new(&certificate(), u16::MAX);
        let due = issued().plus(LIFE * 75 / 100);
        let (mut now, mut tries) = (Instant::now(), 0);
        let (start, left) = (now, LIFE * 25 / 100);
        let mut pauses = Vec::new();
        while now - start < left {
            assert!(schedule.is_due(due, now));
            // The longest draw.
            let pause = schedule.failed(&NotRenewed::NoAnswer, now, |most| most);
            assert!(!schedule.is_due(due, now + pause - Duration::from_millis(1)));
            pauses.push(pause.as_secs());
            now += pause;
            tries += 1;
        }
        assert_eq!(pauses[..7], [126, 253, 506, 1012, 2025, 4050, 4050]);
        assert!(tries >= 16, "{tries} tries in the last quarter of its life");
    }

    #[tokio::test(start_paused = true)]
    async fn a_controller_names_the_pause_within_its_bound() {
        let pause =
            |why: &NotRenewed| Schedule::new(&certificate(), 0).failed(why, Instant::now(), |most| most);
        let named = |seconds| NotRenewed::Refused("no".to_owned(), Some(Duration::from_secs(seconds)));
        assert_eq!(pause(&named(600)), Duration::from_mins(10));
        assert_eq!(pause(&named(1_000_000)), LIFE / 64);
        assert_eq!(pause(&NotRenewed::NotBuilt), LIFE / 64);
    }
}
