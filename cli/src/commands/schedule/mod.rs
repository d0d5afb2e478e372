//! `fleetctl schedule`.

mod apply;
mod dispatch;
mod history;
mod look;
mod next;
mod steer;
mod trigger;
mod wanted;

pub use dispatch::run;
