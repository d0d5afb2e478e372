//! That something was done.

use serde::{Deserialize, Serialize};

/// The answer to a call that has nothing more to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// `fleet/v1/done`.
    pub schema: String,
    /// What was done, in words.
    pub message: String,
}

impl Done {
    /// It was done, in these words.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { schema: "fleet/v1/done".to_owned(), message: message.into() }
    }
}
