//! What was not used of an import, and why, counted by reason. Pure; for the readers beside it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Reasons that are told apart; a file with more of them is told about in this many.
const MAX_REASONS: usize = 1_000;
/// What the others are counted under.
const OTHER: &str = "other reasons, of which there are too many";

/// Something that was read and not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// Why.
    pub reason: String,
    /// How often.
    pub count: usize,
    /// The first file.
    pub file: String,
    /// The place in it.
    pub place: String,
}

/// What was skipped so far.
#[derive(Debug, Default)]
pub(super) struct Skips(BTreeMap<String, Skipped>);

impl Skips {
    pub(super) fn add(&mut self, file: &str, place: &str, reason: impl Into<String>) {
        let mut reason = reason.into();
        if self.0.len() >= MAX_REASONS && !self.0.contains_key(&reason) {
            OTHER.clone_into(&mut reason);
        }
        let first =
            || Skipped { reason: reason.clone(), count: 0, file: file.to_owned(), place: place.to_owned() };
        self.0.entry(reason.clone()).or_insert_with(first).count += 1;
    }

    /// The most frequent first.
    pub(super) fn into_list(self) -> Vec<Skipped> {
        let mut list: Vec<Skipped> = self.0.into_values().collect();
        list.sort_by_key(|skipped| std::cmp::Reverse(skipped.count));
        list
    }
}
