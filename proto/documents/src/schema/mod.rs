//! The schema: every table and key of every kind of document, declared once.
//!
//! The walk over a file, `explain` and the lists of allowed words all read these tables, so that they
//! cannot say different things. A test checks that they agree with the typed documents.

#[cfg(test)]
mod agreement;
mod field;
mod procedure;
mod profile;
mod profile_programs;
mod profile_upkeep;
mod schedule;

pub(crate) use field::{Field, FieldKind, KindRule, TableSchema};
pub(crate) use procedure::PROCEDURE;
pub(crate) use profile::PROFILE;
pub(crate) use schedule::SCHEDULE;
