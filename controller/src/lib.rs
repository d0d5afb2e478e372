//! The controller: inventory, runs and their record, pushed to agents over mutually authenticated gRPC.
//!
//! Data goes one way. Down: `edge` decodes and authorises → `service` checks and writes → the notifier rings →
//! `runner` applies, saves, asks the engine → `fleet` carries it to the node's stream. Up: a node's report →
//! `edge` → `service::jobs` stores it → the same notifier. docs/architecture.md walks along one job.
//!
//! | module | what lives there |
//! |---|---|
//! | [`edge`] | listeners, guard, the three gRPC services; generated types stop here |
//! | [`access`] | who may call what |
//! | [`service`] | use cases |
//! | [`runner`] | passes around the pure engine |
//! | [`fleet`] | connected agents and nodes in memory |
//! | [`scheduler`] | fires the ticks of schedules |
//! | [`rebuild`] | records → the engine's state, for runner and views |
//! | [`repo`] | records, keys, the audited |
//! | [`config`], [`settings`], [`clock`], [`wake`], [`error`] | what all of them use |
//! | [`keyring`], [`server_tls`] | keys on disk; the own certificate while it runs |
//! | [`init`], [`app`], [`context`] | making a fleet, wiring |

pub mod access;
pub mod app;
pub mod clock;
pub mod command;
pub mod config;
pub mod context;
pub mod data_directory;
pub mod edge;
pub mod error;
pub mod fleet;
pub mod init;
pub mod keyring;
pub mod rebuild;
pub mod repo;
pub mod runner;
pub mod scheduler;
pub mod server_tls;
pub mod service;
pub mod settings;
pub mod wake;

#[cfg(test)]
mod testing;
