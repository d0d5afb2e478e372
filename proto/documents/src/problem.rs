//! What is wrong with a document, where, and what to do about it.

use std::fmt;

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
    /// Must whoever applies the document say why they do it nevertheless? Not for what is no fault of the document,
    /// but something that this build does not do.
    pub fn needs_reason(&self) -> bool {
        self.level == Level::Warning
            && !matches!(self.code, "kind-not-read" | "action-not-built" | "not-acted-on")
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
