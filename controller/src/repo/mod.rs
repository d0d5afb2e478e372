//! Repositories: typed records over the key-value store, and the commits that join them to the audit log.
//!
//! | file | what lives there |
//! |---|---|
//! | [`fleet`], [`nodes`], [`tokens`], [`operators`], [`documents`], [`runs`], [`rollouts`], [`jobs`], [`holds`], [`standing_orders`], [`reports`], [`backups`], [`answers`] | an aggregate each: its records, keys and indexes, and its transitions with all that belongs into their commit |
//! | [`certificates`] | which certificates speak for a node or operator: a part of their records; the newest renewal |
//! | [`audited`] | a commit together with its audit leaves; the log's own keys |
//! | [`keys`] | how the text of a key is made, for the aggregates alone |
//! | [`codec`] | a version in front of every stored value |
//! | [`reader`] | typed reads: one record, a page, a whole prefix at start |
//! | [`copy_files`] | encrypted copies of backups, in files beside the store |
//! | [`packages`] | what packages nodes have, each list once |
//! | [`ticks`] | what became of ticks, how far lanes are decided, what is paused |
//! | [`output_files`] | output of steps, in files beside the store |
//!
//! Services and the runner call these; nothing here decides anything.

pub mod advisories;
pub mod advisory_files;
pub mod answers;
pub mod audited;
pub mod backups;
pub mod certificates;
pub mod codec;
pub mod copy_files;
pub mod documents;
pub mod finding_holds;
pub mod fleet;
pub mod holds;
pub mod jobs;
mod keys;
pub mod nodes;
#[cfg(test)]
mod older_stores;
pub mod operators;
pub mod output_files;
pub mod packages;
pub mod reader;
pub mod reports;
pub mod rollouts;
pub mod runs;
pub mod standing_orders;
pub mod ticks;
pub mod tokens;
