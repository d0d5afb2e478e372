//! One node's session: hello, welcome, reconcile, then work down and reports up, until the link ends.
//!
//! | file | what lives there |
//! |---|---|
//! | [`machine`] | decides: what a message, a timer, an answer of a service means; synchronous, without I/O |
//! | [`link`] | acts: waits on all sources, feeds the machine, carries out what it says |
//! | [`hello`] | how a link begins: the first message, its limits, the welcome |
//!
//! What must be done again after a loss stands in the store (the node's inbox) or on the node (its journal), so the
//! session itself keeps only timers. It is fenced: a message of another link, or out of order, ends it.

pub mod hello;
pub mod link;
pub mod machine;

pub use link::Session;
