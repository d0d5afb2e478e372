//! The core against a scripted controller: the real protocol, real TLS on port 0, a throw-away authority.
//!
//! The executor behind the socket pair is scripted too, so that each story decides what both sides say.
//! Protocol timers run at about 1/50; every wait has a limit and says what it waits for.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod agent;
mod controller;
mod delivery;
mod enrolment;
mod fleet;
mod keeping;
mod node;
mod order;
mod output;
mod process;
mod proxy;
mod renewal;
mod reports;
mod session;
mod wait;
