//! The clap tree. Doc comments of commands and flags are the help text, so they are written for operators.
//!
//! Nothing here decides: values are checked for form only, and [`crate::settings`] merges them.

mod content;
mod fleet;
mod global;
mod parse;
mod patch;
mod people;
mod run;
mod schedule;
mod setup;
mod tree;
mod uses;

pub use content::{ConfigCommand, DocumentCommand, ExplainArgs};
pub use fleet::{AuditCommand, BackupCommand, CertCommand, JoinTokenCommand, NodeCommand, StatusArgs};
pub use global::GlobalFlags;
pub use parse::{MAX_VALID_FOR, span};
pub use patch::{AdvisoryCommand, PatchCommand, VersionFormat};
pub use people::OperatorCommand;
pub use run::{HowToRun, RolloutCommand, RunCommand, StartArgs, TaskArgs, WhatToRun};
pub use schedule::{AuthoriseArgs, ScheduleCommand, ScheduleName, TriggerArgs};
pub use setup::{CompletionArgs, DevArgs, LoginArgs};
pub use tree::{Cli, Command};
pub use uses::{is_hidden, is_planned, unused_flag, with_own_flags, words_of};
