//! The executor: policy, journal, runs, tasks, host; no network.
//!
//! The root half of the agent (security-and-delivery §1.16). It takes signed work from the core over a socket
//! pair, checks it against trust and local policy, carries it out step by step with every act journaled
//! before it is done, and answers with reports that it signs. `executor` is where the agent begins to read;
//! `dispatcher` decides, `policy` refuses, `resolve` prepares, `run` acts, `journal` remembers.

pub mod causes;
pub mod copies;
#[cfg(any(test, feature = "crash-points"))]
pub mod crash;
pub mod damage;
pub mod dispatcher;
pub mod documents;
pub mod durable;
pub mod executor;
pub mod facts;
pub mod guard;
pub mod host;
pub mod identity;
pub mod journal;
pub mod package_hub;
pub mod policy;
pub mod replacement;
pub mod resolve;
pub mod retention;
pub mod run;
pub mod running;
#[cfg(test)]
mod scenario;
mod service;
pub mod socket;
pub mod state;
pub mod tasks;

pub use executor::{Drained, Executor, ExecutorConfig, ExecutorHandle, News, StartError};
pub use identity::NodeIdentity;
