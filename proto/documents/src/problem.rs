//! What is wrong with a document, where, and what to do about it.

use std::fmt;

use crate::position::Position;
use crate::source::MAX_PROBLEMS;

/// The code of the problem that stands for all that are not listed.
pub(crate) const TOO_MANY: &str = "too-many-problems";

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The document is refused.
    Error,
    /// Applying needs a reason, with the exceptions of [`Problem::needs_reason`].
    Warning,
}

impl Level {
    /// `error` or `warning`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One problem of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub level: Level,
    /// The file, as it was named by the caller.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// A fixed word for it: `unknown-key`, `guard-missing` and so on.
    pub code: &'static str,
    /// What is wrong; text from the file in it is cut and its control characters are escaped.
    pub message: String,
    /// What to do; may be empty.
    pub fix: String,
}

impl Problem {
    /// An error at a place of a file.
    pub(crate) fn error(
        file: &str,
        at: Position,
        code: &'static str,
        message: String,
        fix: impl Into<String>,
    ) -> Self {
        let (level, file, line, column) = (Level::Error, file.to_owned(), at.line, at.column);
        Self { level, file, line, column, code, message, fix: fix.into() }
    }

    /// A warning at a place of a file.
    pub(crate) fn warning(
        file: &str,
        at: Position,
        code: &'static str,
        message: String,
        fix: impl Into<String>,
    ) -> Self {
        Self { level: Level::Warning, ..Self::error(file, at, code, message, fix) }
    }

    /// Adds it to the others of its file. Beyond [`MAX_PROBLEMS`] they are dropped, and that they are is told once.
    pub(crate) fn add_to(self, problems: &mut Vec<Self>) {
        if problems.len() < MAX_PROBLEMS {
            problems.push(self);
        } else if problems.len() == MAX_PROBLEMS {
            let message = format!("there are more than {MAX_PROBLEMS} problems; the others are not listed");
            let fix = "mend those that are".to_owned();
            problems.push(Self { line: 1, column: 1, code: TOO_MANY, message, fix, ..self });
        }
    }

    /// Must whoever applies the document say why they do it nevertheless? Not for what is no fault of the document:
    /// something that this build does not do, or a default that is good where there is one site.
    pub fn needs_reason(&self) -> bool {
        self.level == Level::Warning
            && !matches!(self.code, "kind-not-read" | "action-not-built" | "not-acted-on" | "no-zones")
    }
}

impl fmt::Display for Problem {
    /// `schedules.toml:14:1: unknown key "mis_fire" in …` and, where there is one, `  fix: …` on a
    /// second line. Without `error[…]: ` in front, which is the caller's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if self.fix.is_empty() { Ok(()) } else { write!(f, "\n  fix: {}", self.fix) }
    }
}
