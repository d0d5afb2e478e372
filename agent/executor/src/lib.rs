//! The executor: policy, journal, runs, tasks, host; no network.
//!
//! The root half of the agent (security-and-delivery §1.16). It takes signed work from the core over a socket
//! pair, checks it against trust and local policy, carries it out step by step with every act journaled
//! before it is done, and answers with reports that it signs.

pub mod crash;
pub mod documents;
pub mod durable;
pub mod facts;
pub mod host;
pub mod journal;
pub mod socket;
pub mod state;
pub mod tasks;
