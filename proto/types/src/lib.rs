//! Our own types: ids, time, documents, plans, reports, selectors and states.
//!
//! Everything in here is pure: no tokio, no tonic, no clock, no randomness, no I/O. Every other crate
//! of the project may use it; it uses none of them. Values are checked in their constructors and in
//! their `Deserialize`, so that a value that exists is a good one.

pub mod action;
pub mod assignment;
pub mod audit;
pub mod authority;
pub mod canonical;
pub mod digest;
pub mod document;
pub mod facts;
pub mod finding_hold;
pub mod id;
pub mod idle;
pub mod job;
pub mod label;
pub mod listing;
pub mod merkle;
pub mod package_version;
pub mod packages;
pub mod plan;
pub mod report;
pub mod request;
pub mod run;
pub mod scheduled_work;
pub mod seal;
pub mod severity;
pub mod standing_order;
pub mod time;
pub mod trust;
pub mod view;
