//! What can go wrong in the controller: a kind, a text that the caller may see, and a source that they may not.
//!
//! Errors know nothing of gRPC; `edge/status.rs` has the one match that turns kinds into status codes.

use fleet_store::StoreError;
use fleet_types::view::ErrorDetail;

const MIB: u64 = 1024 * 1024;

/// Kinds of failure, as callers can act on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is malformed or breaks a limit.
    Invalid,
    /// The caller is not who they must be.
    Unauthenticated,
    /// The caller may not do this.
    Refused,
    /// There is no such thing.
    NotFound,
    /// It exists already or changed in between.
    Conflict,
    /// Something must happen first: a window, a key in the bundle, a node's enrolment.
    Blocked,
    /// A limit of space or rate.
    Exhausted,
    /// Try again later.
    Unavailable,
    /// A defect or damage here.
    Internal,
}

/// An error with what the caller may know.
#[derive(Debug, thiserror::Error)]
#[error("{}", detail.message)]
pub struct ControllerError {
    /// The kind.
    pub kind: Kind,
    /// What the caller sees.
    pub detail: Box<ErrorDetail>,
    /// What only the log sees.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Result of the controller's own calls.
pub type Result<T, E = ControllerError> = std::result::Result<T, E>;

impl ControllerError {
    /// An error with its stable code and text.
    pub fn new(kind: Kind, code: &str, message: impl Into<String>) -> Self {
        let detail = ErrorDetail {
            code: code.to_owned(),
            message: message.into(),
            causes: vec![],
            fix: String::new(),
            id: String::new(),
            retry_after_ms: 0,
        };
        Self { kind, detail: Box::new(detail), source: None }
    }

    /// The request breaks a rule; names the field.
    pub fn invalid(field: &str, why: impl std::fmt::Display) -> Self {
        Self::new(Kind::Invalid, "invalid-argument", format!("{field}: {why}"))
    }

    /// There is no such thing.
    pub fn not_found(what: &str, name: impl std::fmt::Display) -> Self {
        Self::new(Kind::NotFound, "not-found", format!("{what} \"{name}\" does not exist"))
    }

    /// A defect or damage; the text is for the log, the caller gets a reference.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let mut error =
            Self::new(Kind::Internal, "internal", "the controller failed to do this; its log says why");
        error.source = Some(source.into());
        error
    }

    /// Adds what to do.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.detail.fix = fix.into();
        self
    }

    /// Adds a cause.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.detail.causes.push(cause.into());
        self
    }

    /// May the same call succeed later without a change?
    pub const fn retryable(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::Exhausted)
    }
}

impl From<StoreError> for ControllerError {
    fn from(error: StoreError) -> Self {
        let base = match &error {
            StoreError::Conflict { .. } => {
                Self::new(Kind::Conflict, "conflict", "the record changed while this was under way")
                    .fix("look at it again and repeat the command")
            }
            StoreError::Unavailable { .. } | StoreError::OutcomeUnknown { .. } => {
                Self::new(Kind::Unavailable, "store-unavailable", "the controller's store does not answer")
                    .fix("try again; the same idempotency key makes it happen once")
            }
            StoreError::Full { free_bytes, floor_bytes, .. } => Self::new(
                Kind::Exhausted,
                "store-full",
                "the controller's store has no space left and takes no new work",
            )
            // The path is for the log alone.
            .cause(format!(
                "{} MiB must stay free on its file system, {} are",
                floor_bytes.div_ceil(MIB),
                free_bytes / MIB
            ))
            .fix(
                "free space on the controller's disk; stopping runs and storing reports go on from a reserve",
            ),
            StoreError::TooLarge { .. } => Self::new(Kind::Invalid, "too-large", error.to_string()),
            _ => return Self::internal(error),
        };
        Self { source: Some(Box::new(error)), ..base }
    }
}

impl From<fleet_proto::convert::FieldError> for ControllerError {
    fn from(error: fleet_proto::convert::FieldError) -> Self {
        Self::invalid(error.field, error.why)
    }
}
