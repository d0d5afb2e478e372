//! A scripted agent: light, in this process, over real mutual TLS and the real protocol (examples 28).
//!
//! | file | what lives there |
//! |---|---|
//! | [`enrol`] | a token redeemed: key, certificate, report key |
//! | [`script`] | what the agent does differently from an honest, quick one |
//! | [`journal`] | what it knows of its jobs; makes, signs and chains reports |
//! | [`link`] | the session: hello, welcome, reconcile, work, reports, resends; again after a loss |
//! | [`agent`] | the handle that stories hold |
//! | [`activity`] | who works when, over all agents: caps and pairs are judged by it |
//!
//! The journal lives in memory and outlives links. Must never be taken for an agent: it carries out nothing.

pub mod activity;
pub mod agent;
pub mod enrol;
pub mod journal;
pub mod link;
pub mod script;

pub use activity::Activity;
pub use agent::FakeAgent;
pub use enrol::Credentials;
pub use journal::{Journal, SealedReport};
pub use script::{Script, Work};
