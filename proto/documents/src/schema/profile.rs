//! `kind = "profile"`: its head, services, checks, commands, databases, backups and packages.

use fleet_types::action::Table;

use super::field::FieldKind::{
    Any, Bool, ById, ByKey, Contact, Day, Duration, IdOf, IdsOf, Integer, Name, Path, Paths, Selector,
    Table as Inner, Tables, Template, Templates, Text, Texts, Threshold, Unit, Vars, When, Word, WordOrTexts,
    Words,
};
use super::field::{Field, KindRule, TableSchema};
use super::profile_upkeep::{
    ALERT, CONTACT, DASHBOARD, HARDENING, LINK, LOG, METRIC, METRIC_STORE, REPORT, TOOLS, TUNING,
};

pub(super) const MAX: i64 = fleet_types::document::value::MAX_INTEGER;

/// A profile.
pub(crate) const PROFILE: TableSchema = TableSchema {
    name: "profile",
    help: "what a kind of node is made of, and what healthy means for it",
    kinds: &[],
    fields: &[
        Field::required("schema", Word(&["fleet/v1"]), "schema of the file"),
        Field::required("kind", Word(&["profile"]), "kind of the file"),
        Field::required("name", Name, "name; procedures refer to it"),
        Field::required(
            "version",
            Integer(1, u32::MAX as i64),
            "raised on every change; shown next to results",
        ),
        Field::optional("description", Text, "", "one line for people"),
        Field::optional(
            "selector",
            Selector,
            "no node",
            "nodes that get this profile; the most specific selector wins",
        ),
        Field::optional(
            "vars",
            Vars,
            "",
            "variables, usable as {name} here and in the procedures of this profile",
        ),
        Field::optional("document", Inner(&PAPER), "", "the paper this profile was written from"),
        Field::optional("service", ById(&SERVICE), "", "systemd units the node depends on"),
        Field::optional("check", ById(&CHECK), "", "continuous health checks"),
        Field::optional("status", Inner(&STATUS), "", "what the status of a node shows"),
        Field::optional(
            "command",
            ById(&COMMAND),
            "",
            "the only way to run a program: declared, signed, argv form",
        ),
        Field::optional("database", ById(&DATABASE), "", "databases"),
        Field::optional("backup", ById(&BACKUP), "", "backups"),
        Field::optional("log", ById(&LOG), "", "rotation and clean-up of logs"),
        Field::optional("tuning", ById(&TUNING), "", "desired kernel, disk and mount settings"),
        Field::optional("package", ById(&PACKAGE), "", "packages"),
        Field::optional("validator", ById(&VALIDATOR), "", "validators of configuration"),
        Field::optional("hardening", ById(&HARDENING), "", "the hardening checklist; items only read"),
        Field::optional("metric", ById(&METRIC), "", "sampled metrics"),
        Field::optional(
            "metric_store",
            Inner(&METRIC_STORE),
            "",
            "optional copy of the samples for local programs",
        ),
        Field::optional("alert", ById(&ALERT), "", "alert rules"),
        Field::optional("report", ById(&REPORT), "", "reports"),
        Field::optional("dashboard", ById(&DASHBOARD), "", "panels of a page of the controller's dashboard"),
        Field::optional("contact", ById(&CONTACT), "", "people"),
        Field::optional("link", ById(&LINK), "", "places to read on"),
        Field::optional("tools", Inner(&TOOLS), "", "where maintenance programs lie; inventoried, not run"),
    ],
};

/// `[document]`.
pub(crate) const PAPER: TableSchema = TableSchema {
    name: "document",
    help: "the paper a profile or procedure was written from",
    kinds: &[],
    fields: &[
        Field::optional("version", Text, "", "version of the paper"),
        Field::optional("last_updated", Day, "", "day of its last change"),
        Field::optional("next_review", Day, "", "day of its next review; passing it raises a low alert"),
        Field::optional("owner", Contact, "", "id of a contact"),
    ],
};

const SERVICE: TableSchema = TableSchema {
    name: "service",
    help: "a systemd unit the node depends on",
    kinds: &[],
    fields: &[
        Field::required("unit", Unit, "the unit with its suffix"),
        Field::optional(
            "type",
            Word(&["daemon", "timer"]),
            "daemon",
            "timer: unit is a timer that starts the oneshot unit runs",
        ),
        Field::optional("runs", Unit, "", "for a timer: the unit that it starts"),
        Field::optional(
            "succeeded_within",
            Duration,
            "",
            "for a timer: how long ago the last good run may be",
        ),
        Field::optional(
            "expect",
            Word(&["active", "inactive", "absent"]),
            "active",
            "the state that is healthy",
        ),
        Field::optional(
            "on_down",
            Word(&["restart", "alert", "ignore"]),
            "alert",
            "what happens when it is not in that state",
        ),
        Field::optional(
            "max_restarts",
            Inner(&MAX_RESTARTS),
            "",
            "how often it is restarted before only the alert is left",
        ),
        Field::optional(
            "touches_network",
            Bool,
            "false",
            "stopping or starting it can change filter rules: its steps need a guard",
        ),
    ],
};

const MAX_RESTARTS: TableSchema = TableSchema {
    name: "max_restarts",
    help: "bounds of restarting by itself",
    kinds: &[],
    fields: &[
        Field::required("count", Integer(1, 100), "at most so many starts"),
        Field::required("within", Duration, "within this time"),
        Field::optional("backoff", Duration, "0s", "pause before each start but the first"),
    ],
};

const CHECK: TableSchema = TableSchema {
    name: "check",
    help: "a continuous health check",
    kinds: &[
        KindRule { word: "service", needs: &[&["service", "services"]], takes: &[] },
        KindRule { word: "disk_used", needs: &[&["path"], &["warn", "critical"]], takes: &[] },
        KindRule { word: "disk_free", needs: &[&["path"], &["warn", "critical"]], takes: &[] },
        KindRule { word: "memory_used", needs: &[&["warn", "critical"]], takes: &[] },
        KindRule { word: "cpu_used", needs: &[&["warn", "critical"]], takes: &[] },
        KindRule { word: "load", needs: &[&["warn", "critical"]], takes: &[] },
        KindRule { word: "conntrack_used", needs: &[&["warn", "critical"]], takes: &[] },
        KindRule { word: "command", needs: &[&["command"]], takes: &[] },
        KindRule { word: "cert_expiry", needs: &[&["path"], &["warn", "critical"]], takes: &[] },
        KindRule { word: "port", needs: &[&["port"]], takes: &["address"] },
        KindRule { word: "file_age", needs: &[&["path"], &["within"]], takes: &[] },
        KindRule { word: "vrrp_state", needs: &[&["path"]], takes: &[] },
        KindRule { word: "address", needs: &[&["address"]], takes: &[] },
    ],
    fields: &[
        Field::required(
            "kind",
            Word(&[
                "service",
                "disk_used",
                "disk_free",
                "memory_used",
                "cpu_used",
                "load",
                "conntrack_used",
                "command",
                "cert_expiry",
                "port",
                "file_age",
                "vrrp_state",
                "address",
            ]),
            "what is looked at",
        ),
        Field::optional("title", Text, "", "one line for people"),
        Field::optional("path", Path, "", "mount point, folder or file"),
        Field::optional("service", IdOf(Table::Service), "", "one service"),
        Field::optional("services", IdsOf(Table::Service), "", "several services"),
        Field::optional("command", IdOf(Table::Command), "", "a command with changes = false; exit 0 is ok"),
        Field::optional(
            "address",
            Template,
            "127.0.0.1 for port",
            "address: is it on an interface of this node? port: where to connect",
        ),
        Field::optional("port", Integer(1, 65535), "", "the TCP port"),
        Field::optional(
            "warn",
            Threshold,
            "",
            "warning limit; percent, load average or days, as the kind has it",
        ),
        Field::optional("critical", Threshold, "", "critical limit, in the unit of warn"),
        Field::optional("for", Duration, "0s", "must hold this long before it counts"),
        Field::required("every", Duration, "how often it is made"),
        Field::optional("timeout", Duration, "10s", "limit of one look; one that hangs is a failed check"),
        Field::optional("within", Duration, "", "the file may be no older than this"),
    ],
};

const STATUS: TableSchema = TableSchema {
    name: "status",
    help: "what the status of a node shows",
    kinds: &[],
    fields: &[
        Field::optional(
            "system",
            Templates,
            "",
            "words such as cpu_used, memory_used, disk_used:/, load_average, uptime",
        ),
        Field::optional("services", IdsOf(Table::Service), "", "services"),
        Field::optional("network", Inner(&STATUS_NETWORK), "", "interface counters, with rates"),
        Field::optional("security", Inner(&STATUS_SECURITY), "", "a command whose output is shown"),
        Field::optional("formats", Words(&["text", "json"]), "", "forms it is stored in"),
    ],
};

const STATUS_NETWORK: TableSchema = TableSchema {
    name: "network",
    help: "interface counters",
    kinds: &[],
    fields: &[
        Field::required("interfaces", WordOrTexts(&["all_but_loopback"]), "which interfaces"),
        Field::required(
            "counters",
            Words(&[
                "bytes_sent",
                "bytes_received",
                "packets_sent",
                "packets_received",
                "errors_in",
                "errors_out",
            ]),
            "which counters",
        ),
    ],
};

const STATUS_SECURITY: TableSchema = TableSchema {
    name: "security",
    help: "a command whose output is shown",
    kinds: &[],
    fields: &[Field::required("command", IdOf(Table::Command), "a command with changes = false")],
};

const COMMAND: TableSchema = TableSchema {
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

const DATABASE: TableSchema = TableSchema {
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

const BACKUP: TableSchema = TableSchema {
    name: "backup",
    help: "a backup",
    kinds: &[
        KindRule { word: "files", needs: &[&["sources"]], takes: &["exclude"] },
        KindRule { word: "database", needs: &[&["database"]], takes: &[] },
    ],
    fields: &[
        Field::optional("when", When, "", "only where this is true"),
        Field::required("kind", Word(&["files", "database"]), "what it holds"),
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
        ),
        Field::optional(
            "touches_network",
            Bool,
            "false",
            "restoring it can change filter rules: its steps need a guard",
        ),
        Field::optional("copy", Inner(&COPY), "", "a copy off the node, encrypted on it"),
        Field::optional(
            "restore_test",
            Inner(&RESTORE_TEST),
            "",
            "rehearsal of a restore; overdue is an alert",
        ),
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

const PACKAGE: TableSchema = TableSchema {
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

const VALIDATOR: TableSchema = TableSchema {
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
        ),
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
