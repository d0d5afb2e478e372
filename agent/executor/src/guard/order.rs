//! What the guard is to put back: complete in itself, because nobody may be there any more whom it could ask.

use std::collections::BTreeMap;

use fleet_types::document::profile::Profile;
use fleet_types::facts::NodeFacts;
use serde::{Deserialize, Serialize};

use crate::policy::PackageRules;
use crate::tasks::{NotedUndo, StepIdentity};

/// Version of the order's form. A guard that finds another one leaves the change to the executor.
pub const ORDER_VERSION: u32 = 1;

/// One guarded change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuardOrder {
    /// [`ORDER_VERSION`].
    pub version: u32,
    /// The step that is guarded.
    pub step: StepIdentity,
    /// The signed profile.
    pub profile: Profile,
    /// Facts of the node.
    pub facts: NodeFacts,
    /// Values of placeholders.
    pub placeholders: BTreeMap<String, String>,
    /// Undos that the job has noted so far.
    pub noted: Vec<NotedUndo>,
    /// What the owner allows of packages.
    pub packages: PackageRules,
    /// How long an unconfirmed change may stand, in milliseconds.
    pub window_ms: u64,
    /// The step restarts the machine: its deadline counts anew in the boot after that.
    #[serde(default)]
    pub restarts: bool,
    /// What is done, in this order. One that fails does not stop the next.
    pub entries: Vec<UndoEntry>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UndoEntry {
    /// Id in the report: `guard:` and the step, and the procedure's entry where it is one.
    pub id: String,
    /// In words.
    pub title: String,
    /// The action whose task does it.
    pub action: String,
    /// Its arguments.
    pub with: BTreeMap<String, serde_json::Value>,
    /// What the task noted, where it reverts; none where an entry of the procedure is carried out.
    pub undo: Option<serde_json::Value>,
    /// Time it has, in milliseconds.
    pub limit_ms: u64,
}
