//! The table of actions, one entry each, sorted by name.
//!
//! Source: the action catalogue; `plan_only` of `log.prune` (ADR 0003) and `disk.report` are ours.

use super::Answer::{ById, No, Yes};
use super::Where::{Both, Controller, Node};
use super::{Action, Parameter, Table, Takes};
use crate::severity::Severity;

/// From bad to mild.
const SEVERITIES: &[&str] = &[
    Severity::Critical.as_str(),
    Severity::High.as_str(),
    Severity::Medium.as_str(),
    Severity::Low.as_str(),
];

/// Who may sign.
const ROLES: &[&str] = &["operator", "approver", "auditor", "security-admin"];

const fn required(name: &'static str, takes: Takes) -> Parameter {
    Parameter { name, takes, required: true, default: "" }
}

const fn optional(name: &'static str, takes: Takes, default: &'static str) -> Parameter {
    Parameter { name, takes, required: false, default }
}

/// Every action, sorted by name.
pub const CATALOGUE: &[Action] = &[
    Action {
        name: "alerts.evaluate",
        parameters: &[
            optional("alerts", Takes::IdsOrAll(Table::Alert), "all"),
            optional("severity_at_least", Takes::Word(SEVERITIES), "low"),
            optional("since", Takes::WordOrDuration(&["ring_start", "last_success"]), ""),
        ],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Controller,
    },
    Action {
        name: "alerts.test",
        parameters: &[required("alert", Takes::Id(Table::Alert)), optional("within", Takes::Duration, "2m")],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Controller,
    },
    Action {
        name: "alerts.watch",
        parameters: &[
            required("for", Takes::Duration),
            optional("severity_at_least", Takes::Word(SEVERITIES), "high"),
        ],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Controller,
    },
    Action {
        name: "backup.prune",
        parameters: &[required("backups", Takes::Ids(Table::Backup))],
        one_of: &[],
        changes: Yes,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "backup.restore",
        parameters: &[
            required("backup", Takes::Id(Table::Backup)),
            optional("tag", Takes::Text, ""),
            optional("date", Takes::Date, ""),
            optional("only", Takes::Texts, ""),
            optional("mode", Takes::Word(&["over", "recreate"]), "over"),
            optional("validators", Takes::Ids(Table::Validator), ""),
        ],
        one_of: &[&["tag", "date"]],
        changes: Yes,
        guard: ById,
        runs_on: Node,
    },
    Action {
        name: "backup.restore_test",
        parameters: &[required("backup", Takes::Id(Table::Backup))],
        one_of: &[],
        changes: Yes,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "backup.run",
        parameters: &[
            required("backup", Takes::Id(Table::Backup)),
            optional("tag", Takes::Text, "{run.id}"),
            optional("prune", Takes::Bool, "true"),
        ],
        one_of: &[],
        changes: Yes,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "backup.verify",
        parameters: &[
            required("backups", Takes::Ids(Table::Backup)),
            optional("tag", Takes::Text, ""),
            optional("date", Takes::Date, "latest"),
            optional("max_age", Takes::Duration, ""),
            optional("listing", Takes::Bool, "false"),
        ],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "baseline.capture",
        parameters: &[
            required("name", Takes::Text),
            optional("command", Takes::Id(Table::Command), ""),
            optional("metrics", Takes::Ids(Table::Metric), ""),
            optional("for", Takes::Duration, "5m"),
        ],
        one_of: &[&["command", "metrics"]],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "baseline.compare",
        parameters: &[
            required("with", Takes::Text),
            optional("command", Takes::Id(Table::Command), ""),
            optional("metrics", Takes::Ids(Table::Metric), ""),
            optional("for", Takes::Duration, "5m"),
            optional("tolerance_percent", Takes::Integer, "10"),
        ],
        one_of: &[&["command", "metrics"]],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "cert.check",
        parameters: &[
            optional("command", Takes::Id(Table::Command), ""),
            optional("warn_before", Takes::Duration, "30d"),
        ],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "command.run",
        parameters: &[
            required("command", Takes::Id(Table::Command)),
            optional("params", Takes::Params, "{}"),
        ],
        one_of: &[],
        changes: ById,
        guard: ById,
        runs_on: Node,
    },
    Action {
        name: "config.validate",
        parameters: &[
            required("validators", Takes::Ids(Table::Validator)),
            optional("candidate", Takes::Path, ""),
        ],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "database.analyze",
        parameters: &[required("database", Takes::Id(Table::Database))],
        one_of: &[],
        changes: Yes,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "database.purge",
        parameters: &[
            required("database", Takes::Id(Table::Database)),
            optional("batch", Takes::Integer, "10000"),
        ],
        one_of: &[],
        changes: Yes,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "database.reindex",
        parameters: &[
            required("database", Takes::Id(Table::Database)),
            optional("concurrently", Takes::Bool, "true"),
        ],
        one_of: &[],
        changes: Yes,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "database.report",
        parameters: &[
            required("database", Takes::Id(Table::Database)),
            required("report", Takes::Word(&["bloat", "index_usage", "slow_queries", "sizes"])),
        ],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "database.vacuum",
        parameters: &[
            required("database", Takes::Id(Table::Database)),
            optional("analyze", Takes::Bool, "true"),
        ],
        one_of: &[],
        changes: Yes,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "disk.report",
        parameters: &[
            optional("paths", Takes::Paths, ""),
            optional("trees", Takes::Integer, "20"),
            optional("other_file_systems", Takes::Bool, "false"),
        ],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "flows.check",
        parameters: &[required("lists", Takes::Words(&["must_pass", "must_block"]))],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Controller,
    },
    Action {
        name: "hardening.run",
        parameters: &[required("items", Takes::Ids(Table::Hardening))],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "hardware.check",
        parameters: &[optional(
            "parts",
            Takes::Words(&["smart", "temperature", "fans", "power", "raid", "ecc"]),
            "",
        )],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "health.check",
        parameters: &[
            optional("checks", Takes::IdsOrAll(Table::Check), "all"),
            optional("stable_for", Takes::Duration, "0s"),
        ],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "health.repair",
        parameters: &[required("services", Takes::Ids(Table::Service))],
        one_of: &[],
        changes: Yes,
        guard: ById,
        runs_on: Node,
    },
    Action {
        name: "log.collect",
        parameters: &[
            required("logs", Takes::Ids(Table::Log)),
            optional("severity_at_least", Takes::Word(SEVERITIES), "high"),
            optional("since", Takes::WordOrDuration(&["last_success"]), "24h"),
        ],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "log.configure",
        parameters: &[required("logs", Takes::Ids(Table::Log))],
        one_of: &[],
        changes: Yes,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "log.prune",
        parameters: &[required("logs", Takes::Ids(Table::Log)), optional("plan_only", Takes::Bool, "false")],
        one_of: &[],
        // By its parameter: with `plan_only` it lists what would go and changes nothing.
        changes: ById,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "log.rotate",
        parameters: &[required("logs", Takes::Ids(Table::Log)), optional("only_due", Takes::Bool, "true")],
        one_of: &[],
        changes: Yes,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "metrics.collect",
        parameters: &[optional("set", Takes::Word(&["status", "all"]), "all")],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action { name: "metrics.prune", parameters: &[], one_of: &[], changes: Yes, guard: No, runs_on: Node },
    Action {
        name: "notify.send",
        parameters: &[required("to", Takes::Notifiers), required("template", Takes::Word(&["run_finished"]))],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Controller,
    },
    Action {
        name: "package.downgrade",
        parameters: &[
            required("packages", Takes::Ids(Table::Package)),
            required("to", Takes::Word(&["previous"])),
        ],
        one_of: &[],
        changes: Yes,
        guard: ById,
        runs_on: Node,
    },
    Action {
        name: "package.download",
        parameters: &[
            required("packages", Takes::Ids(Table::Package)),
            optional("version", Takes::Text, ""),
            optional("with_current", Takes::Bool, "true"),
        ],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "package.list_updates",
        parameters: &[optional("security_only", Takes::Bool, "false")],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action { name: "package.refresh", parameters: &[], one_of: &[], changes: No, guard: No, runs_on: Node },
    Action {
        name: "package.upgrade",
        parameters: &[
            required("packages", Takes::Ids(Table::Package)),
            optional("version", Takes::Text, ""),
            optional("offline", Takes::Bool, "true"),
        ],
        one_of: &[],
        changes: Yes,
        guard: ById,
        runs_on: Node,
    },
    Action {
        name: "patch.assess",
        parameters: &[required("policy", Takes::RolloutPolicy)],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Controller,
    },
    Action {
        name: "procedure.run",
        parameters: &[required("procedure", Takes::Procedure), optional("params", Takes::Params, "{}")],
        one_of: &[],
        changes: ById,
        guard: ById,
        runs_on: Node,
    },
    Action {
        name: "reboot",
        parameters: &[
            optional("only_if", Takes::Word(&["required", "always"]), "required"),
            optional("fallback", Takes::Word(&["required", "none"]), "required"),
        ],
        one_of: &[],
        changes: Yes,
        guard: Yes,
        runs_on: Node,
    },
    Action {
        name: "report.render",
        parameters: &[required("report", Takes::ReportId), optional("append_to", Takes::Path, "")],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Both,
    },
    Action {
        name: "report.trend",
        parameters: &[required("metrics", Takes::Ids(Table::Metric)), required("period", Takes::Duration)],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Controller,
    },
    Action {
        name: "ruleset.apply",
        parameters: &[required("ruleset", Takes::Id(Table::Ruleset))],
        one_of: &[],
        changes: Yes,
        guard: Yes,
        runs_on: Node,
    },
    Action {
        name: "ruleset.check",
        parameters: &[required("ruleset", Takes::Id(Table::Ruleset))],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "ruleset.revert",
        parameters: &[required("ruleset", Takes::Id(Table::Ruleset))],
        one_of: &[],
        changes: Yes,
        guard: Yes,
        runs_on: Node,
    },
    Action {
        name: "run.assert",
        parameters: &[required("procedure", Takes::Procedure), required("within", Takes::Duration)],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Controller,
    },
    Action {
        name: "scan.connections",
        parameters: &[
            optional("state", Takes::Word(&["established", "all"]), "established"),
            optional("with_process", Takes::Bool, "true"),
        ],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "scan.listening",
        parameters: &[
            optional("protocols", Takes::Words(&["tcp", "udp"]), ""),
            optional("with_process", Takes::Bool, "true"),
        ],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "scan.world_writable",
        parameters: &[required("paths", Takes::Paths)],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "service.assert_active",
        parameters: &[
            required("services", Takes::Ids(Table::Service)),
            optional("stable_for", Takes::Duration, "0s"),
        ],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "service.restart",
        parameters: &[required("services", Takes::Ids(Table::Service))],
        one_of: &[],
        changes: Yes,
        guard: ById,
        runs_on: Node,
    },
    Action {
        name: "service.start",
        parameters: &[required("services", Takes::Ids(Table::Service))],
        one_of: &[],
        changes: Yes,
        guard: ById,
        runs_on: Node,
    },
    Action {
        name: "service.stop",
        parameters: &[required("services", Takes::Ids(Table::Service))],
        one_of: &[],
        changes: Yes,
        guard: ById,
        runs_on: Node,
    },
    Action {
        name: "signoff",
        parameters: &[
            required("role", Takes::Word(ROLES)),
            optional("sign_offs", Takes::Integer, "1"),
            optional("expires", Takes::Duration, "24h"),
        ],
        one_of: &[],
        changes: No,
        guard: No,
        runs_on: Controller,
    },
    Action {
        name: "snapshot.create",
        parameters: &[required("name", Takes::Text)],
        one_of: &[],
        changes: Yes,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "snapshot.remove",
        parameters: &[required("name", Takes::Text)],
        one_of: &[],
        changes: Yes,
        guard: No,
        runs_on: Node,
    },
    Action {
        name: "snapshot.revert",
        parameters: &[required("name", Takes::Text)],
        one_of: &[],
        changes: Yes,
        guard: Yes,
        runs_on: Node,
    },
    Action {
        name: "tuning.apply",
        parameters: &[required("tuning", Takes::Ids(Table::Tuning))],
        one_of: &[],
        changes: Yes,
        guard: ById,
        runs_on: Node,
    },
    Action {
        name: "tuning.revert",
        parameters: &[required("tuning", Takes::Ids(Table::Tuning))],
        one_of: &[],
        changes: Yes,
        guard: ById,
        runs_on: Node,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::procedure::SignRole;

    #[test]
    fn words_are_those_of_the_types() {
        for word in SEVERITIES {
            serde_json::from_value::<Severity>((*word).into()).unwrap();
        }
        for word in ROLES {
            serde_json::from_value::<SignRole>((*word).into()).unwrap();
        }
    }
}
