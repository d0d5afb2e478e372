//! The bounds of one page of a scan, the same for every backend that keeps keys in order.
//!
//! It must never let a page reach the keys that belong to the store itself. Backends only.

use std::ops::Bound;

use crate::contract::Direction;
use crate::key::{Key, RESERVED_FIRST_BYTE, end_of_prefix};

/// The bounds of one page: inside the prefix, beyond `after`, outside the store's own keys.
pub(crate) struct ScanRange {
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
}

impl ScanRange {
    /// `None` when no key can be in the range.
    pub(crate) fn new(prefix: &[u8], after: Option<&Key>, direction: Direction) -> Option<Self> {
        let first = if prefix.is_empty() { vec![RESERVED_FIRST_BYTE + 1] } else { prefix.to_vec() };
        if first[0] == RESERVED_FIRST_BYTE {
            return None;
        }
        let mut start = Bound::Included(first);
        let mut end = end_of_prefix(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        if let Some(after) = after.map(|key| key.as_bytes().to_vec()) {
            match direction {
                Direction::Ascending if !is_below(&after, &start) => start = Bound::Excluded(after),
                Direction::Descending if !is_above(&after, &end) => end = Bound::Excluded(after),
                _ => {}
            }
        }
        let range = Self { start, end };
        range.is_possible().then_some(range)
    }

    /// The bounds for a sorted map.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.start.as_ref().map(Vec::as_slice), self.end.as_ref().map(Vec::as_slice))
    }

    // Sorted maps panic on a range whose start is above its end.
    fn is_possible(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end)) => start < end,
            _ => true,
        }
    }
}

fn is_below(key: &[u8], start: &Bound<Vec<u8>>) -> bool {
    matches!(start, Bound::Included(first) if key < first.as_slice())
}

fn is_above(key: &[u8], end: &Bound<Vec<u8>>) -> bool {
    matches!(end, Bound::Excluded(last) if key >= last.as_slice())
}
