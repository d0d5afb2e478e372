//! Commands, databases, backups, packages and validators: what work is made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::document::expr::When;
use crate::document::ids::{Id, Key};
use crate::document::param::ParamSpec;
use crate::document::schema::JsonSchema;
use crate::document::value::is_false;
use crate::time::Span;

/// A program that may be run: no shell, no word splitting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Program and arguments.
    #[schemars(extend("x-takes" = "template"))]
    pub argv: Vec<String>,
    /// Typed parameters, usable as `{name}` in `argv`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<Key, ParamSpec>,
    /// Working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "path", "default" = "/"))]
    pub directory: Option<String>,
    /// Limit of one attempt; the timeout of the step covers all.
    pub timeout: Span,
    /// User it runs as.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "root"))]
    pub run_as: Option<String>,
    /// `false`: safe to run in a dry run, a check or a gate.
    pub changes: bool,
    /// Running it can change filter rules: its steps need a guard.
    #[serde(default, skip_serializing_if = "is_false")]
    pub touches_network: bool,
    /// Files it writes, collected as reports of the step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<CommandOutput>,
}

/// A file that a command writes; a missing one is a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandOutput {
    /// Where it lies.
    #[schemars(extend("x-takes" = "path"))]
    pub path: String,
    /// Title of the report.
    pub title: String,
    /// Its form.
    pub format: Format,
}

/// Form of a report or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Tables to vacuum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-default" = "all tables"))]
    pub vacuum: Vec<String>,
    /// Scope of a reindex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reindex: Option<ReindexScope>,
    /// Reports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "items" = { "type": "string", "enum": ["bloat", "index_usage", "slow_queries", "sizes"] },
        "x-idle" = "the step with database.report says which"
    ))]
    pub reports: Vec<String>,
}

/// A database engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// `PostgreSQL`.
    Postgresql,
}

/// Scope of a reindex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReindexScope {
    /// Nothing.
    None,
    /// The tables of `vacuum`.
    Table,
    /// The whole database.
    Database,
}

/// Rows that may be deleted when they are older.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Purge {
    /// The table.
    pub table: String,
    /// The column with the age.
    pub column: String,
    /// How old rows may become.
    pub keep: Span,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Only where this is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// What it holds.
    pub kind: BackupKind,
    /// Files and folders; one that matches nothing is a finding.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-takes" = "path"))]
    pub sources: Vec<String>,
    /// Globs left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-takes" = "path"))]
    pub exclude: Vec<String>,
    /// The database.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = { "id-of": "database" }))]
    pub database: Option<Id>,
    /// Where archives lie.
    #[schemars(extend("x-takes" = "path"))]
    pub directory: String,
    /// Name of an archive; `{timestamp}` keeps two of one day apart.
    #[schemars(extend("x-takes" = "template"))]
    pub file_name: String,
    /// Retention: days, count, or both, which must agree then before one is deleted; never the last good one.
    pub keep: Keep,
    /// Older than this shows as stale everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fresh_within: Option<Span>,
    /// What is checked after writing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verify: Vec<VerifyMethod>,
    /// Restoring it can change filter rules: its steps need a guard.
    #[serde(default, skip_serializing_if = "is_false")]
    pub touches_network: bool,
    /// A copy off the node, encrypted on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<BackupCopy>,
    /// Rehearsal of a restore; overdue is an alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-idle" = "nothing rehearses restores by itself, runs of backup.restore_test do"))]
    pub restore_test: Option<RestoreTest>,
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackupKind {
    /// A tar archive of files, gzip.
    #[schemars(extend("x-needs" = [["sources"]], "x-may" = ["exclude"]))]
    Files,
    /// A dump of a database.
    #[schemars(extend("x-needs" = [["database"]]))]
    Database,
}

/// Retention; with both, both must agree before one is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// Days an archive is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36500))]
    pub days: Option<u32>,
    /// Archives that are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub count: Option<u32>,
}

/// What is checked after writing an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerifyMethod {
    /// The SHA-256 beside the archive.
    Checksum,
    /// The archive's listing is read to its end.
    List,
    /// It is restored into a scratch place.
    #[schemars(extend("x-idle" = "backup.run rehearses nothing, runs of backup.restore_test do"))]
    RestoreTest,
}

/// A copy of a backup off the node, encrypted on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupCopy {
    /// `"artifacts"` or `"s3:<name>"`.
    pub to: String,
    /// Recipients it is encrypted to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encrypt_to: Vec<String>,
    /// File with one recipient a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "path"))]
    pub encrypt_to_file: Option<String>,
    /// Retention of the copies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
}

/// Rehearsal of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreTest {
    /// How often.
    pub every: Span,
    /// Day of the week.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"]))]
    pub on: Option<String>,
    /// Scratch database, or "scratch" for files.
    pub into: String,
    /// The scratch place always goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["always"], "default" = "always"))]
    pub drop_after: Option<String>,
}

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Package name, "*" for all but those on hold, or a requirements file.
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
    #[schemars(extend("x-takes" = "path"))]
    pub directory: Option<String>,
    /// Moving it can change filter rules: its steps need a guard.
    #[serde(default, skip_serializing_if = "is_false")]
    pub touches_network: bool,
}

/// A package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PackageManager {
    /// dpkg and apt.
    Apt,
    /// pip.
    #[schemars(extend("x-idle" = "a node handles packages of its distribution only"))]
    Pip,
}

/// A validator of configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Validator {
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// How it is looked at.
    pub kind: ValidatorKind,
    /// A command with `changes = false`; exit 0 is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = { "id-of": "command" }))]
    pub command: Option<Id>,
    /// A service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = { "id-of": "service" }))]
    pub service: Option<Id>,
    /// One file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-takes" = "path"))]
    pub path: Option<String>,
    /// Files, globs allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-takes" = "path"))]
    pub paths: Vec<String>,
    /// `abort`: validators after it do not run.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ValidatorKind {
    /// A declared command exits with 0. With a path it looks at that file: a candidate takes its place in the command.
    #[schemars(extend("x-needs" = [["command"]], "x-may" = ["path"]))]
    Command,
    /// A service is as expected.
    #[schemars(extend("x-needs" = [["service"]]))]
    Service,
    /// A file is there.
    #[schemars(extend("x-needs" = [["path", "paths"]]))]
    FileExists,
    /// Files parse as JSON.
    #[schemars(extend("x-needs" = [["path", "paths"]]))]
    Json,
    /// Files parse as YAML.
    #[schemars(extend("x-needs" = [["path", "paths"]]))]
    Yaml,
    /// Files parse as TOML.
    #[schemars(extend("x-needs" = [["path", "paths"]]))]
    Toml,
    /// Files are accepted by nft's checker.
    #[schemars(extend("x-needs" = [["path", "paths"]]))]
    Nft,
    /// Files parse as Python.
    #[schemars(extend("x-needs" = [["path", "paths"]]))]
    PythonSyntax,
}

/// What an invalid file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnInvalid {
    /// Validators after it do not run.
    #[default]
    Abort,
    /// All validators run; the step still fails.
    Warn,
}
