//! How a command of the agent fails: an exit code with a meaning, and the chain of causes, printed once.

use std::error::Error;
use std::fmt;

/// Exit codes of the agent; frozen, service units and scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Anything that has no code of its own.
    Failed = 1,
    /// Command line or configuration.
    Usage = 2,
    /// No controller could be reached.
    Unreachable = 9,
    /// Not enrolled, or the identity cannot be used.
    Identity = 10,
    /// The journal or another store of this node cannot be relied on.
    Store = 75,
}

impl Exit {
    /// The exit of another process of this program; a code that is none of these is a plain failure.
    pub fn of_code(code: u32) -> Self {
        [Self::Usage, Self::Unreachable, Self::Identity, Self::Store]
            .into_iter()
            .find(|exit| *exit as u32 == code)
            .unwrap_or(Self::Failed)
    }
}

/// A failure as `main` shows it.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened and what to do, one line a layer.
    pub message: String,
}

impl Failure {
    /// A failure with a plain message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// A failure with an error and its causes.
    pub fn of(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        Self { exit, message: chain(error) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// An error and its causes in one line. Each layer prints itself only (examples.md 16).
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        // Some foreign errors repeat their cause.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}
