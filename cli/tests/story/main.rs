//! Stories of an operator against a scripted controller: the real protocol over real mutual TLS on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on may panic")]

mod answers;
mod audit;
mod backups;
mod certifying;
mod documents;
mod fake;
mod fixtures;
mod listening;
mod looking_at_schedules;
mod people;
mod renewing;
mod runs;
mod scheduling;
mod script;
mod signing_in;
mod views;
mod world;
