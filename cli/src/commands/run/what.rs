//! `RUN` and `RUN/NODE`.

use fleet_types::id::{Name, RunId};

use crate::error::Failure;

/// A run, or one job of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct What {
    /// The run.
    pub run: RunId,
    /// The node, where one job is meant.
    pub node: Option<Name>,
}

impl What {
    /// Reads `r-…` or `r-…/fw-1`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let (run, node) = text.split_once('/').map_or((text, None), |(run, node)| (run, Some(node)));
        let fix = "fleetctl run list shows the runs, fleetctl run show RUN its nodes";
        Ok(Self {
            run: run.parse().map_err(|error| Failure::usage(format!("{error}")).fix(fix))?,
            node: node
                .map(str::parse)
                .transpose()
                .map_err(|error| Failure::usage(format!("{error}")).fix(fix))?,
        })
    }
}
