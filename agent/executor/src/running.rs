//! What the running executor says of itself to `fleet-agent status`, in a file of its state.
//!
//! Of use while an executor runs only; losing it loses nothing. Written by the dispatcher when it changes.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::durable;

const FILE: &str = "running.json";

/// What counts now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The mode of the policy in force.
    pub policy_mode: String,
    /// Why no changes start, if none do.
    pub safe_mode: Option<String>,
}

impl Running {
    /// Reads what was said last; none before anything was, or when it cannot be read.
    pub fn read(directory: &Path) -> Option<Self> {
        let bytes = durable::read_if_there(&directory.join(FILE)).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// Writes it.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        durable::write_atomically(&directory.join(FILE), &serde_json::to_vec(self)?)
    }
}
