//! Tables of a database by their declared names. What is not there is an error that names it, never left out.
//!
//! Called by the tasks named `database.*`.

use serde_json::Value;

use super::answer::{DatabaseError, text};
use super::server::Server;

/// From this version on maintenance passes over what is locked, instead of waiting for it.
const SKIPS_LOCKED: u32 = 120_000;

/// Tables of one of these names, in all schemas but the system's.
const NAMED: &str = "
SELECT json_build_object('schema', n.nspname, 'name', c.relname, 'owner', pg_get_userbyid(c.relowner), 'oid', c.oid::text,
    'bytes', pg_total_relation_size(c.oid))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND (c.relname IN (SELECT jsonb_array_elements_text(:'names'::jsonb))
        OR n.nspname || '.' || c.relname IN (SELECT jsonb_array_elements_text(:'names'::jsonb)));
";

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tasks) struct Table {
    /// Its schema.
    pub(in crate::tasks) schema: String,
    /// Its name.
    pub(in crate::tasks) name: String,
    /// The role that owns it.
    pub(in crate::tasks) owner: String,
    /// Its number in the server.
    pub(in crate::tasks) oid: String,
    /// Bytes with its indexes.
    pub(in crate::tasks) bytes: u64,
}

impl Table {
    /// From a row.
    pub(in crate::tasks) fn of(row: &Value) -> Self {
        Self {
            schema: text(row, "schema").to_owned(),
            name: text(row, "name").to_owned(),
            owner: text(row, "owner").to_owned(),
            oid: text(row, "oid").to_owned(),
            bytes: row["bytes"].as_u64().unwrap_or_default(),
        }
    }

    /// For people.
    pub(in crate::tasks) fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// The tables of these names: `schema.table`, or `table` where only one schema has it.
pub(in crate::tasks) fn named(server: &Server<'_>, names: &[String]) -> Result<Vec<Table>, DatabaseError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let list = Value::from(names).to_string();
    let rows = server.run(&server.look(&[("names", list.as_str())]), NAMED)?.rows;
    let found: Vec<Table> = rows.iter().map(Table::of).collect();
    names.iter().map(|name| pick(server.name(), name, &found)).collect()
}

fn pick(database: &str, name: &str, found: &[Table]) -> Result<Table, DatabaseError> {
    let of =
        |name_of: &dyn Fn(&Table) -> bool| found.iter().filter(|table| name_of(table)).collect::<Vec<_>>();
    let mut fitting = of(&|table| table.name == name);
    if fitting.is_empty() {
        fitting = of(&|table| table.shown() == name);
    }
    match fitting.as_slice() {
        [table] => Ok((*table).clone()),
        [] => Err(DatabaseError::named(
            "no_table",
            format!("database {database} has no table \"{name}\"; correct the profile"),
        )),
        several => {
            let names: Vec<_> = several.iter().map(|table| table.shown()).collect();
            let message =
                format!("table \"{name}\" may be {}; write its schema before it", names.join(" or "));
            Err(DatabaseError::named("ambiguous_table", message))
        }
    }
}

/// Has the server maintain tables (`VACUUM`, `ANALYZE`), one statement each; all of the database where none is named. What others
/// have locked is passed over and told, because whoever waits for a lock stops those who come after.
pub(in crate::tasks) fn maintain(
    server: &Server<'_>,
    command: &str,
    options: &[&str],
    tables: &[Table],
) -> Result<Vec<String>, DatabaseError> {
    let mut options = options.to_vec();
    if server.version(server.name())? >= SKIPS_LOCKED {
        options.push("SKIP_LOCKED");
    }
    let options = if options.is_empty() { String::new() } else { format!(" ({})", options.join(", ")) };
    let mut notices = Vec::new();
    let mut one = |part: &str, table: Option<&Table>| {
        server.check()?;
        let values =
            table.map_or_else(Vec::new, |t| vec![("schema", t.schema.as_str()), ("table", t.name.as_str())]);
        let of = if table.is_some() { " :\"schema\".:\"table\"" } else { "" };
        let session = server.work(part, &values);
        notices.extend(server.run(&session, &format!("{command}{options}{of};"))?.notices);
        Ok::<(), DatabaseError>(())
    };
    if tables.is_empty() {
        one(command, None)?;
    }
    for (number, table) in tables.iter().enumerate() {
        one(&format!("{command}-{number}"), Some(table))?;
    }
    Ok(notices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_without_a_doubt_or_not_at_all() {
        let table = |schema: &str, name: &str| Table {
            schema: schema.into(),
            name: name.into(),
            owner: String::new(),
            oid: String::new(),
            bytes: 0,
        };
        let found = [table("public", "logs"), table("old", "logs"), table("public", "a.b")];
        let shown =
            |name: &str| pick("fw", name, &found).map(|table| table.shown()).map_err(|e| e.to_string());
        assert_eq!(shown("old.logs").unwrap(), "old.logs");
        assert_eq!(shown("a.b").unwrap(), "public.a.b");
        assert!(shown("logs").unwrap_err().contains("public.logs or old.logs"));
        assert!(shown("none").unwrap_err().contains("database fw has no table \"none\""));
    }
}
