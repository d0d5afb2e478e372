//! The trait of the machine: a bundle of capabilities.
//!
//! It holds no method that acts; each capability has its own trait. Implemented by `linux` for real nodes
//! and development nodes and by `scripted` for tests.

use std::sync::Arc;

use super::{Clock, Files, Notes, Packages, Processes, System, Units};

/// A machine as tasks see it.
pub trait Host: Send + Sync {
    /// Files below the root.
    fn files(&self) -> &dyn Files;

    /// Programs.
    fn processes(&self) -> &dyn Processes;

    /// Services.
    fn units(&self) -> &dyn Units;

    /// Packages.
    fn packages(&self) -> &dyn Packages;

    /// Time and waiting.
    fn clock(&self) -> &dyn Clock;

    /// What the kernel says about the machine.
    fn system(&self) -> &dyn System;

    /// What tasks remember from one job to the next.
    fn notes(&self) -> &dyn Notes;

    /// A handle to the same machine for a thread that may outlive its caller, such as a check that hangs.
    fn handle(&self) -> Arc<dyn Host>;

    /// What is simulated here, in words; empty on a real node.
    fn simulated(&self) -> Vec<String>;
}
