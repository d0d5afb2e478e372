//! `explain`: what a key means, from the schema and the catalogue that the checks use.

use std::fmt::Write;

use fleet_types::action::{Action, Answer, BUILT, CATALOGUE, Where, nearest};
use fleet_types::document::DocumentKind;

use crate::action_check::expects;
use crate::schema::{Field, TableSchema, root};

/// Explains a table (`schedule`), a key (`schedule.misfire`, `step.guard.confirm_within`), an action
/// (`backup.run`), `actions` or `facts`; nothing is the list of these. The error is a text with the nearest path.
pub fn explain(path: &str) -> Result<String, String> {
    if path.is_empty() {
        return Ok(index());
    }
    if path == "actions" {
        let width = CATALOGUE.iter().map(|action| action.name.len()).max().unwrap_or(0);
        let line = |action: &Action| {
            if is_built(action) {
                format!("{}\n", action.name)
            } else {
                format!("{:width$}  not in this build\n", action.name)
            }
        };
        return Ok(CATALOGUE.iter().map(line).collect());
    }
    if path == "facts" {
        let names: Vec<&str> = fleet_types::facts::known().collect();
        return Ok(names.join("\n") + "\nand those that a profile declares: fleetctl explain fact\n");
    }
    if let Some(action) = Action::find(path) {
        return Ok(explain_action(action));
    }
    let mut parts = path.split('.');
    let first = parts.next().unwrap_or_default();
    let tables = tables();
    if let Some(mut table) = tables.into_iter().find(|table| table.name == first) {
        let mut found: Option<&Field> = None;
        for part in parts {
            let inner = found.map_or(Some(table), |field| field.kind.table());
            let Some(next) = inner.and_then(|inner| Some((inner, inner.field(part)?))) else {
                return Err(unknown(path));
            };
            (table, found) = (next.0, Some(next.1));
        }
        return Ok(match found {
            Some(field) => explain_field(table, field),
            None => explain_table(table),
        });
    }
    Err(unknown(path))
}

fn index() -> String {
    let lists = [("actions", "what a step may use"), ("facts", "what a condition may ask")];
    let tables = tables();
    let lines = tables.iter().map(|table| (table.name.as_str(), table.help.as_str())).chain(lists);
    let lines: Vec<_> = lines.map(|(name, help)| format!("{name:16}  {help}")).collect();
    lines.join("\n")
}

fn unknown(path: &str) -> String {
    let paths = schema_paths();
    let shown = crate::quoted(path);
    match nearest(path, paths.iter().map(String::as_str).chain(CATALOGUE.iter().map(|action| action.name))) {
        Some(meant) => format!("nothing is called {shown}; did you mean \"{meant}\"?"),
        None => format!(
            "nothing is called {shown}; write a table such as schedule, a key such as schedule.misfire or an action"
        ),
    }
}

/// Every path that [`explain`] knows, tables and keys, in the order of the documents.
pub fn schema_paths() -> Vec<String> {
    let tables = tables();
    let mut paths = Vec::new();
    for table in tables {
        paths.push(table.name.clone());
        paths.extend(table.fields.iter().map(|field| format!("{}.{}", table.name, field.name)));
    }
    paths
}

fn tables() -> Vec<&'static TableSchema> {
    let mut tables = Vec::new();
    for kind in DocumentKind::ALL {
        collect(root(kind), &mut tables);
    }
    tables
}

fn collect(table: &'static TableSchema, tables: &mut Vec<&'static TableSchema>) {
    if tables.iter().any(|known| known.name == table.name) {
        return;
    }
    tables.push(table);
    table.fields.iter().filter_map(|field| field.kind.table()).for_each(|inner| collect(inner, tables));
}

fn explain_field(table: &TableSchema, field: &Field) -> String {
    let mut out = format!("{}.{}: {}\n", table.name, field.name, field.help);
    let _ = writeln!(out, "  takes:   {}", field.kind.expects());
    if field.required {
        out.push_str("  required\n");
    } else if !field.default.is_empty() {
        let _ = writeln!(out, "  default: {}", field.default);
    }
    let kinds: Vec<&str> =
        table.kinds.iter().filter(|rule| rule.names(&field.name)).map(|rule| rule.word.as_str()).collect();
    if !kinds.is_empty() {
        let _ = writeln!(out, "  of kind: {}", kinds.join(", "));
    }
    if !field.idle.is_empty() {
        let _ = writeln!(out, "  this build does not act on it: {}", field.idle);
    }
    for (word, why) in &field.idle_words {
        let _ = writeln!(out, "  this build does not act on \"{word}\": {why}");
    }
    if let Some(inner) = field.kind.table() {
        out.push_str(&keys(inner));
    }
    out
}

fn is_built(action: &Action) -> bool {
    BUILT.contains(&action.name)
}

fn explain_table(table: &TableSchema) -> String {
    format!("{}: {}\n{}", table.name, table.help, keys(table))
}

fn keys(table: &TableSchema) -> String {
    let width = table.fields.iter().map(|field| field.name.len()).max().unwrap_or(0);
    let mut out = String::from("  keys:\n");
    for field in &table.fields {
        let mark = if field.required { "*" } else { " " };
        let idle = if field.idle.is_empty() { "" } else { " (not acted on by this build)" };
        let _ = writeln!(out, "  {mark} {:width$}  {}{idle}", field.name, field.help);
    }
    out.push_str("  (* required)\n");
    out
}

fn explain_action(action: &Action) -> String {
    let changes = match action.changes {
        Answer::No => "no",
        Answer::Yes => "yes",
        Answer::ById if action.name == "log.prune" => "yes, but not with plan_only = true",
        Answer::ById => "as declared at the id",
    };
    let guard = match action.guard {
        Answer::No => "no",
        Answer::Yes => "needed",
        Answer::ById => "needed when an id has touches_network = true",
    };
    let runs_on = match action.runs_on {
        Where::Node => "the node",
        Where::Controller => "the controller",
        Where::Both => "the node or the controller",
    };
    let mut out = format!(
        "action {}{}\n  changes the node: {changes}\n  guard: {guard}\n  runs on: {runs_on}\n",
        action.name,
        if is_built(action) { "" } else { ": not in this build; runs with it are refused when they start" },
    );
    if action.parameters.is_empty() {
        out.push_str("  parameters: none\n");
    }
    for parameter in action.parameters {
        let state = match (parameter.required, parameter.default) {
            (true, _) => "required".to_owned(),
            (false, "") => "optional".to_owned(),
            (false, default) => format!("default {default}"),
        };
        let _ = writeln!(out, "  {}: {} ({state})", parameter.name, expects(parameter.takes));
    }
    for group in action.one_of {
        let _ = writeln!(out, "  exactly one of: {}", group.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tables_and_actions_are_explained() {
        let misfire = explain("schedule.misfire").unwrap();
        assert!(misfire.contains("one of: skip, run_once, run_all"), "{misfire}");
        assert!(explain("facts").unwrap().contains("postgresql\n"));
        assert!(explain("step.guard.confirm_within").unwrap().contains("required"));
        assert!(explain("check.path").unwrap().contains("disk_used"));
        assert!(explain("log.prune").unwrap().contains("plan_only"));
        let actions = explain("actions").unwrap();
        assert!(actions.contains("backup.run\n"), "{actions}");
        assert!(actions.lines().any(|l| l.starts_with("hardening.run ") && l.ends_with("not in this build")));
        assert!(explain("hardening.run").unwrap().starts_with("action hardening.run: not in this build"));
        assert!(
            explain("check.every").unwrap().contains("does not act on it: nothing makes checks by itself")
        );
        assert!(explain("step.kind").unwrap().contains("does not act on \"manual\""));
        assert!(explain("procedure").unwrap().contains("fail_if_warnings"));
        assert_eq!(
            explain("schedule.mis_fire").unwrap_err(),
            "nothing is called \"schedule.mis_fire\"; did you mean \"schedule.misfire\"?"
        );
    }

    #[test]
    fn every_table_is_explained_as_it_is_derived() {
        let texts: Vec<String> = tables().into_iter().map(explain_table).collect();
        insta::assert_snapshot!(texts.join("\n"));
    }

    #[test]
    fn every_listed_path_is_explained() {
        let paths = schema_paths();
        assert!(paths.len() > 200);
        for path in paths {
            assert!(explain(&path).is_ok(), "{path}");
        }
    }
}
