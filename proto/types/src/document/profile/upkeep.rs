//! Logs, tuning and the hardening checklist.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::document::ids::Id;
use crate::document::value::{Value, is_false, is_true, yes};
use crate::id::Name;
use crate::time::Span;

/// `[log.*]`: rotation, archive, compression and deletion of log files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // they are logrotate's own switches, by its own names
pub struct Log {
    /// Files, globs allowed.
    pub paths: Vec<String>,
    /// Globs left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Rotation by the node's own logrotate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Rotate>,
    /// Compress rotated files.
    #[serde(default, skip_serializing_if = "is_false")]
    pub compress: bool,
    /// Compress one rotation later.
    #[serde(default, skip_serializing_if = "is_false")]
    pub delay_compress: bool,
    /// No finding when nothing matches.
    #[serde(default, skip_serializing_if = "is_false")]
    pub missing_ok: bool,
    /// Leave empty files.
    #[serde(default, skip_serializing_if = "is_false")]
    pub skip_empty: bool,
    /// How the new file is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create: Option<CreateFile>,
    /// What happens after a rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<RotateAfter>,
    /// Move old files into an archive folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// Compress old files where they lie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress_after: Option<Span>,
    /// Delete old files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete: Option<Delete>,
    /// Remove folders that became empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_empty_directories: Option<RemoveEmptyDirectories>,
}

/// When logs are rotated and how many are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// How often.
    pub every: RotateEvery,
    /// Rotated files kept.
    pub keep: u32,
}

/// How often logs are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotateEvery {
    /// Each hour.
    Hourly,
    /// Each day.
    Daily,
    /// Each week.
    Weekly,
}

/// How the file after a rotation is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateFile {
    /// Mode in octal, `0644`.
    pub mode: String,
    /// Owner.
    pub user: String,
    /// Group.
    pub group: String,
}

/// What happens after a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateAfter {
    /// Services to reload.
    pub reload: Vec<Id>,
}

/// Moving old files into an archive folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Older than this, by the time of the last change.
    pub after: Span,
    /// The folder.
    pub directory: String,
    /// Compress them there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub compress: bool,
}

/// Deleting old files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// Older than this, by the time of the last change.
    pub after: Span,
    /// Which files; none written is `paths` of the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

/// Removing folders that became empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveEmptyDirectories {
    /// Below this folder; never the folder itself.
    pub under: String,
    /// Folders that stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
}

/// `[tuning.*]`: desired settings. Which fields count follows from `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// What is set.
    pub kind: TuningKind,
    /// sysctl: the one owned file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// sysctl: modules loaded first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// sysctl, block: settings; texts and integers only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Value>,
    /// `false`: shipped, shown, not applied.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub enabled: bool,
    /// Applying it can cut the node off; when left out true for sysctl, false for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub touches_network: Option<bool>,
    /// Put the former values back when applying fails.
    #[serde(default, skip_serializing_if = "is_false")]
    pub revert_on_failure: bool,
    /// block: the disk under this mount point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_of: Option<String>,
    /// block: `udev` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist: Option<Persist>,
    /// mount: the mount point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// mount: the options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// mount: when it takes effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apply: Option<ApplyMount>,
}

impl Tuning {
    /// Whether applying it needs a guard: as written, else true for sysctl.
    pub fn touches_network(&self) -> bool {
        self.touches_network.unwrap_or(self.kind == TuningKind::Sysctl)
    }
}

/// What a tuning sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TuningKind {
    /// Kernel settings.
    Sysctl,
    /// A block device's queue.
    Block,
    /// Mount options.
    Mount,
}

/// How a block setting outlives a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Persist {
    /// By a udev rule.
    Udev,
    /// It does not.
    None,
}

/// When mount options take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyMount {
    /// By a remount.
    Live,
    /// With the next mount.
    AtNextMount,
}

/// `[hardening.*]`: an item of the checklist. It only reads. Which fields count follows from `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardening {
    /// Heading on the checklist.
    pub category: String,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// How it is looked at.
    pub kind: HardeningKind,
    /// `command`: one of `[command.*]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Id>,
    /// `log_match`: the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `file_mode`, `file_diff`: files, globs allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// `log_match`: the text looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// `file_mode`: what must not be set, `o+r`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forbid: Option<String>,
    /// `accounts`: from this user id on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_uid: Option<u32>,
    /// `package`: one of `[package.*]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<Id>,
    /// `procedure`: the procedure that must have run well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub procedure: Option<Name>,
    /// How often it is due.
    pub every: Cadence,
    /// What the report holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<HardeningReport>,
}

/// How a hardening item is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HardeningKind {
    /// A declared command.
    Command,
    /// Lines of a log that hold a text.
    LogMatch,
    /// Modes of files.
    FileMode,
    /// Differences of files since the last time.
    FileDiff,
    /// User accounts.
    Accounts,
    /// Pending updates.
    Package,
    /// No good run of a procedure for so long.
    Procedure,
    /// A person looks.
    Manual,
}

/// How often an item is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cadence {
    /// Each day.
    Daily,
    /// Each week.
    Weekly,
    /// Each month.
    Monthly,
    /// Each quarter.
    Quarterly,
}

/// What the report of a hardening item holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HardeningReport {
    /// A number and some lines.
    CountAndSamples,
    /// All of it, and what differs from the last time.
    ListAndDiff,
}
