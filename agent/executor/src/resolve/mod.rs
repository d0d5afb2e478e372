//! Resolution: signed procedure, signed profile, parameters and the node's own facts become resolved steps.
//!
//! The node alone resolves (design, "What crosses the wire"). Pure but for the plans of tasks, which read the
//! machine; nothing in here changes anything. Called by policy's gate at acceptance and by runs.

mod arguments;
mod conditions;
mod effects;
mod node_plan;
mod parameters;
mod resolution;
mod task_table;
mod values;

pub use conditions::FactContext;
pub use effects::Effects;
pub use node_plan::node_plan;
pub use resolution::{Resolution, ResolveInput, ResolvedStep, resolve};
pub use task_table::TaskTable;
pub use values::PlaceholderValues;
