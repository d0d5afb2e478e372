//! `kind = "profile"`: its head, services, checks and the status view.

use fleet_types::action::Table;

use super::field::FieldKind::{
    Bool, ById, ByKey, Contact, Day, Duration, IdOf, IdsOf, Integer, Name, Path, Selector, Table as Inner,
    Template, Templates, Text, Threshold, Unit, Vars, Word, WordOrTexts, Words,
};
use super::field::{Field, KindRule, TableSchema};
use super::profile_programs::{BACKUP, COMMAND, DATABASE, PACKAGE, VALIDATOR};
use super::profile_upkeep::{
    ALERT, CONTACT, DASHBOARD, HARDENING, LINK, LOG, METRIC, METRIC_STORE, REPORT, TOOLS, TUNING,
};

const NO_ACTION: &str = "no action that reads it is built";
const NO_ALERTS: &str = "nothing evaluates alerts";
const NO_CHECKS: &str = "nothing makes checks by itself, runs of health.check do; a result that is three times as old counts as unknown";
const NO_RESTARTS: &str = "nothing restarts services by itself, runs of health.repair do";
const NO_SAMPLES: &str = "nothing takes samples by itself, runs of metrics.collect measure";

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
        Field::optional("fact", ByKey(&FACT), "", "facts of the product, for conditions"),
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
        Field::optional("database", ById(&DATABASE), "", "databases").idle(NO_ACTION),
        Field::optional("backup", ById(&BACKUP), "", "backups"),
        Field::optional("log", ById(&LOG), "", "rotation and clean-up of logs"),
        Field::optional("tuning", ById(&TUNING), "", "desired kernel, disk and mount settings")
            .idle(NO_ACTION),
        Field::optional("package", ById(&PACKAGE), "", "packages").idle(NO_ACTION),
        Field::optional("validator", ById(&VALIDATOR), "", "validators of configuration"),
        Field::optional("hardening", ById(&HARDENING), "", "the hardening checklist; items only read")
            .idle(NO_ACTION),
        Field::optional("metric", ById(&METRIC), "", "sampled metrics").idle(NO_SAMPLES),
        Field::optional(
            "metric_store",
            Inner(&METRIC_STORE),
            "",
            "optional copy of the samples for local programs",
        )
        .idle(NO_SAMPLES),
        Field::optional("alert", ById(&ALERT), "", "alert rules").idle(NO_ALERTS),
        Field::optional("report", ById(&REPORT), "", "reports").idle(NO_ACTION),
        Field::optional("dashboard", ById(&DASHBOARD), "", "panels of a page of the controller's dashboard")
            .idle("there is no dashboard"),
        Field::optional("contact", ById(&CONTACT), "", "people"),
        Field::optional("link", ById(&LINK), "", "places to read on"),
        Field::optional("tools", Inner(&TOOLS), "", "where maintenance programs lie; inventoried, not run")
            .idle(NO_ACTION),
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
        Field::optional("next_review", Day, "", "day of its next review; passing it raises a low alert")
            .idle("nothing watches that day"),
        Field::optional("owner", Contact, "", "id of a contact"),
    ],
};

const FACT: TableSchema = TableSchema {
    name: "fact",
    help: "a flag for conditions, facts.<name>: true where the program or the path is there",
    kinds: &[],
    fields: &[
        Field::optional("program", Text, "", "a program in the search path of the node"),
        Field::optional("path", Path, "", "a file or folder"),
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
        )
        .idle(NO_RESTARTS),
        Field::optional(
            "max_restarts",
            Inner(&MAX_RESTARTS),
            "",
            "how often it is restarted before only the alert is left",
        )
        .idle(NO_RESTARTS),
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
        Field::required("every", Duration, "how often it is made").idle(NO_CHECKS),
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
        )
        .idle("metrics.collect measures all of it, and reads disk_used:<path> only"),
        Field::optional("services", IdsOf(Table::Service), "", "services"),
        Field::optional("network", Inner(&STATUS_NETWORK), "", "interface counters, with rates"),
        Field::optional("security", Inner(&STATUS_SECURITY), "", "a command whose output is shown"),
        Field::optional("formats", Words(&["text", "json"]), "", "forms it is stored in")
            .idle("no file of the status is written"),
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
        )
        .idle("metrics.collect gives all counters"),
    ],
};

const STATUS_SECURITY: TableSchema = TableSchema {
    name: "security",
    help: "a command whose output is shown",
    kinds: &[],
    fields: &[Field::required("command", IdOf(Table::Command), "a command with changes = false")],
};
