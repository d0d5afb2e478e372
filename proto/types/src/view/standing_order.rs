//! What became of standing orders that an operator sent, and which tick a run carries out.

use serde::{Deserialize, Serialize};

use crate::document::Id;
use crate::id::Name;
use crate::time::Timestamp;

/// What became of the orders for a file of schedules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthoriseView {
    /// `fleet/v1/schedule-authorise`.
    pub schema: String,
    /// The file.
    pub file: Name,
    /// One entry a schedule.
    pub items: Vec<AuthoriseItem>,
}

impl AuthoriseView {
    /// Of a file, with nothing in it yet.
    #[must_use]
    pub fn new(file: Name) -> Self {
        Self { schema: "fleet/v1/schedule-authorise".to_owned(), file, items: Vec::new() }
    }
}

/// What became of the order for one schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthoriseItem {
    /// The schedule, by its id in the file.
    pub schedule: Id,
    /// What became of it.
    pub what: Authorised,
    /// No tick after this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Why it was refused, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authorised {
    /// The schedule may start work from now on.
    Authorised,
    /// It might already, by this very order.
    Unchanged,
    /// It may not; where it might before, it still does, for as long as its file is the newest.
    Refused,
    /// The newest file has no such schedule that is enabled: its order does not stand any more.
    Withdrawn,
}

impl Authorised {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorised => "authorised",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// Which tick of which schedule a run carries out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickView {
    /// As people write the schedule: `FILE/ID`.
    pub schedule: String,
    /// The time for which it calls.
    pub at: Timestamp,
}
