//! What the dispatcher hears, and what it has done afterwards. Values only.

use fleet_proto::pb;

use crate::run::{RunEvent, Work};

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// The core says something.
    Core(pb::core_message::Body),
    /// The core has left; what was begun goes on.
    CoreLeft,
    /// Another core has come; it knows nothing yet.
    CoreCame,
    /// A run says something.
    Run(RunEvent),
    /// Time has passed.
    Tick,
    /// The executor is to stop: no new work, runs end between steps.
    Drain,
}

/// Something to do outside of the dispatcher, in order.
#[derive(Debug)]
pub enum Effect {
    /// Tell the core.
    Send(pb::executor_message::Body),
    /// Start a run on a thread of its own.
    Start(Box<Work>),
    /// Nothing is left to do: stop.
    Stop,
}
