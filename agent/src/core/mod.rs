//! The core: the half of the agent that speaks to the network. On a real machine it is a process of its own,
//! under an account of its own (`commands/core`).
//!
//! | module | holds |
//! |---|---|
//! | [`enrol`] | redeeming a join token |
//! | [`join`], [`enrolment_channel`] | joining a fleet, the core's half, and its messages with the executor's |
//! | [`identity`] | the certificate as it is stored, checked, and published for new connections |
//! | [`renewal`], [`identity_in_use`] | when and how it is renewed; what the next connection uses |
//! | [`executor_channel`] | the executor's socket as two bounded channels |
//! | [`backoff`] | how long to wait before dialling again |
//! | [`link`] | the one session with a controller |
//! | [`outbox`] | sealed reports and progress that wait for the link |
//! | [`output`] | output that waits for room on its stream |
//! | [`start`] | all of it, started |
//!
//! The core owns identity, link and outbox. It never touches the journal, the report key, the
//! local policy or the machine (security-and-delivery §1.16): everything of that kind is asked of the
//! executor through the channel, also where both run in one process.

pub mod backoff;
pub mod enrol;
pub mod enrolment_channel;
pub mod executor_channel;
pub mod identity;
pub mod identity_in_use;
pub mod join;
pub mod link;
pub mod outbox;
pub mod output;
pub mod renewal;
pub mod start;
