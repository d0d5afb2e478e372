//! `kind = "profile"`, third part: logs, tuning, hardening, metrics, alerts, reports and links.

use fleet_types::action::Table;

use super::field::FieldKind::{
    AlertWhen, Bool, Duration, IdOf, IdsOf, Integer, MetricSource, Names, Path, Paths, Procedure, Settings,
    Table as Inner, Tables, Template, Text, Texts, Word, Words,
};
use super::field::{Field, KindRule, TableSchema};

/// The node's logrotate is not set up by any action yet.
const NO_ROTATION: &str = "nothing rotates logs; log.prune archives, compresses and deletes";

pub(super) const LOG: TableSchema = TableSchema {
    name: "log",
    help: "rotation, archive, compression and deletion of log files",
    kinds: &[],
    fields: &[
        Field::required("paths", Paths, "files, globs allowed"),
        Field::optional("exclude", Paths, "", "globs left out"),
        Field::optional("rotate", Inner(&ROTATE), "", "rotation by the node's own logrotate")
            .idle(NO_ROTATION),
        Field::optional("compress", Bool, "false", "compress rotated files").idle(NO_ROTATION),
        Field::optional("delay_compress", Bool, "false", "compress one rotation later").idle(NO_ROTATION),
        Field::optional("missing_ok", Bool, "false", "no finding when nothing matches"),
        Field::optional("skip_empty", Bool, "false", "leave empty files").idle(NO_ROTATION),
        Field::optional("create", Inner(&CREATE), "", "how the new file is made").idle(NO_ROTATION),
        Field::optional("after", Inner(&AFTER), "", "what happens after a rotation").idle(NO_ROTATION),
        Field::optional("archive", Inner(&ARCHIVE), "", "move old files into an archive folder"),
        Field::optional("compress_after", Duration, "", "compress old files where they lie"),
        Field::optional("delete", Inner(&DELETE), "", "delete old files"),
        Field::optional(
            "remove_empty_directories",
            Inner(&REMOVE_EMPTY),
            "",
            "remove folders that became empty",
        ),
    ],
};

const ROTATE: TableSchema = TableSchema {
    name: "rotate",
    help: "when logs are rotated and how many are kept",
    kinds: &[],
    fields: &[
        Field::required("every", Word(&["hourly", "daily", "weekly"]), "how often"),
        Field::required("keep", Integer(1, 10_000), "rotated files kept"),
    ],
};

const CREATE: TableSchema = TableSchema {
    name: "create",
    help: "how the file after a rotation is made",
    kinds: &[],
    fields: &[
        Field::required("mode", Text, "mode in octal, \"0644\""),
        Field::required("user", Text, "owner"),
        Field::required("group", Text, "group"),
    ],
};

const AFTER: TableSchema = TableSchema {
    name: "after",
    help: "what happens after a rotation",
    kinds: &[],
    fields: &[Field::required("reload", IdsOf(Table::Service), "services to reload")],
};

const ARCHIVE: TableSchema = TableSchema {
    name: "archive",
    help: "moving old files into an archive folder",
    kinds: &[],
    fields: &[
        Field::required("after", Duration, "older than this, by the time of the last change"),
        Field::required("directory", Path, "the folder"),
        Field::optional("compress", Bool, "false", "compress them there"),
    ],
};

const DELETE: TableSchema = TableSchema {
    name: "delete",
    help: "deleting old files",
    kinds: &[],
    fields: &[
        Field::required("after", Duration, "older than this, by the time of the last change"),
        Field::optional("paths", Paths, "the paths of the log", "which files"),
    ],
};

const REMOVE_EMPTY: TableSchema = TableSchema {
    name: "remove_empty_directories",
    help: "removing folders that became empty",
    kinds: &[],
    fields: &[
        Field::required("under", Path, "below this folder; never the folder itself"),
        Field::optional("keep", Paths, "", "folders that stay"),
    ],
};

pub(super) const TUNING: TableSchema = TableSchema {
    name: "tuning",
    help: "desired settings, diffed before applying",
    kinds: &[
        KindRule { word: "sysctl", needs: &[&["file"], &["set"]], takes: &["modules"] },
        KindRule { word: "block", needs: &[&["device_of"], &["set"]], takes: &["persist"] },
        KindRule { word: "mount", needs: &[&["path"], &["options"]], takes: &["apply"] },
    ],
    fields: &[
        Field::required("kind", Word(&["sysctl", "block", "mount"]), "what is set"),
        Field::optional("file", Path, "", "the one owned file"),
        Field::optional("modules", Texts, "", "modules loaded first"),
        Field::optional("set", Settings, "", "the settings"),
        Field::optional("enabled", Bool, "true", "false: shipped, shown, not applied"),
        Field::optional(
            "touches_network",
            Bool,
            "true for sysctl, else false",
            "applying it can cut the node off",
        ),
        Field::optional("revert_on_failure", Bool, "false", "put the former values back when applying fails"),
        Field::optional("device_of", Path, "", "the disk under this mount point; never a device name"),
        Field::optional("persist", Word(&["udev", "none"]), "none", "how it outlives a reboot"),
        Field::optional("path", Path, "", "the mount point"),
        Field::optional("options", Texts, "", "mount options"),
        Field::optional("apply", Word(&["live", "at_next_mount"]), "live", "when mount options take effect"),
    ],
};

pub(super) const HARDENING: TableSchema = TableSchema {
    name: "hardening",
    help: "an item of the hardening checklist; it only reads",
    kinds: &[
        KindRule { word: "command", needs: &[&["command"]], takes: &[] },
        KindRule { word: "log_match", needs: &[&["path"], &["pattern"]], takes: &[] },
        KindRule { word: "file_mode", needs: &[&["paths"]], takes: &["forbid"] },
        KindRule { word: "file_diff", needs: &[&["paths"]], takes: &[] },
        KindRule { word: "accounts", needs: &[], takes: &["min_uid"] },
        KindRule { word: "package", needs: &[&["package"]], takes: &[] },
        KindRule { word: "procedure", needs: &[&["procedure"]], takes: &[] },
        KindRule { word: "manual", needs: &[], takes: &[] },
    ],
    fields: &[
        Field::required("category", Text, "heading on the checklist"),
        Field::optional("title", Text, "", "one line for people"),
        Field::required(
            "kind",
            Word(&[
                "command",
                "log_match",
                "file_mode",
                "file_diff",
                "accounts",
                "package",
                "procedure",
                "manual",
            ]),
            "how it is looked at",
        ),
        Field::optional("command", IdOf(Table::Command), "", "a command with changes = false"),
        Field::optional("path", Path, "", "the log file"),
        Field::optional("paths", Paths, "", "files, globs allowed"),
        Field::optional("pattern", Text, "", "the text looked for"),
        Field::optional("forbid", Text, "", "what must not be set, \"o+r\""),
        Field::optional("min_uid", Integer(0, u32::MAX as i64), "", "from this user id on"),
        Field::optional("package", IdOf(Table::Package), "", "finding: updates pending for this package"),
        Field::optional("procedure", Procedure, "", "finding: no good run of this procedure for so long"),
        Field::required("every", Word(&["daily", "weekly", "monthly", "quarterly"]), "how often it is due"),
        Field::optional("report", Word(&["count_and_samples", "list_and_diff"]), "", "what the report holds"),
    ],
};

pub(super) const METRIC: TableSchema = TableSchema {
    name: "metric",
    help: "a sampled metric",
    kinds: &[],
    fields: &[
        Field::optional("group", Text, "", "heading on pages"),
        Field::optional("title", Text, "", "one line for people"),
        Field::required("source", MetricSource, "where it comes from"),
        Field::required("every", Duration, "how often"),
        Field::required("keep", Duration, "how long samples are kept; the one place for it"),
    ],
};

pub(super) const METRIC_STORE: TableSchema = TableSchema {
    name: "metric_store",
    help: "optional copy of the samples for local programs",
    kinds: &[],
    fields: &[Field::required("path", Path, "the file")],
};

pub(super) const SEVERITIES: &[&str] = &["critical", "high", "medium", "low"];

pub(super) const ALERT: TableSchema = TableSchema {
    name: "alert",
    help: "an alert rule",
    kinds: &[],
    fields: &[
        Field::optional("title", Text, "", "one line for people"),
        Field::required("when", AlertWhen, "the rule"),
        Field::optional("for", Duration, "0s", "must hold this long"),
        Field::required("severity", Word(SEVERITIES), "how bad it is"),
        Field::optional("notify", Names, "", "notifiers of the controller's configuration"),
        Field::optional("escalate_after", Duration, "", "not acknowledged for so long: notified again"),
        Field::optional("runbook", Text, "", "\"procedure:<name>\" or a link"),
    ],
};

pub(super) const REPORT: TableSchema = TableSchema {
    name: "report",
    help: "a report",
    kinds: &[],
    fields: &[
        Field::required("title", Text, "its title"),
        Field::required("formats", Words(&["html", "json", "text"]), "forms it is made in"),
        Field::optional("scope", Word(&["node", "fleet"]), "node", "fleet: one for all nodes of the run"),
        Field::optional("file_name", Template, "", "optional copy on the node; the format is appended"),
        Field::optional("section", Tables(&SECTION), "", "its sections in order"),
    ],
};

const SECTION: TableSchema = TableSchema {
    name: "section",
    help: "a section of a report",
    kinds: &[],
    fields: &[
        Field::required("title", Text, "its heading"),
        Field::required("from", Text, "\"summary\", \"step:<id>\" or \"findings\""),
        Field::optional("lines", Integer(1, 10_000), "all", "at most so many lines"),
        Field::optional("empty", Text, "", "what it says when there is nothing"),
    ],
};

pub(super) const DASHBOARD: TableSchema = TableSchema {
    name: "dashboard",
    help: "panels of a page of the controller's dashboard",
    kinds: &[],
    fields: &[Field::required(
        "panels",
        Words(&[
            "schedule_status",
            "health_trends",
            "performance_metrics",
            "alert_statistics",
            "backup_status",
        ]),
        "the panels in order",
    )],
};

pub(super) const CONTACT: TableSchema = TableSchema {
    name: "contact",
    help: "a person or team",
    kinds: &[],
    fields: &[
        Field::optional("email", Text, "", "mail address"),
        Field::optional("phone", Text, "", "telephone number"),
    ],
};

pub(super) const LINK: TableSchema = TableSchema {
    name: "link",
    help: "a place to read on",
    kinds: &[],
    fields: &[Field::required("url", Text, "the address")],
};

pub(super) const TOOLS: TableSchema = TableSchema {
    name: "tools",
    help: "where maintenance programs lie; inventoried, not run",
    kinds: &[],
    fields: &[Field::required("directories", Paths, "the folders")],
};
