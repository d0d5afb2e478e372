//! Repositories: typed records over the key-value store, and the commits that join them to the audit log.
//!
//! | file | what lives there |
//! |---|---|
//! | [`keys`] | the text of every key, built nowhere else |
//! | [`codec`] | a version in front of every stored value |
//! | [`records`] | the records themselves: data only |
//! | [`jobs`] | a job's offer and end, each with all that belongs into its commit |
//! | [`audited`] | a commit together with its audit leaves |
//! | [`reader`] | typed reads: one record, a page, a whole prefix at start |
//! | [`copy_files`] | encrypted copies of backups, in files beside the store |
//! | [`output_files`] | output of steps, in files beside the store |
//!
//! Services and the runner call these; nothing here decides anything.

pub mod audited;
pub mod codec;
pub mod copy_files;
pub mod jobs;
pub mod keys;
#[cfg(test)]
mod older_stores;
pub mod output_files;
pub mod reader;
pub mod records;
pub mod rollout_record;
