//! TOML front end of what operators write: spans, schema, lint, explain.
//!
//! Turns TOML into the typed documents of `fleet-types` and, once, into their canonical JSON. Finds all
//! problems of all files at once, each with file, line, column, the nearest right word and what to do.
//! It reads no files, no clock and no network; the CLI and the controller's apply call it. It is never
//! linked into the agent: nodes read the canonical JSON only (security-and-delivery §1.15).

mod action_check;
mod explain;
mod kind_check;
mod known;
mod params_lint;
mod path_check;
mod placeholder_check;
mod position;
mod problem;
mod procedure_lint;
mod profile_lint;
mod read;
mod reporter;
mod rollout_policy_lint;
mod schedule_lint;
mod schema;
mod set;
mod source;
mod stand_in;
mod step_lint;
mod text_check;
mod threshold_lint;
mod unbuilt;
mod walk;
mod walk_free;
mod walk_text;
mod window_lint;

pub use explain::{explain, schema_paths};
pub use problem::{Level, Problem};
pub use read::{Parsed, parse, to_canonical_json};
pub use schema::json_schema;
pub use set::{Lint, ParsedSet, parse_set};
pub use source::{MAX_FILE_BYTES, MAX_NESTING, SourceFile, read_text};
pub use text_check::quoted;
