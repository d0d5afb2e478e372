//! `kind = "procedure"`.

use super::field::FieldKind::{
    Action, Bool, ByKey, Duration, Id, Integer, Name, Path, Selector, StepIds, Table as Inner, Tables, Text,
    When, With, Word, Words,
};
use super::field::{Field, KindRule, TableSchema};
use super::profile::PAPER;
use super::profile_programs::PARAM;

const NO_LOG_FILE: &str = "no copy of logs is written on the node";

/// A procedure.
pub(crate) const PROCEDURE: TableSchema = TableSchema {
    name: "procedure",
    help: "ordered steps, the way back, and what always runs last",
    kinds: &[],
    fields: &[
        Field::required("schema", Word(&["fleet/v1"]), "schema of the file"),
        Field::required("kind", Word(&["procedure"]), "kind of the file"),
        Field::required("name", Name, "its name"),
        Field::required("version", Integer(1, u32::MAX as i64), "raised on every change"),
        Field::optional("description", Text, "", "one line for people"),
        Field::required("profile", Name, "the profile whose ids it uses"),
        Field::optional(
            "selector",
            Selector,
            "nodes of the profile",
            "the procedure may run on these nodes only",
        ),
        Field::required("changes", Bool, "false: changes nothing, may run at any time"),
        Field::optional(
            "order",
            Word(&["per_node", "lockstep"]),
            "per_node",
            "lockstep: all nodes finish step n before n+1",
        )
        .idle_words(&[("lockstep", "a node refuses the procedure")]),
        Field::required("timeout", Duration, "working time of the whole"),
        Field::optional(
            "fail_if_warnings",
            Bool,
            "false",
            "everything runs, and a warning makes the run fail at its end",
        ),
        Field::optional("document", Inner(&PAPER), "that of the profile", "the paper it was written from"),
        Field::optional(
            "override_windows",
            Word(&["never", "with_approval"]),
            "never",
            "whether a start outside a window may be approved",
        )
        .idle("there are no windows"),
        Field::optional("log_file", Path, "", "text copy of the run's log on the node").idle(NO_LOG_FILE),
        Field::optional("params", ByKey(&PARAM), "", "typed parameters"),
        Field::optional("step", Tables(&STEP), "", "the steps in order"),
        Field::optional("rollback", Tables(&ROLLBACK), "", "the way back, in the order written"),
        Field::optional("finally", Tables(&FINALLY), "", "what runs last on every outcome"),
    ],
};

const STEP: TableSchema = TableSchema {
    name: "step",
    help: "task: does something; gate: a condition that must hold; manual: a person signs off",
    kinds: &[
        KindRule {
            word: "task",
            needs: &[&["uses"]],
            takes: &["with", "timeout", "log_file", "guard", "retries"],
        },
        KindRule {
            word: "gate",
            needs: &[&["uses"]],
            takes: &["with", "timeout", "log_file", "guard", "retries"],
        },
        KindRule {
            word: "manual",
            needs: &[&["prompt"], &["role"], &["expires"]],
            takes: &["scope", "sign_offs", "wait", "evidence", "deadline"],
        },
    ],
    fields: &[
        Field::required("id", Id, "its id, unique in the procedure"),
        Field::required("kind", Word(&["task", "gate", "manual"]), "what it is")
            .idle_words(&[("manual", "a node refuses the procedure, because nobody can be asked yet")]),
        Field::optional("group", Text, "", "heading on the checklist"),
        Field::optional("title", Text, "", "one line for people"),
        Field::optional("when", When, "", "skipped, and shown as skipped, when false"),
        Field::optional("uses", Action, "", "the action; none at a manual step"),
        Field::optional("with", With, "", "the action's parameters"),
        Field::optional("timeout", Duration, "10m", "working time, all attempts and their waits together"),
        Field::optional("log_file", Path, "", "text copy of this step's log on the node").idle(NO_LOG_FILE),
        Field::optional("guard", Inner(&GUARD), "", "dead-man switch: undone on the node unless confirmed")
            .idle("a node refuses the procedure, because it has no guard yet"),
        Field::optional("retries", Inner(&RETRIES), "", "further attempts"),
        Field::optional(
            "on_failure",
            Word(&["abort", "warn", "rollback"]),
            "abort",
            "what a failure does to the run",
        ),
        Field::optional("prompt", Text, "", "what the person is asked"),
        Field::optional(
            "role",
            Word(&["operator", "approver", "auditor", "security-admin"]),
            "",
            "who may sign",
        ),
        Field::optional("scope", Word(&["run", "node"]), "run", "once for all nodes, or once per node"),
        Field::optional("sign_offs", Integer(1, 10), "1", "distinct persons"),
        Field::optional(
            "wait",
            Bool,
            "true when a changing step comes after it",
            "whether later steps wait for it",
        ),
        Field::optional(
            "evidence",
            Word(&["none", "text", "link", "file"]),
            "none",
            "what a sign-off must leave",
        ),
        Field::optional("expires", Duration, "", "from the moment it is asked; independent of every timeout"),
        Field::optional(
            "deadline",
            Duration,
            "",
            "from the start of the run; shown as a clock, fails nothing",
        ),
    ],
};

const GUARD: TableSchema = TableSchema {
    name: "guard",
    help: "dead-man switch",
    kinds: &[],
    fields: &[Field::required("confirm_within", Duration, "undone unless confirmed within this time")],
};

const RETRIES: TableSchema = TableSchema {
    name: "retries",
    help: "further attempts",
    kinds: &[],
    fields: &[
        Field::required("count", Integer(1, 10), "at most so many attempts after the first"),
        Field::required("wait", Duration, "pause before each"),
        Field::required(
            "only_on",
            Words(&["network", "lock_busy", "timeout"]),
            "only after these kinds of failure",
        ),
    ],
};

const ROLLBACK: TableSchema = TableSchema {
    name: "rollback",
    help: "an entry of the way back; runs only if one of the steps in undoes began",
    kinds: &[],
    fields: &[
        Field::required("id", Id, "its id, unique in the procedure"),
        Field::optional("title", Text, "", "one line for people"),
        Field::required("uses", Action, "the action"),
        Field::optional("with", With, "", "the action's parameters"),
        Field::optional("undoes", StepIds, "", "the steps that it undoes"),
        Field::optional("timeout", Duration, "10m", "working time"),
        Field::optional("log_file", Path, "", "text copy of its log on the node").idle(NO_LOG_FILE),
    ],
};

const FINALLY: TableSchema = TableSchema {
    name: "finally",
    help: "an entry that runs last whatever came out",
    kinds: &[],
    fields: &[
        Field::required("id", Id, "its id, unique in the procedure"),
        Field::optional("title", Text, "", "one line for people"),
        Field::required("uses", Action, "the action"),
        Field::optional("with", With, "", "the action's parameters"),
        Field::optional("undoes", StepIds, "always", "runs only if one of these steps began"),
        Field::optional("timeout", Duration, "10m", "working time"),
        Field::optional("log_file", Path, "", "text copy of its log on the node").idle(NO_LOG_FILE),
        Field::optional(
            "except",
            Words(&[
                "succeeded",
                "succeeded_with_warnings",
                "failed",
                "rolled_back",
                "rollback_failed",
                "cancelled",
            ]),
            "",
            "outcomes after which it does not run",
        ),
    ],
};
