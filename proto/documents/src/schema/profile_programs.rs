//! `kind = "profile"`, second part: commands, databases, backups, packages and validators.

use fleet_types::action::Table;
use fleet_types::document::value::MAX_INTEGER as MAX;

use super::field::FieldKind::{
    Any, Bool, ByKey, Duration, IdOf, Integer, Path, Paths, Table as Inner, Tables, Template, Templates,
    Text, Texts, When, Word, Words,
};
use super::field::{Field, KindRule, TableSchema};

pub(super) const COMMAND: TableSchema = TableSchema {
    name: "command",
    help: "a program that may be run: no shell, no word splitting",
    kinds: &[],
    fields: &[
        Field::required("argv", Templates, "program and arguments"),
        Field::optional("params", ByKey(&PARAM), "", "typed parameters, usable as {name} in argv"),
        Field::optional("directory", Path, "/", "working directory"),
        Field::required("timeout", Duration, "limit of one attempt; the timeout of the step covers all"),
        Field::optional("run_as", Text, "root", "user it runs as"),
        Field::required("changes", Bool, "false: safe to run in a dry run, a check or a gate"),
        Field::optional(
            "touches_network",
            Bool,
            "false",
            "running it can change filter rules: its steps need a guard",
        ),
        Field::optional("outputs", Tables(&OUTPUT), "", "files it writes, collected as reports of the step"),
    ],
};

/// A parameter of a command or procedure.
pub(crate) const PARAM: TableSchema = TableSchema {
    name: "params",
    help: "a typed parameter, checked on the controller and again on the node",
    kinds: &[],
    fields: &[
        Field::required(
            "type",
            Word(&[
                "string", "enum", "path", "date", "version", "run", "integer", "bool", "duration", "list",
            ]),
            "its type",
        ),
        Field::optional("required", Bool, "false", "whether a run must give it"),
        Field::optional("default", Any, "", "what it is when a run does not give it"),
        Field::optional("values", Texts, "", "enum, list: the allowed words"),
        Field::optional("pattern", Text, "", "string, list: a regular expression from ^ to $"),
        Field::optional("min", Integer(-MAX, MAX), "", "integer: smallest"),
        Field::optional("max", Integer(-MAX, MAX), "", "integer: largest"),
        Field::optional("under", Text, "", "path: the folder it must lie under"),
        Field::optional("help", Text, "", "one line for people"),
    ],
};

const OUTPUT: TableSchema = TableSchema {
    name: "outputs",
    help: "a file that a command writes; a missing one is a finding",
    kinds: &[],
    fields: &[
        Field::required("path", Path, "where it lies"),
        Field::required("title", Text, "title of the report"),
        Field::required("format", Word(&["html", "json", "text", "csv"]), "its form"),
    ],
};

pub(super) const DATABASE: TableSchema = TableSchema {
    name: "database",
    help: "a database",
    kinds: &[],
    fields: &[
        Field::optional("when", When, "", "only where this is true"),
        Field::required("engine", Word(&["postgresql"]), "the engine"),
        Field::required("database", Text, "name of the database"),
        Field::optional("run_as", Text, "", "user the client runs as"),
        Field::optional("analyze", Bool, "false", "whether statistics are refreshed"),
        Field::optional("purge", Tables(&PURGE), "", "rows that may be deleted, by age"),
        Field::optional("vacuum", Texts, "all tables", "tables to vacuum"),
        Field::optional("reindex", Word(&["none", "table", "database"]), "", "scope of a reindex"),
        Field::optional("reports", Words(&["bloat", "index_usage", "slow_queries", "sizes"]), "", "reports"),
    ],
};

const PURGE: TableSchema = TableSchema {
    name: "purge",
    help: "rows that may be deleted when they are older",
    kinds: &[],
    fields: &[
        Field::required("table", Text, "the table"),
        Field::required("column", Text, "the column with the age"),
        Field::required("keep", Duration, "how old rows may become"),
    ],
};

pub(super) const BACKUP: TableSchema = TableSchema {
    name: "backup",
    help: "a backup",
    kinds: &[
        KindRule { word: "files", needs: &[&["sources"]], takes: &["exclude"] },
        KindRule { word: "database", needs: &[&["database"]], takes: &[] },
    ],
    fields: &[
        Field::optional("when", When, "", "only where this is true"),
        Field::required("kind", Word(&["files", "database"]), "what it holds")
            .idle_words(&[("database", "a node cannot dump databases yet")]),
        Field::optional("sources", Paths, "", "files and folders; one that matches nothing is a finding"),
        Field::optional("exclude", Paths, "", "globs left out"),
        Field::optional("database", IdOf(Table::Database), "", "the database"),
        Field::required("directory", Path, "where archives lie"),
        Field::required("file_name", Template, "name of an archive; {timestamp} keeps two of one day apart"),
        Field::required("keep", Inner(&KEEP), "retention: days, count, or both; never the last good one"),
        Field::optional("fresh_within", Duration, "", "older than this shows as stale everywhere"),
        Field::optional(
            "verify",
            Words(&["checksum", "list", "restore_test"]),
            "",
            "what is checked after writing",
        )
        .idle_words(&[("restore_test", "there is no rehearsal of a restore")]),
        Field::optional(
            "touches_network",
            Bool,
            "false",
            "restoring it can change filter rules: its steps need a guard",
        ),
        Field::optional("copy", Inner(&COPY), "", "a copy off the node, encrypted on it")
            .idle("archives stay on the node"),
        Field::optional(
            "restore_test",
            Inner(&RESTORE_TEST),
            "",
            "rehearsal of a restore; overdue is an alert",
        )
        .idle("there is no rehearsal of a restore"),
    ],
};

const KEEP: TableSchema = TableSchema {
    name: "keep",
    help: "retention; with both, both must agree before one is deleted",
    kinds: &[],
    fields: &[
        Field::optional("days", Integer(1, 36500), "", "days an archive is kept"),
        Field::optional("count", Integer(1, 100_000), "", "archives that are kept"),
    ],
};

const COPY: TableSchema = TableSchema {
    name: "copy",
    help: "a copy of a backup off the node, encrypted on it",
    kinds: &[],
    fields: &[
        Field::required("to", Text, "\"artifacts\" or \"s3:<name>\""),
        Field::optional("encrypt_to", Texts, "", "recipients it is encrypted to"),
        Field::optional("encrypt_to_file", Path, "", "file with one recipient a line"),
        Field::optional("keep", Inner(&KEEP), "", "retention of the copies"),
    ],
};

const RESTORE_TEST: TableSchema = TableSchema {
    name: "restore_test",
    help: "rehearsal of a restore",
    kinds: &[],
    fields: &[
        Field::required("every", Duration, "how often"),
        Field::optional(
            "on",
            Word(&["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"]),
            "",
            "day of the week",
        ),
        Field::required("into", Text, "scratch database, or \"scratch\" for files"),
        Field::optional("drop_after", Word(&["always"]), "always", "the scratch place always goes"),
    ],
};

pub(super) const PACKAGE: TableSchema = TableSchema {
    name: "package",
    help: "a package",
    kinds: &[],
    fields: &[
        Field::required(
            "name",
            Text,
            "package name, \"*\" for all but those on hold, or a requirements file",
        ),
        Field::required("manager", Word(&["apt", "pip"]), "the package manager"),
        Field::optional("hold", Bool, "false", "only a rollout moves it"),
        Field::optional("origin", Text, "", "where it must come from"),
        Field::optional("directory", Path, "", "pip: folder of the requirements file"),
        Field::optional(
            "touches_network",
            Bool,
            "false",
            "moving it can change filter rules: its steps need a guard",
        ),
    ],
};

pub(super) const VALIDATOR: TableSchema = TableSchema {
    name: "validator",
    help: "a validator of configuration",
    kinds: &[
        KindRule { word: "command", needs: &[&["command"]], takes: &[] },
        KindRule { word: "service", needs: &[&["service"]], takes: &[] },
        KindRule { word: "file_exists", needs: &[&["path", "paths"]], takes: &[] },
        KindRule { word: "json", needs: &[&["path", "paths"]], takes: &[] },
        KindRule { word: "yaml", needs: &[&["path", "paths"]], takes: &[] },
        KindRule { word: "toml", needs: &[&["path", "paths"]], takes: &[] },
        KindRule { word: "nft", needs: &[&["path", "paths"]], takes: &[] },
        KindRule { word: "python_syntax", needs: &[&["path", "paths"]], takes: &[] },
    ],
    fields: &[
        Field::optional("title", Text, "", "one line for people"),
        Field::required(
            "kind",
            Word(&["command", "service", "file_exists", "json", "yaml", "toml", "nft", "python_syntax"]),
            "how it is looked at",
        )
        .idle_words(&[("yaml", "a node has no reader of YAML yet")]),
        Field::optional(
            "command",
            IdOf(Table::Command),
            "",
            "a command with changes = false; exit 0 is valid",
        ),
        Field::optional("service", IdOf(Table::Service), "", "a service"),
        Field::optional("path", Path, "", "one file"),
        Field::optional("paths", Paths, "", "files, globs allowed"),
        Field::optional(
            "on_failure",
            Word(&["abort", "warn"]),
            "abort",
            "abort: validators after it do not run",
        ),
    ],
};
