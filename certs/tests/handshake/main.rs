//! Real TLS handshakes on loopback, in both directions, with honest and odd certificates.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole crate is a test")]

mod clients;
mod dialling;
mod enrolment;
mod servers;
mod sessions;
mod world;
