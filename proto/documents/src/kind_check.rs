//! Tables whose `kind` decides which keys count: what is missing, and what does not belong.

use serde_json::{Map, Value as Json};

use crate::schema::TableSchema;
use crate::walk::{At, Walk, join};

/// `given` are the keys that stand there, also those whose value was refused.
pub(crate) fn check(
    walk: &mut Walk<'_>,
    schema: &TableSchema,
    out: &Map<String, Json>,
    given: &[&str],
    path: &str,
    context: &str,
) {
    let Some(kind) = out.get("kind").and_then(Json::as_str) else { return };
    let Some(rule) = schema.kinds.iter().find(|rule| rule.word == kind) else { return };
    for group in rule.needs.iter().filter(|group| !group.iter().any(|key| given.contains(&key.as_str()))) {
        let message = format!("{context} is of kind \"{kind}\" and lacks \"{}\"", group.join("\" or \""));
        let expects = group
            .first()
            .and_then(|key| schema.field(key))
            .map(|field| field.kind.expects())
            .unwrap_or_default();
        walk.error(path, At::Key, "missing-key", message, format!("add {} = {expects}", group[0]));
    }
    // A key is bound to kinds when any rule names it; then it belongs only to those that do.
    for key in given {
        if schema.kinds.iter().any(|other| other.names(key)) && !rule.names(key) {
            let kinds: Vec<&str> = schema
                .kinds
                .iter()
                .filter(|other| other.names(key))
                .map(|other| other.word.as_str())
                .collect();
            let message = format!("\"{key}\" has no meaning in {context}, which is of kind \"{kind}\"");
            let fix = format!("take it out; it belongs to kind {}", kinds.join(", "));
            walk.error(&join(path, key), At::Key, "key-not-for-kind", message, fix);
        }
    }
}
