//! `fleetctl`: the operator's command line.
//!
//! A keystroke goes one way: [`args`] parses it, [`settings`] merges flag, environment and file,
//! [`commands`] asks the controller through [`client`] and hands what came back to [`render`], the one
//! printer of every output. What an operator signs is made in [`signing`] with a key that never leaves
//! this machine. Nothing here may act on nodes by itself, nor keep state other than [`context`] files.
//!
//! | module | holds |
//! |---|---|
//! | [`app`] | `run(args, out, err, env)`: from arguments to exit code, without a child process |
//! | [`args`] | the clap tree; its doc comments are the help text |
//! | [`settings`] | global flags merged with `FLEET_<NAME>`, validated |
//! | [`environment`], [`clock`] | what the process gives: variables, terminal, time |
//! | [`error`] | failures as people and programs see them; the frozen exit codes |
//! | [`render`] | table, wide, json, jsonl, yaml, name, jsonpath; escaping; times; colour |
//! | [`context`] | named fleets in `config.toml`, identities and keys beside it |
//! | [`client`] | one connection to a controller, typed calls with limits; the wire ends here |
//! | [`signing`], [`targets`], [`confirm`] | envelopes and requests; which nodes; levels of danger |
//! | [`session`] | what every command is handed |
//! | [`renewal`] | the certificate of a context renews itself |
//! | [`commands`] | one file a command |
//! | [`dev`] | `fleetctl dev`: a whole fleet on this machine |

pub mod app;
pub mod args;
pub mod client;
pub mod clock;
pub mod commands;
pub mod confirm;
pub mod context;
pub mod dev;
pub mod environment;
pub mod error;
pub mod render;
pub mod renewal;
pub mod session;
pub mod settings;
pub mod signing;
pub mod targets;
