//! `kind = "schedule"`.

use super::field::FieldKind::{
    Bool, Cron, Duration, Id, Instant, Name, Names, Offset, ParamValues, Procedure, RolloutPolicy, Selector,
    Table as Inner, Tables, Text, Word, Words, Zone,
};
use super::field::{Field, TableSchema};
use super::profile_upkeep::SEVERITIES;

const NO_SCHEDULER: &str = "nothing starts runs by itself";

/// A file of schedules.
pub(crate) const SCHEDULE: TableSchema = TableSchema {
    name: "schedule-file",
    help: "when procedures run, where, and what happens when they could not",
    kinds: &[],
    fields: &[
        Field::required("schema", Word(&["fleet/v1"]), "schema of the file"),
        Field::required("kind", Word(&["schedule"]), "kind of the file"),
        Field::required("name", Name, "its name"),
        Field::optional("description", Text, "", "one line for people"),
        Field::optional("schedule", Tables(&ENTRY), "", "the schedules").idle(NO_SCHEDULER),
        Field::optional("blackout", Tables(&BLACKOUT), "", "times in which no scheduled change starts")
            .idle(NO_SCHEDULER),
    ],
};

const ENTRY: TableSchema = TableSchema {
    name: "schedule",
    help: "when a procedure runs, where, and what happens when it could not",
    kinds: &[],
    fields: &[
        Field::required("id", Id, "its id, unique in the file"),
        Field::required("procedure", Procedure, "the procedure"),
        Field::optional("selector", Selector, "nodes of the procedure", "the nodes"),
        Field::optional("cron", Cron, "", "minute, hour, day, month, day of the week; also L, W and SAT#1"),
        Field::optional(
            "relative_to",
            Inner(&RELATIVE_TO),
            "",
            "instead of cron: before or after another schedule",
        ),
        Field::optional(
            "timezone",
            Zone,
            "the controller's",
            "IANA name, or \"site\": each node in the zone of its site",
        ),
        Field::optional("window", Duration, "", "from the fire time: when nodes may change"),
        Field::optional("start_within", Duration, "the window", "how late the tick itself may still start"),
        Field::optional(
            "expected_duration",
            Duration,
            "",
            "working time on one node; longer raises run.slow",
        ),
        Field::optional(
            "jitter",
            Duration,
            "0s",
            "starts are spread over this; same offset for the same node",
        ),
        Field::optional(
            "misfire",
            Word(&["skip", "run_once", "run_all"]),
            "the controller's",
            "what happens with a tick that was missed",
        ),
        Field::optional("catch_up", Duration, "", "how late run_once and run_all may still start"),
        Field::optional(
            "overlap",
            Word(&["skip", "queue", "cancel_running"]),
            "skip",
            "what happens when the previous run still goes",
        ),
        Field::optional(
            "late_nodes",
            Word(&["next_window", "next_day", "when_online", "drop"]),
            "that of the rollout policy",
            "what happens with nodes that were offline or not reached in the window",
        ),
        Field::optional("rollout_policy", RolloutPolicy, "", "rings, pairs and gates")
            .idle("rollout policies are not read, runs have one ring"),
        Field::optional("params", ParamValues, "", "parameters of the procedure"),
        Field::optional(
            "dst",
            Word(&["shift"]),
            "shift",
            "a skipped time runs right after the gap, a repeated one once",
        ),
        Field::optional("enabled", Bool, "true", "false: shown, never starts"),
        Field::optional("notify", Names, "", "notifiers of the controller's configuration"),
    ],
};

const RELATIVE_TO: TableSchema = TableSchema {
    name: "relative_to",
    help: "a time before or after another schedule",
    kinds: &[],
    fields: &[
        Field::required("schedule", Id, "a schedule of the same file"),
        Field::required("by", Offset, "how long after; \"-14d\" is before"),
    ],
};

const BLACKOUT: TableSchema = TableSchema {
    name: "blackout",
    help: "a time in which no scheduled change starts; checks, sign-offs and undo go on",
    kinds: &[],
    fields: &[
        Field::required("id", Id, "its id, unique in the file"),
        Field::required("from", Instant, "its beginning"),
        Field::required("to", Instant, "its end"),
        Field::optional("selector", Selector, "all nodes", "the nodes"),
        Field::optional("allow", Words(SEVERITIES), "", "severities that may still start, with approval"),
        Field::optional("reason", Text, "", "why"),
    ],
};
