//! `fleetctl schedule`.

mod apply;
mod dispatch;
mod trigger;
mod wanted;

pub use dispatch::run;
