//! One failure, ready to be shown: code, what, causes, fixes, request id, exit code.

use super::ExitCode;

/// Most causes and fixes that are shown; a wall of text helps nobody.
const MAX_LINES: usize = 50;

/// Why a command ended without doing what was asked. One pointer wide, for it is in every result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(Box<Parts>);

/// The parts of a [`Failure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Stable code, such as `no-target`; empty where the exit code says it all.
    pub code: String,
    /// What happened; names and values quoted.
    pub what: String,
    /// Causes, one a line, equal ones once.
    pub causes: Vec<String>,
    /// What to do.
    pub fixes: Vec<String>,
    /// Request id, to be found in the controller's log.
    pub id: Option<String>,
    /// How the process exits.
    pub exit: ExitCode,
}

impl std::ops::Deref for Failure {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl std::ops::DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.0
    }
}

impl Failure {
    /// A failure with a code and what happened.
    pub fn new(exit: ExitCode, code: impl Into<String>, what: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            code: code.into(),
            what: what.into(),
            causes: Vec::new(),
            fixes: Vec::new(),
            id: None,
            exit,
        }))
    }

    /// Wrong arguments.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, "usage", what)
    }

    /// Something that should not happen; `error` and its sources are the causes.
    pub fn unexpected(what: impl Into<String>, error: &dyn std::error::Error) -> Self {
        Self::new(ExitCode::Unexpected, "unexpected", what).because(error)
    }

    /// Nothing to be said: whoever ended it knows.
    pub fn silent(exit: ExitCode) -> Self {
        Self::new(exit, "", "")
    }

    /// Nobody reads our output any more: end quietly (`… | head`).
    pub fn reader_gone() -> Self {
        Self::silent(ExitCode::Done)
    }

    /// Is there nothing to be said?
    pub fn is_silent(&self) -> bool {
        self.code.is_empty()
    }

    /// Adds a cause, once; what happened is no cause of itself.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        let cause = cause.into();
        if !cause.is_empty()
            && cause != self.what
            && !self.causes.contains(&cause)
            && self.causes.len() < MAX_LINES
        {
            self.causes.push(cause);
        }
        self
    }

    /// Adds an error and its sources as causes: the one place where a chain is walked.
    #[must_use]
    pub fn because(self, error: &dyn std::error::Error) -> Self {
        std::iter::successors(Some(error), |e| e.source())
            .fold(self, |failure, e| failure.cause(e.to_string()))
    }

    /// Adds what to do, once.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        let fix = fix.into();
        if !fix.is_empty() && !self.fixes.contains(&fix) && self.fixes.len() < MAX_LINES {
            self.fixes.push(fix);
        }
        self
    }
}

impl From<std::io::Error> for Failure {
    /// Of writing output; files have errors that name them.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::reader_gone();
        }
        Self::unexpected("the output cannot be written", &error)
    }
}
