//! Lines and columns of a text, and where each value of a document stands.

use std::collections::BTreeMap;
use std::ops::Range;

/// Line and column, both counted from 1; columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    /// The beginning of a file.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// Finds lines and columns of byte offsets in a logarithmic number of steps.
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    pub fn position(&self, offset: usize) -> Position {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        // A line may be the whole file: counting its characters for each of many problems would be
        // quadratic, so far to the right columns are counted in bytes.
        let part = self.text.get(start..offset).unwrap_or_default();
        let column = if part.len() > 4096 { part.len() } else { part.chars().count() };
        Position { line, column: column + 1 }
    }
}

/// Where a key and its value stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub key: Position,
    pub value: Position,
}

/// Places by path: keys and list indexes joined by `/`, such as `step/2/with/services/0`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(BTreeMap<String, Place>);

impl Places {
    pub fn insert(&mut self, path: &str, lines: &Lines<'_>, key: Option<Range<usize>>, value: Range<usize>) {
        let value = lines.position(value.start);
        let key = key.map_or(value, |key| lines.position(key.start));
        self.0.insert(path.to_owned(), Place { key, value });
    }

    /// Whether something is written at a path.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The place of a path, or of the nearest path above it.
    pub fn nearest(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return *place;
            }
            match path.rfind('/') {
                Some(cut) => path = &path[..cut],
                None => return Place { key: Position::START, value: Position::START },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_counted_in_characters() {
        let lines = Lines::new("aä\nbé x\n");
        assert_eq!(lines.position(0), Position { line: 1, column: 1 });
        assert_eq!(lines.position(3), Position { line: 1, column: 3 });
        assert_eq!(lines.position(4), Position { line: 2, column: 1 });
        assert_eq!(lines.position(8), Position { line: 2, column: 4 });
        assert_eq!(lines.position(9999).line, 3);
    }
}
