//! The load simulator behind `fleet-sim`: many light agents, and the floor that they are compared with.
//!
//! | file | what lives there |
//! |---|---|
//! | [`plan`] | what one measurement is made of: sizes, files, messages between the processes |
//! | [`prepare`] | a controller with enrolled nodes; not timed |
//! | [`worker`] | one process of agents, told what to do on its standard input |
//! | [`crew`] | the workers of one measurement, as the parent sees them |
//! | [`floor`], [`floor_service`] | bare tonic, rustls, Ed25519 and store that move the same bytes and do nothing else |
//! | [`service`] | the controller's storing of results alone, without a wire |
//! | [`store_floor`] | Ed25519 and the store alone, with the same bytes |
//! | [`measure`] | connects, settles, pushes: the same steps for the product and its floor |
//! | [`waits`] | what operators wait for: a watch, a cancel, everybody back after a restart |
//! | [`table`] | figures, ratios, verdicts |
//! | [`memory`] | what a process holds, from the kernel's own sums |
//!
//! Loopback only. Agents are those of [`crate::fake_agent`], the same ones against both sides, so that what
//! they cost is in both figures.

pub mod crew;
pub mod floor;
pub mod floor_service;
pub mod measure;
pub mod memory;
pub mod plan;
pub mod prepare;
pub mod service;
pub mod store_floor;
pub mod table;
pub mod waits;
pub mod worker;
