//! `fleetctl audit`: the list, and the check that the log is whole.

mod list;
mod log_check;
mod report_keys;
mod verify;

pub use list::list;
pub use verify::verify;
