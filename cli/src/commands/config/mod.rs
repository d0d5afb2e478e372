//! `fleetctl config`: documents as files.

mod apply;
mod diff;
mod difference;
mod format;
mod layout;
mod read;
mod schema;
mod validate;

pub use apply::{Ready, apply};
pub use diff::{diff, of_documents};
pub use format::format;
pub use schema::schema;
pub use validate::validate;
