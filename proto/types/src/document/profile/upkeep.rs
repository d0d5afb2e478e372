//! Logs, tuning and the hardening checklist.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::document::ids::Id;
use crate::document::schema::JsonSchema;
use crate::document::value::{Value, is_false, is_true, yes};
use crate::id::Name;
use crate::time::Span;

/// Rotation, archive, compression and deletion of log files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // they are logrotate's own switches, by its own names
pub struct Log {
    /// Files, globs allowed.
    #[schemars(extend("x-takes" = "path"))]
    pub paths: Vec<String>,
    /// Globs left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-takes" = "path"))]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// How often.
    pub every: RotateEvery,
    /// Rotated files kept.
    #[schemars(range(min = 1, max = 10_000))]
    pub keep: u32,
}

/// How often logs are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateFile {
    /// Mode in octal, "0644".
    pub mode: String,
    /// Owner.
    pub user: String,
    /// Group.
    pub group: String,
}

/// What happens after a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateAfter {
    /// Services to reload.
    #[schemars(extend("x-takes" = { "id-of": "service" }))]
    pub reload: Vec<Id>,
}

/// Moving old files into an archive folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Older than this, by the time of the last change.
    pub after: Span,
    /// The folder.
    #[schemars(extend("x-takes" = "path"))]
    pub directory: String,
    /// Compress them there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub compress: bool,
}

/// Deleting old files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// Older than this, by the time of the last change.
    pub after: Span,
    /// Which files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-takes" = "path", "x-default" = "the paths of the log"))]
    pub paths: Vec<String>,
}

/// Removing folders that became empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveEmptyDirectories {
    /// Below this folder; never the folder itself.
    #[schemars(extend("x-takes" = "path"))]
    pub under: String,
    /// Folders that stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-takes" = "path"))]
    pub keep: Vec<String>,
}

/// Desired settings, diffed before applying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// What is set.
    pub kind: TuningKind,
    /// The one owned file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "path"))]
    pub file: Option<String>,
    /// Modules loaded first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// The settings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-takes" = "settings"))]
    pub set: BTreeMap<String, Value>,
    /// `false`: shipped, shown, not applied.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    #[schemars(extend("default" = true))]
    pub enabled: bool,
    /// Applying it can cut the node off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "true for sysctl, else false; settings below net. always can"))]
    pub touches_network: Option<bool>,
    /// Put the former values back when applying fails. A step that fails does so whatever stands here.
    #[serde(default, skip_serializing_if = "is_false")]
    pub revert_on_failure: bool,
    /// The disk under this mount point; never a device name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "path"))]
    pub device_of: Option<String>,
    /// How it outlives a reboot.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "none"))]
    pub persist: Option<Persist>,
    /// The mount point.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "path"))]
    pub path: Option<String>,
    /// Mount options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// When mount options take effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "live"))]
    pub apply: Option<ApplyMount>,
}

impl Tuning {
    /// Whether applying it needs a guard: as written, else true for sysctl; a setting below `net` always does.
    pub fn touches_network(&self) -> bool {
        let of_network = |key: &String| key.starts_with("net.") || key.starts_with("net/");
        let is_sysctl = self.kind == TuningKind::Sysctl;
        self.touches_network.unwrap_or(is_sysctl) || (is_sysctl && self.set.keys().any(of_network))
    }
}

/// What a tuning sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TuningKind {
    /// Kernel settings.
    #[schemars(extend("x-needs" = [["file"], ["set"]], "x-may" = ["modules"]))]
    Sysctl,
    /// A block device's queue.
    #[schemars(extend("x-needs" = [["device_of"], ["set"]], "x-may" = ["persist"]))]
    Block,
    /// Mount options.
    #[schemars(extend("x-needs" = [["path"], ["options"]], "x-may" = ["apply"]))]
    Mount,
}

/// How a block setting outlives a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Persist {
    /// By a udev rule.
    Udev,
    /// It does not.
    None,
}

/// When mount options take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApplyMount {
    /// By a remount.
    Live,
    /// With the next mount.
    AtNextMount,
}

/// A rule set of the packet filter, whole: what runs and what is loaded at boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ruleset {
    /// Whose language it is.
    pub kind: RulesetKind,
    /// The file that is loaded at boot.
    #[schemars(extend("x-takes" = "path"))]
    pub file: String,
    /// The rules, taken as they stand: braces are those of the language. Begins with `flush ruleset`, because what was
    /// loaded before would stay otherwise.
    pub text: String,
}

impl Ruleset {
    /// What every text begins with.
    pub const FLUSH: &'static str = "flush ruleset";
    /// Longest text, in bytes: nft is handed it as one argument to judge it, of which Linux takes 128 KiB (`execve(2)`), and the
    /// file that it replaces must fit a step's undo.
    pub const MAX_TEXT: usize = 64 * 1024;

    /// Why no node could load it, where that can be told from the text alone.
    pub fn flaw(&self) -> Option<String> {
        let mut statements =
            self.text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        if statements.next() != Some(Self::FLUSH) {
            let flush = Self::FLUSH;
            return Some(format!(
                "its text does not begin with \"{flush}\", so what was loaded before would stay"
            ));
        }
        let length = self.text.len();
        (length > Self::MAX_TEXT)
            .then(|| format!("its text of {length} bytes is over the limit of {}", Self::MAX_TEXT))
    }
}

/// The language of a rule set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RulesetKind {
    /// nftables, `nft(8)`.
    Nftables,
}

/// An item of the hardening checklist; it only reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hardening {
    /// Heading on the checklist.
    pub category: String,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// How it is looked at.
    pub kind: HardeningKind,
    /// A command with `changes = false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = { "id-of": "command" }))]
    pub command: Option<Id>,
    /// The log file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "path"))]
    pub path: Option<String>,
    /// Files, globs allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-takes" = "path"))]
    pub paths: Vec<String>,
    /// The text looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// What must not be set, "o+r".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forbid: Option<String>,
    /// From this user id on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_uid: Option<u32>,
    /// Finding: updates pending for this package.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = { "id-of": "package" }))]
    pub package: Option<Id>,
    /// Finding: no good run of this procedure for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "procedure"))]
    pub procedure: Option<Name>,
    /// How often it is due.
    pub every: Cadence,
    /// What the report holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<HardeningReport>,
}

/// How a hardening item is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HardeningKind {
    /// A declared command.
    #[schemars(extend("x-needs" = [["command"]]))]
    Command,
    /// Lines of a log that hold a text.
    #[schemars(extend("x-needs" = [["path"], ["pattern"]]))]
    LogMatch,
    /// Modes of files.
    #[schemars(extend("x-needs" = [["paths"]], "x-may" = ["forbid"]))]
    FileMode,
    /// Differences of files since the last time.
    #[schemars(extend("x-needs" = [["paths"]]))]
    FileDiff,
    /// User accounts.
    #[schemars(extend("x-may" = ["min_uid"]))]
    Accounts,
    /// Pending updates.
    #[schemars(extend("x-needs" = [["package"]]))]
    Package,
    /// No good run of a procedure for so long.
    #[schemars(extend("x-needs" = [["procedure"]]))]
    Procedure,
    /// A person looks.
    Manual,
}

/// How often an item is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HardeningReport {
    /// A number and some lines.
    CountAndSamples,
    /// All of it, and what differs from the last time.
    ListAndDiff,
}
