//! The fleet's own record, its trust bundle, and when a controller was up.
//!
//! Written by `init`, by new bundles and by presence. Decides nothing.

use fleet_types::id::{ControllerId, FleetId, Generation, Name};
use fleet_types::time::Timestamp;
use fleet_types::trust::RootKeys;
use serde::{Deserialize, Serialize};

use super::codec::record;
use super::keys::{Made, make};

/// The fleet itself. Written once by `init`; the generation rises when a backup is restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetRecord {
    /// Its id.
    pub fleet: FleetId,
    /// Its name.
    pub name: Name,
    /// The controller that `init` made.
    pub controller: ControllerId,
    /// Fencing against restored stores.
    pub generation: Generation,
    /// Root keys and threshold.
    pub roots: RootKeys,
    /// When it was made.
    pub created: Timestamp,
}
record!(FleetRecord, "fleet", 1);

/// When a controller was up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliveRecord {
    /// The last time that it said so.
    pub at: Timestamp,
}
record!(AliveRecord, "alive", 1);

/// The fleet's own record.
pub fn key() -> Made {
    make("meta/fleet".to_owned())
}

/// The newest trust bundle, an object.
pub fn trust_bundle() -> Made {
    make("meta/trust-bundle".to_owned())
}

/// The next trust bundle, an object, as long as it lacks signatures.
pub fn trust_proposal() -> Made {
    make("meta/trust-proposal".to_owned())
}

/// When a controller was last known to be up.
pub fn alive() -> Made {
    make("meta/alive".to_owned())
}
