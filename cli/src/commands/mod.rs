//! One file a command: ask the controller, render what came back, give the exit code.
//!
//! Commands reach streams, terminal and time through [`crate::session::Session`] only.

mod advisory;
mod audit;
mod backup;
mod cert;
mod completion;
mod config;
mod dispatch;
mod document;
mod explain;
mod files;
mod job_cells;
mod join_token;
mod login;
mod node;
mod node_fence;
mod node_orders;
mod node_packages;
mod operator;
mod paging;
mod patch;
mod run;
mod schedule;
mod status;
mod trust_bundle;
mod version;
mod watching;
mod whoami;

pub use dispatch::run;
