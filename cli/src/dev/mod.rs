//! `fleetctl dev`: a whole fleet on this machine, for trying things out.
//!
//! Does what an operator would do by hand, with the same programs and the same calls as in production:
//! makes a fleet, starts the controller, signs in, lets nodes join, applies documents, starts a run, looks
//! at it. What is simulated is printed as such. It must never take a short cut through the store, sign for
//! anybody, or end a process that it did not start.
//!
//! | module | holds |
//! |---|---|
//! | [`run()`] | the command: what happens in which order, and the orderly end |
//! | `bring_up`, `packaging` | controller, operator, nodes; their packages |
//! | `daily`, `updates`, `cut_off`, `hints` | documents, the runs, what is shown; what is told at the end |
//! | `stage` | the wait on everything at once, and the lines that tell how far it is |
//! | `inner` | fleetctl's own commands, called in this process |
//! | `crew`, `process`, `ledger`, `leftover` | processes: started, watched, noted, ended, cleaned up after |
//! | `place`, `context_link` | the folder, the context in the user's file |
//! | [`launch`], [`config_files`] | how the programs are called and configured; tests start theirs with them |
//! | [`node_spec`], [`firewall`], [`embedded`] | which nodes, what lies in their roots, documents; for tests too |
//! | [`packages`] | the firewall as packages, for nodes that apt and dpkg work on; for tests too |
//! | [`packet_filter`] | what cuts a node off from its controller; for tests too |
//! | `programs` | where controller and agent are |

mod bring_up;
pub mod config_files;
mod context_link;
mod crew;
mod cut_off;
mod daily;
pub mod embedded;
pub mod firewall;
mod hints;
mod inner;
pub mod launch;
mod ledger;
mod leftover;
pub mod node_spec;
pub mod packages;
mod packaging;
pub mod packet_filter;
mod place;
mod process;
mod programs;
mod run;
mod stage;
mod updates;

pub use run::run;
