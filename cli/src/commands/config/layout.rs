//! How a TOML file is laid out: the same values, comments and order, with one form of everything around them.
//!
//! One space on each side of `=`, an empty line before each table, at most one elsewhere, nothing at the end of
//! lines. A list that was written over several lines, or is too long for one, has a line for each member. Texts and
//! numbers stay as they are written.

use toml_edit::{Array, Decor, DocumentMut, InlineTable, Item, Key, RawString, Table, Value};

/// Columns that a list may take on one line.
const WIDTH: usize = 100;

/// The text laid out anew; the error is `line:column: why`.
pub fn laid_out(text: &str) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        let (row, column) = (before.matches('\n').count() + 1, line.chars().count() + 1);
        format!("{row}:{column}: {}", error.message().lines().next().unwrap_or_default())
    })?;
    let end = above(raw(Some(document.trailing())), Lead::Keep);
    document.set_trailing(end);
    keys(document.as_table_mut(), &mut true);
    let new = format!("{}\n", document.to_string().trim_matches('\n'));
    let values = |text: &str| text.parse::<toml::Table>().ok();
    // A fault in here must not change what somebody signs.
    if values(&new) == values(text) {
        Ok(new)
    } else {
        Err("1:1: its values would not stay the same".to_owned())
    }
}

/// The empty line before what stands first above something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lead {
    Always,
    Keep,
    Never,
}

fn raw(text: Option<&RawString>) -> &str {
    text.and_then(RawString::as_str).unwrap_or_default()
}

/// The comments above a key or header, with at most one empty line before each and at the end.
fn above(raw: &str, lead: Lead) -> String {
    let (mut out, mut gap) = (String::new(), lead == Lead::Always);
    let mut lines: Vec<&str> = raw.split('\n').map(str::trim).collect();
    // What follows the last line break is only the indentation of the key, or a comment that ends the file.
    let last = lines.pop().filter(|line| !line.is_empty());
    for line in lines.into_iter().chain(last) {
        if line.is_empty() {
            gap = lead != Lead::Never || !out.is_empty();
        } else {
            out += if gap { "\n" } else { "" };
            out += line;
            out += "\n";
            gap = false;
        }
    }
    out + if gap { "\n" } else { "" }
}

/// Leaves of what stands after a value the comment, as far to the right as it is.
fn after(decor: &mut Decor) {
    let comment = raw(decor.suffix()).trim_end().to_owned();
    let space = if comment.is_empty() || comment.starts_with([' ', '\t']) { "" } else { " " };
    decor.set_suffix(format!("{space}{comment}"));
}

fn keys(table: &mut Table, first: &mut bool) {
    for (mut key, item) in table.iter_mut() {
        *key.dotted_decor_mut() = Decor::default();
        if let Item::Value(value) = item {
            let lead = if std::mem::take(first) { Lead::Never } else { Lead::Keep };
            let comments = above(raw(key.leaf_decor().prefix()), lead);
            *key.leaf_decor_mut() = Decor::new(comments, " ");
            value.decor_mut().set_prefix(" ");
            after(value.decor_mut());
            inside(value, 0, key.display_repr().chars().count() + " = ".len());
            continue;
        }
        *key.leaf_decor_mut() = Decor::default();
        match item {
            Item::Table(inner) if inner.is_dotted() => keys(inner, first),
            Item::Table(inner) => below_header(inner),
            Item::ArrayOfTables(tables) => tables.iter_mut().for_each(below_header),
            Item::Value(_) | Item::None => {}
        }
    }
}

fn below_header(table: &mut Table) {
    let comments = above(raw(table.decor().prefix()), Lead::Always);
    table.decor_mut().set_prefix(comments);
    after(table.decor_mut());
    keys(table, &mut true);
}

/// The inside of lists and inline tables; `used` are the columns before it.
fn inside(value: &mut Value, depth: usize, used: usize) {
    match value {
        Value::Array(members) => list(members, depth, used),
        Value::InlineTable(table) => inline(table, depth),
        _ => {}
    }
}

fn list(members: &mut Array, depth: usize, used: usize) {
    // What stands between the members, with the comments; a comma may stand anywhere in it.
    let mut gaps = vec![String::new()];
    for (at, member) in members.iter().enumerate() {
        gaps[at] += raw(member.decor().prefix());
        gaps.push(raw(member.decor().suffix()).to_owned());
    }
    let count = members.len();
    gaps[count] += raw(Some(members.trailing()));
    let mut width = used + "[]".len();
    for (at, member) in members.iter_mut().enumerate() {
        *member.decor_mut() = Decor::new(if at == 0 { "" } else { " " }, "");
        inside(member, depth + 1, 0);
        let text = member.to_string();
        width += if text.contains('\n') { WIDTH } else { text.chars().count() + 1 };
    }
    let is_open = width > WIDTH && count > 0 || gaps.iter().any(|gap| gap.contains(['\n', '#']));
    members.set_trailing_comma(is_open);
    if is_open {
        for (member, gap) in members.iter_mut().zip(&gaps) {
            member.decor_mut().set_prefix(own_line(gap, depth + 1, depth + 1));
        }
    }
    members.set_trailing(if is_open { own_line(&gaps[count], depth + 1, depth) } else { String::new() });
}

/// A gap in a list that ends at the beginning of a line, with its comments: one beside what is before it, the others on
/// lines of their own.
fn own_line(gap: &str, comment_depth: usize, depth: usize) -> String {
    let line = |depth: usize, text: &str| format!("\n{}{text}", "  ".repeat(depth));
    let mut lines = gap.split('\n').map(str::trim);
    let beside = lines.next().filter(|comment| !comment.is_empty()).map(|comment| format!(" {comment}"));
    let above = lines.filter(|comment| !comment.is_empty()).map(|comment| line(comment_depth, comment));
    beside.into_iter().chain(above).chain([line(depth, "")]).collect()
}

fn inline(table: &mut InlineTable, depth: usize) {
    if !is_plain(table) {
        return;
    }
    let count = table.len();
    for (at, (mut key, value)) in table.iter_mut().enumerate() {
        *key.leaf_decor_mut() = Decor::new(" ", " ");
        *value.decor_mut() = Decor::new(" ", if at + 1 == count { " " } else { "" });
        inside(value, depth, 0);
    }
    table.set_trailing_comma(false);
    table.set_trailing("");
}

/// Whether a table has no comments and is on one line. Others stay as they are written, and so do those whose keys have
/// dots, which are tables in tables.
fn is_plain(table: &InlineTable) -> bool {
    let decors =
        table.iter().flat_map(|(key, value)| [table.key(key).map(Key::leaf_decor), Some(value.decor())]);
    let around = decors.flatten().flat_map(|decor| [raw(decor.prefix()), raw(decor.suffix())]);
    let is_dotted = |value: &Value| value.as_inline_table().is_some_and(InlineTable::is_dotted);
    !around.chain([raw(Some(table.trailing()))]).any(|text| text.contains(['\n', '#']))
        && !table.iter().any(|(_, value)| is_dotted(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_comments_and_order_stay() {
        let text = "\n\n# head\r\n\n\n\nkind=\"profile\"   # which\n  name = 'edge'\nlist = [ 1,2 , # two\n 3\n # end\n]\nempty = [ ]\ndeep = [[1,2],{a=1,b = [ \"x\" ]}]\na . b  =  1\n[ service . web ] # unit\n\n\nunit = \"web.service\"\n# none\n\n\n\non_down   = \"\"\"\nkept  \n\"\"\"\n[[step]]\nid=\"a\"\n[[ step ]]\nid=\"b\" \n\n\n# the end";
        let laid = laid_out(text).unwrap();
        insta::assert_snapshot!(laid);
        assert_eq!(laid_out(&laid).unwrap(), laid);
    }

    #[test]
    fn a_long_list_is_broken_and_a_short_one_is_not() {
        let long = format!("argv = [{}]\n", ["\"/usr/bin/some-program\""; 6].join(","));
        let laid = laid_out(&long).unwrap();
        assert_eq!(laid.lines().count(), 8, "{laid}");
        assert!(laid.ends_with("  \"/usr/bin/some-program\",\n]\n"), "{laid}");
        assert_eq!(laid_out(&laid).unwrap(), laid);
        assert_eq!(laid_out("a = [ 'x','y' ]").unwrap(), "a = ['x', 'y']\n");
    }

    #[test]
    fn what_is_no_toml_is_named_with_its_place() {
        assert!(laid_out("a = 1\nb = \n").unwrap_err().starts_with("2:"), "{:?}", laid_out("a = 1\nb = \n"));
        assert_eq!(laid_out("").unwrap(), "\n");
    }

    #[test]
    fn every_shipped_document_is_laid_out_once() {
        let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/profiles")];
        let mut seen = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "toml") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let laid = laid_out(&text).unwrap();
                    assert_eq!(laid_out(&laid).unwrap(), laid, "{}", path.display());
                    assert_eq!(laid.matches('#').count(), text.matches('#').count(), "{}", path.display());
                    seen += 1;
                }
            }
        }
        assert!(seen > 30, "{seen}");
    }
}
