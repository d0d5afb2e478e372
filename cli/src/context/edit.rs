//! `config.toml` changed in place: what an operator wrote into it, comments and order, stays as they wrote it.

use fleet_types::id::Name;
use toml_edit::{DocumentMut, Item, Table, TableLike, value};

use super::file::ContextEntry;
use crate::error::{ExitCode, Failure};

/// The text with the context added or replaced; `current` is set where it is given.
pub(super) fn with_context(
    text: &str,
    name: &Name,
    entry: &ContextEntry,
    current: Option<&Name>,
) -> Result<String, Failure> {
    let mut document = parsed(text)?;
    if let Some(current) = current {
        set(document.as_table_mut(), "current", value(current.as_str()));
    }
    let contexts = below(document.as_table_mut(), "contexts", true)?;
    let written =
        toml::to_string(entry).map_err(|error| Failure::unexpected("a context cannot be written", &error))?;
    let old = below(contexts, name.as_str(), false)?;
    for (key, item) in parsed(&written)?.iter() {
        set(old, key, item.clone());
    }
    Ok(document.to_string())
}

/// The text without the context; it is no longer the current one either.
pub(super) fn without_context(text: &str, name: &Name) -> Result<String, Failure> {
    let mut document = parsed(text)?;
    if document.get("current").and_then(Item::as_str) == Some(name.as_str()) {
        document.remove("current");
    }
    below(document.as_table_mut(), "contexts", true)?.remove(name.as_str());
    Ok(document.to_string())
}

fn parsed(text: &str) -> Result<DocumentMut, Failure> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        Failure::new(ExitCode::Usage, "config-file", "config.toml cannot be read").cause(error.to_string())
    })
}

/// Replaces the value of a key, and keeps what stands around it.
fn set(table: &mut dyn TableLike, key: &str, item: Item) {
    let Some(old) = table.get_mut(key) else {
        table.insert(key, item);
        return;
    };
    let around = old.as_value().map(|old| old.decor().clone());
    *old = item;
    if let (Some(around), Some(new)) = (around, old.as_value_mut()) {
        *new.decor_mut() = around;
    }
}

/// The table under a key, made where there is none; one that only holds tables needs no line of its own.
fn below<'t>(
    table: &'t mut dyn TableLike,
    key: &str,
    is_implicit: bool,
) -> Result<&'t mut dyn TableLike, Failure> {
    if !table.contains_key(key) {
        let mut made = Table::new();
        made.set_implicit(is_implicit);
        table.insert(key, Item::Table(made));
    }
    table.get_mut(key).and_then(Item::as_table_like_mut).ok_or_else(|| {
        Failure::new(ExitCode::Usage, "config-file", format!("\"{key}\" of config.toml is no table"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::ConfigFile;
    use crate::context::file::entry;

    #[test]
    fn comments_and_order_stay() {
        let [prod, dev]: [Name; 2] = ["prod", "dev"].map(|name| name.parse().unwrap());
        let written = with_context("", &prod, &entry("a:1"), Some(&prod)).unwrap();
        assert!(written.starts_with("current = \"prod\"\n\n[contexts.prod]\nendpoint = "), "{written}");
        // As an operator would: a head, a note at a line, and one before a table.
        let by_hand = written
            .replace("current = \"prod\"\n", "# ours\ncurrent = \"prod\" # not dev\n")
            .replace("[contexts.prod]", "# the real one\n[contexts.prod]")
            .replace("endpoint = \"a:1\"\n", "endpoint = \"a:1\" # by VPN\n");
        let both = with_context(&by_hand, &dev, &entry("b:1"), None).unwrap();
        assert!(both.starts_with(&by_hand), "{both}");
        let file: ConfigFile = toml::from_str(&both).unwrap();
        assert_eq!((file.contexts["dev"].endpoint.as_str(), file.current.as_ref()), ("b:1", Some(&prod)));
        assert_eq!(without_context(&both, &dev).unwrap(), by_hand);
        let moved = with_context(&by_hand, &prod, &entry("c:1"), Some(&dev)).unwrap();
        let expected = by_hand.replace("a:1", "c:1").replace("current = \"prod\"", "current = \"dev\"");
        assert_eq!(moved, expected);
        let gone = without_context(&moved, &dev).unwrap();
        assert!(gone.contains("# the real one\n[contexts.prod]") && !gone.contains("current"), "{gone}");
    }

    #[test]
    fn tables_in_one_line_are_changed_too() {
        let name: Name = "prod".parse().unwrap();
        let text = with_context("contexts = {} # few\n", &name, &entry("a:1"), None).unwrap();
        let file: ConfigFile = toml::from_str(&text).unwrap();
        assert!(file.contexts.contains_key("prod") && text.contains("# few"), "{text}");
        assert!(with_context("contexts = 5\n", &name, &entry("a:1"), None).is_err());
    }
}
