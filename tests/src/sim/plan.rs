//! What one measurement is made of, as its processes hand it to each other in files and lines of JSON.

use std::net::SocketAddr;
use std::path::PathBuf;

use fleet_types::id::{FleetId, NodeId, RunId};
use serde::{Deserialize, Serialize};

/// Pushes of one measurement; the middle one counts.
pub const ROUNDS: usize = 3;
/// Turns of service and store without a wire; they are short, so there are more of them, and the middle counts.
pub const TURNS: usize = 11;
/// From this many agents on, two worker processes carry them: open files a process are limited.
pub const TWO_WORKERS_FROM: usize = 1_000;

/// Sizes of what one result writes, in bytes, as they were found in the controller's own store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// A job's record.
    pub job: usize,
    /// A stored report with its envelope.
    pub report: usize,
    /// An audit leaf of a job's end.
    pub leaf: usize,
    /// An inbox entry.
    pub inbox: usize,
}

/// A signed order with its nodes, for one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Round {
    /// The run.
    pub run: RunId,
    /// JSON of the signed request.
    pub envelope: Vec<u8>,
    /// Its nodes, sorted.
    pub nodes: Vec<NodeId>,
}

/// What the floor's process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FloorPlan {
    /// The fleet whose authorities it uses.
    pub fleet: FleetId,
    /// The controller's directory of keys.
    pub pki: PathBuf,
    /// Where its store goes.
    pub store: PathBuf,
    /// Files with the nodes' credentials: it checks their reports' signatures.
    pub credentials: Vec<PathBuf>,
    /// What to push.
    pub rounds: Vec<Round>,
    /// What to write.
    pub sizes: Sizes,
}

/// What a worker's process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerPlan {
    /// File with its nodes' credentials.
    pub credentials: PathBuf,
    /// The controller, or its floor.
    pub address: SocketAddr,
    /// Which worker this is; decides its source address.
    pub number: u8,
}

/// What a child says on its standard output, one line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case")]
pub enum Said {
    /// The floor serves.
    Serving {
        /// Where.
        address: SocketAddr,
    },
    /// The worker has its agents ready to connect.
    Ready,
    /// All agents of the worker are online.
    Connected {
        /// When the last one was welcomed, microseconds since 1970.
        last_us: u64,
    },
    /// All agents of the worker have their report acknowledged.
    Acknowledged {
        /// When the first assignment came, microseconds since 1970.
        first_us: u64,
        /// When the last acknowledgement came.
        last_us: u64,
        /// What the agents found wrong with the other side.
        faults: usize,
    },
}
