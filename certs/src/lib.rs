//! Names in certificates, authorities, issuing, checking, TLS configurations.
//!
//! This crate is the only one besides the controller's edge and the agent's link that names rustls.
//! It never reads the wall clock (times are handed in; handshakes use [`tls::TlsClock`]), never lets a
//! common name, host name or address decide who a peer is (security-and-delivery §1.5), and never
//! logs or shows a private key.
//!
//! | module | holds |
//! |---|---|
//! | [`name`] | the URI name `fleet://<fleet>/<role>/<uuid>` and [`name::Identity`] |
//! | [`ca`], [`csr`], [`issue`] | authorities, a key and its request, certificates with their profiles |
//! | [`verify`], [`trust`], [`fault`], [`revoke`] | the checks after chain validation, rustls verifiers, why a certificate was refused, the deny list |
//! | [`tls`], [`accept`], [`dial`] | configurations, the server's handshake, the client's connector |
//! | [`files`], [`slots`] | keys and certificates on disk, the two identity slots of a client |
//! | [`token`], [`serial`] | join tokens and invites, serial numbers |
//! | [`dispatch`] | certifying a controller's dispatch key |
//! | [`rejoin`] | the proof with which somebody comes back whose certificate has ended |

pub mod accept;
pub mod ca;
pub mod csr;
pub mod dial;
pub mod dispatch;
pub mod fault;
pub mod files;
pub mod issue;
pub mod name;
pub mod rejoin;
pub mod revoke;
pub mod serial;
pub mod slots;
pub mod tls;
pub mod token;
pub mod trust;
pub mod verify;

pub use fault::{CertFault, OwnFault};
pub use fleet_types::seal::Secret;
pub use name::{Identity, Role};
pub use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
pub use rustls::{ClientConfig, ServerConfig};
pub use serial::Serial;
pub use verify::PeerIdentity;
