//! The agent: the core, and the binary that joins core and executor.
//!
//! | module | holds |
//! |---|---|
//! | [`core`] | identity, link, outbox, output: the half that speaks to the network |
//! | [`config`] | raw, merged, validated |
//! | [`commands`] | one file a subcommand; the only place that knows core and executor |
//! | [`node`] | what the enrolment said about this node |
//! | [`account`] | the account that the core runs under |
//! | [`confine`] | what the core gives up before it speaks to anybody |
//! | [`args`] | the command line |
//! | [`clock`] | wall time and jitter |
//! | [`error`] | exit codes and the chain of causes |
//! | [`telemetry`] | log lines |
//!
//! Losing the controller changes nothing: what was begun goes on, reports are kept, and the link is dialled
//! again with growing, jittered pauses.

pub mod account;
pub mod args;
pub mod clock;
pub mod commands;
pub mod config;
pub mod confine;
pub mod core;
pub mod error;
pub mod node;
pub mod telemetry;
