//! Writes an answer in the format asked for.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use super::answer::{Answer, Block};
use super::escape::{self, Charset};
use super::format::OutputFormat;
use super::paint::{ColorChoice, Paint};
use super::table::Shown;
use super::{table, yaml};
use crate::environment::Environment;

/// How answers look in this invocation.
#[derive(Debug, Clone)]
pub struct Look {
    /// `-o`.
    pub format: OutputFormat,
    /// Columns to fit tables into; none where nothing is cut, for a program may read them.
    pub columns: Option<usize>,
    /// Colour.
    pub paint: Paint,
    /// The characters that people's formats may have.
    pub charset: Charset,
}

impl Look {
    /// How it looks on one of the two streams.
    pub fn new(
        format: OutputFormat,
        color: ColorChoice,
        is_terminal: bool,
        environment: &Environment,
    ) -> Self {
        Self {
            format,
            columns: environment.table_columns(is_terminal),
            paint: Paint::new(color, is_terminal, environment),
            charset: Charset::of(environment),
        }
    }
}

/// Writes an answer.
pub fn print(answer: &Answer, look: &Look, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(to_text(answer, look).as_bytes())?;
    out.flush()
}

/// The same as text.
pub fn to_text(answer: &Answer, look: &Look) -> String {
    match &look.format {
        OutputFormat::Table => {
            let shown = Shown { columns: look.columns, wide: false, charset: look.charset };
            blocks(&answer.blocks, shown, look.paint)
        }
        OutputFormat::Wide => {
            blocks(&answer.blocks, Shown { columns: None, wide: true, charset: look.charset }, look.paint)
        }
        OutputFormat::Json => {
            // A Value cannot fail to be written.
            escape::json(&serde_json::to_string_pretty(&answer.value).unwrap_or_default()) + "\n"
        }
        OutputFormat::JsonLines => match answer.value.get("items") {
            Some(Value::Array(items)) => items.iter().map(json_line).collect(),
            _ => json_line(&answer.value),
        },
        OutputFormat::Yaml => yaml::to_yaml(&answer.value),
        OutputFormat::Name => {
            let mut text = String::new();
            for name in &answer.names {
                let _ = writeln!(text, "{}", escape::line(name));
            }
            text
        }
        OutputFormat::JsonPath(path) => path.select(&answer.value).into_iter().map(path_line).collect(),
    }
}

fn json_line(value: &Value) -> String {
    escape::json(&value.to_string()) + "\n"
}

/// A string without its quotes, everything else as JSON.
fn path_line(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{}\n", escape::line(text)),
        other => json_line(other),
    }
}

fn blocks(blocks: &[Block], shown: Shown, paint: Paint) -> String {
    let escaped = |text: &str| shown.charset.fit(&escape::line(text)).into_owned();
    let mut text = String::new();
    for block in blocks {
        match block {
            Block::Line(line) => text.push_str(&escaped(line)),
            Block::Toned(tone, line) => text.push_str(&paint.tone(*tone, &escaped(line))),
            Block::Fields(fields) => {
                let widest = fields.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
                let lines: Vec<_> = fields
                    .iter()
                    .map(|(name, cell)| {
                        let value = paint.tone(cell.tone, &escaped(&cell.text));
                        format!("{name:widest$}  {value}").trim_end().to_owned()
                    })
                    .collect();
                text.push_str(&lines.join("\n"));
            }
            Block::Table(content) => text.push_str(&table::lines(content, shown, paint).join("\n")),
            // What a node or a file said stays what it is.
            Block::Text(content) => {
                for line in content.lines() {
                    let _ = writeln!(text, "    {}", escape::lines(line));
                }
                continue;
            }
            Block::Gap => {}
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{Cell, Column, Table};
    use serde_json::json;

    fn sample() -> Answer {
        let mut nodes = Table::new(&[Column::whole("NAME"), Column::text("SUMMARY")]);
        nodes.row(["fw-1".into(), "all is well \u{1b}]0;owned\u{7}".into()]);
        nodes.row(["fw-2".into(), "x".into()]);
        let value = json!({
            "schema": "fleet/v1/node-list",
            "items": [{ "name": "fw-1", "summary": "all is well \u{1b}]0;owned\u{7}\u{9b}" }, { "name": "fw-2" }],
        });
        Answer { value, ..Answer::default() }
            .names(["fw-1".to_owned(), "fw-2".to_owned()])
            .block(Block::Fields(vec![
                ("name", Cell::from("prod")),
                ("longer name", Cell::from("\u{202e}b")),
            ]))
            .block(Block::Table(nodes))
            .block(Block::Gap)
            .block(Block::Text("line 1\n\u{1b}[2Jline 2\n".to_owned()))
    }

    #[test]
    fn every_format_from_one_answer() {
        let mut all = String::new();
        for format in ["table", "wide", "json", "jsonl", "yaml", "name", "jsonpath=.items[*].summary"] {
            let (paint, charset) = (Paint::plain(), Charset::Unicode);
            let look = Look { format: format.parse().unwrap(), columns: Some(80), paint, charset };
            let text = to_text(&sample(), &look);
            assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{9b}', '\u{7}']), "{format}: {text:?}");
            let _ = write!(all, "--- {format}\n{text}");
        }
        insta::assert_snapshot!(all);
    }
}
