//! Collects problems of one document by path.

use crate::position::Places;
use crate::problem::{Level, Problem};
use crate::source::MAX_PROBLEMS;

/// Where checks of a typed document put what they find.
pub(crate) struct Reporter<'a> {
    pub file: &'a str,
    pub places: &'a Places,
    pub problems: Vec<Problem>,
}

impl<'a> Reporter<'a> {
    pub const fn new(file: &'a str, places: &'a Places) -> Self {
        Self { file, places, problems: Vec::new() }
    }

    /// An error at the value of a path; at the path above it where the path is not written.
    pub fn error(&mut self, path: &str, code: &'static str, message: String, fix: impl Into<String>) {
        self.report(Level::Error, path, code, message, fix.into());
    }

    /// A warning at the value of a path.
    pub fn warn(&mut self, path: &str, code: &'static str, message: String, fix: impl Into<String>) {
        self.report(Level::Warning, path, code, message, fix.into());
    }

    fn report(&mut self, level: Level, path: &str, code: &'static str, message: String, fix: String) {
        if self.problems.len() < MAX_PROBLEMS {
            let place = self.places.nearest(path).value;
            let file = self.file.to_owned();
            self.problems.push(Problem {
                level,
                file,
                line: place.line,
                column: place.column,
                code,
                message,
                fix,
            });
        }
    }
}
