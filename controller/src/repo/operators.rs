//! Operators and their names. Decides nothing; called by enrolment and at a start.

use fleet_store::{Batch, WriteId};
use fleet_types::id::{Name, OperatorId};
use fleet_types::seal::PublicKey;
use fleet_types::time::Timestamp;
use fleet_types::trust::OperatorRole;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::certificates::{self, Certificates};
use super::codec::{Record, record};
use super::keys::{Made, make};
use super::reader::BatchExt as _;
use crate::error::Result;

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRecord {
    /// His id.
    pub id: OperatorId,
    /// His name.
    pub name: Name,
    /// His role.
    pub role: OperatorRole,
    /// The public half of their content key.
    pub content_key: PublicKey,
    /// Which certificates speak for them.
    pub certificates: Certificates,
    /// When they joined.
    pub created: Timestamp,
}

impl Record for OperatorRecord {
    const WHAT: &'static str = "operator";
    const VERSION: u8 = 2;

    fn upgrade(_version: u8, body: &mut Value) {
        // Version 1 knew the serial of the one certificate, and not when that ends.
        body["certificates"] = certificates::of_one(&body["serial"], &Value::Null);
    }
}

/// A pointer by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorPointer {
    /// The operator.
    pub operator: OperatorId,
}
record!(OperatorPointer, "operator name", 1);

/// Prefix of all operator records.
pub const ALL: &str = "operator/";

/// An operator's record.
pub fn key(id: OperatorId) -> Made {
    make(format!("{ALL}{id}"))
}

/// An operator's name, pointing to their id.
pub fn name(name: &str) -> Made {
    make(format!("operator-name/{name}"))
}

/// Writes what has changed of an operator.
pub fn save(batch: Batch, seen: WriteId, operator: &OperatorRecord) -> Result<Batch> {
    batch.replace_record(key(operator.id)?, seen, operator)
}

/// Writes an operator who is new, under a name that is free; or one that `taken` points away from, to who is gone.
pub fn create(batch: Batch, taken: Option<WriteId>, operator: &OperatorRecord) -> Result<Batch> {
    let (pointer, name) = (OperatorPointer { operator: operator.id }, name(operator.name.as_str())?);
    let batch = batch.create_record(key(operator.id)?, operator)?;
    match taken {
        Some(seen) => batch.replace_record(name, seen, &pointer),
        None => batch.create_record(name, &pointer),
    }
}
