//! Collects problems of one document by path.

use crate::position::Places;
use crate::problem::Problem;

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
        let at = self.places.nearest(path).value;
        Problem::error(self.file, at, code, message, fix).add_to(&mut self.problems);
    }

    /// A warning at the value of a path.
    pub fn warn(&mut self, path: &str, code: &'static str, message: String, fix: impl Into<String>) {
        let at = self.places.nearest(path).value;
        Problem::warning(self.file, at, code, message, fix).add_to(&mut self.problems);
    }
}
