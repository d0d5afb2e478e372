//! Commands, databases, backups, packages and validators: what work is made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::document::expr::When;
use crate::document::ids::{Id, Key};
use crate::document::param::ParamSpec;
use crate::document::value::is_false;
use crate::time::Span;

/// `[command.*]`: the only way to run a program. No shell, no word splitting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Program and arguments; placeholders are expanded inside an argument and never split it.
    pub argv: Vec<String>,
    /// Typed parameters, usable as `{name}` in `argv`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<Key, ParamSpec>,
    /// Working directory; default `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Limit of one attempt; the timeout of the step covers all.
    pub timeout: Span,
    /// User it runs as; default root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_as: Option<String>,
    /// Whether it changes the node. `false`: may run in a dry run, in a check and in a gate.
    pub changes: bool,
    /// Running it can change filter rules: a step with it needs a guard.
    #[serde(default, skip_serializing_if = "is_false")]
    pub touches_network: bool,
    /// Files it writes, collected as reports of the step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<CommandOutput>,
}

/// A file that a command writes; a missing one is a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandOutput {
    /// Where it lies.
    pub path: String,
    /// Title of the report.
    pub title: String,
    /// Its form.
    pub format: Format,
}

/// Form of a report or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// HTML.
    Html,
    /// JSON.
    Json,
    /// Plain text.
    Text,
    /// Comma-separated values.
    Csv,
}

/// `[database.*]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Only where this is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// The engine.
    pub engine: Engine,
    /// Name of the database.
    pub database: String,
    /// User the client runs as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_as: Option<String>,
    /// Whether statistics are refreshed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub analyze: bool,
    /// Rows that may be deleted, by age.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub purge: Vec<Purge>,
    /// Tables to vacuum; none written is all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vacuum: Vec<String>,
    /// Scope of a reindex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reindex: Option<ReindexScope>,
    /// Reports: `bloat`, `index_usage`, `slow_queries`, `sizes`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reports: Vec<String>,
}

/// A database engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// `PostgreSQL`.
    Postgresql,
}

/// Scope of a reindex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReindexScope {
    /// Nothing.
    None,
    /// The tables of `vacuum`.
    Table,
    /// The whole database.
    Database,
}

/// Rows of a table that may be deleted when they are older than `keep`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purge {
    /// The table.
    pub table: String,
    /// The column with the age.
    pub column: String,
    /// How old rows may become.
    pub keep: Span,
}

/// `[backup.*]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Only where this is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// Files or a database.
    pub kind: BackupKind,
    /// Files and folders, globs allowed; one that matches nothing is a finding.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Globs left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Id of the `[database.*]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<Id>,
    /// Where archives lie.
    pub directory: String,
    /// Name of an archive; `{timestamp}` keeps two of one day apart.
    pub file_name: String,
    /// Retention; never the last good one.
    pub keep: Keep,
    /// Older than this is stale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fresh_within: Option<Span>,
    /// What is checked after writing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verify: Vec<VerifyMethod>,
    /// Restoring it can change filter rules.
    #[serde(default, skip_serializing_if = "is_false")]
    pub touches_network: bool,
    /// A copy off the node, encrypted on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<BackupCopy>,
    /// Restoring into a scratch place to see that it can be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_test: Option<RestoreTest>,
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupKind {
    /// A tar archive of files, gzip.
    Files,
    /// A dump of a database.
    Database,
}

/// Retention: days, count, or both; with both, both must agree before one is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// Days an archive is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
    /// Archives that are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// What is checked after writing an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyMethod {
    /// The SHA-256 beside the archive.
    Checksum,
    /// The archive's listing is read to its end.
    List,
    /// It is restored into a scratch place.
    RestoreTest,
}

/// A copy of a backup off the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupCopy {
    /// `artifacts` or `s3:<name>`.
    pub to: String,
    /// Recipients it is encrypted to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encrypt_to: Vec<String>,
    /// File with one recipient a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypt_to_file: Option<String>,
    /// Retention of the copies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
}

/// Rehearsal of a restore; the one place where it is declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreTest {
    /// How often; overdue is an alert.
    pub every: Span,
    /// Week day, `MON` to `SUN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// Scratch database, or `scratch` for files.
    pub into: String,
    /// Always `always`: the scratch place goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_after: Option<String>,
}

/// `[package.*]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Package name, `*` for all but those on hold, or a requirements file for pip.
    pub name: String,
    /// The package manager.
    pub manager: PackageManager,
    /// Only a rollout moves it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hold: bool,
    /// Where it must come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// pip: folder of the requirements file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Moving it can change filter rules.
    #[serde(default, skip_serializing_if = "is_false")]
    pub touches_network: bool,
}

/// A package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackageManager {
    /// dpkg and apt.
    Apt,
    /// pip.
    Pip,
}

/// `[validator.*]`. Which fields count follows from `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validator {
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// How it is looked at.
    pub kind: ValidatorKind,
    /// `command`: one of `[command.*]` with `changes = false`; exit 0 is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Id>,
    /// `service`: one of `[service.*]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Id>,
    /// One file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Files, globs allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// What an invalid file does to the step.
    #[serde(default)]
    pub on_failure: OnInvalid,
}

impl Validator {
    /// The files it looks at, whether written as `path` or as `paths`.
    pub fn all_paths(&self) -> impl Iterator<Item = &String> {
        self.path.iter().chain(&self.paths)
    }
}

/// How a validator looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValidatorKind {
    /// A declared command exits with 0.
    Command,
    /// A service is as expected.
    Service,
    /// A file is there.
    FileExists,
    /// Files parse as JSON.
    Json,
    /// Files parse as YAML.
    Yaml,
    /// Files parse as TOML.
    Toml,
    /// Files are accepted by nft's checker.
    Nft,
    /// Files parse as Python.
    PythonSyntax,
}

/// What an invalid file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInvalid {
    /// Validators after it do not run.
    #[default]
    Abort,
    /// All validators run; the step still fails.
    Warn,
}
