//! The edge of this crate: one connection to a controller, and typed calls over it.
//!
//! Generated messages and statuses stop here; commands see ids, views and [`crate::error::Failure`]. Every
//! call has a limit. A call whose connection broke is sent once more: every call is either a read or bears a
//! key that makes a repetition harmless (security-and-delivery §2.3).

mod advisories;
mod calls;
mod connection;
mod enrolment;
mod streams;

pub use advisories::AdvisoryPiece;
pub use calls::SourceDocument;
pub use connection::{Client, tls};
pub use enrolment::{EnrolledOperator, EnrolmentRequest, RejoinRequest, redeem, rejoin};
pub use streams::{AuditRecords, OutputParts, Part, RunChanges};
