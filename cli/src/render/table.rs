//! Lays a table out: columns as wide as their content, cut with `…` (`...` in ASCII) where the terminal ends.
//!
//! The crate comfy-table draws; what to cut is decided here, because it would wrap cells over several
//! lines, and a table that people grep has one line a row.

use comfy_table::{Cell as DrawnCell, CellAlignment, ColumnConstraint, ContentArrangement, Table as Drawn};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::answer::{Column, Table, Tone};
use super::escape::{self, Charset};
use super::paint::Paint;

/// Space between columns.
const GAP: usize = 2;
/// A cut column keeps this much, so that its text still says something.
const MIN_CUT_WIDTH: usize = 8;

/// How much of a table is shown.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// Columns of the terminal to fit into; none where nothing is to be cut.
    pub columns: Option<usize>,
    /// Those of `-o wide` too?
    pub wide: bool,
    /// The characters that there are.
    pub charset: Charset,
}

/// The table's lines.
pub fn lines(table: &Table, how: Shown, paint: Paint) -> Vec<String> {
    let shown: Vec<usize> =
        (0..table.columns.len()).filter(|n| how.wide || !table.columns[*n].is_wide).collect();
    let columns: Vec<Column> = shown.iter().map(|n| table.columns[*n]).collect();
    let cells: Vec<Vec<(String, Tone)>> = table
        .rows
        .iter()
        .map(|row| {
            let text = |text: &str| how.charset.fit(&escape::line(text)).into_owned();
            let cell = |n: &usize| row.get(*n).map(|cell| (text(&cell.text), cell.tone));
            shown.iter().map(|n| cell(n).unwrap_or_default()).collect()
        })
        .collect();
    let widths = fitted(&columns, &cells, how.columns);

    let mut drawn = Drawn::new();
    drawn.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    drawn.set_header(columns.iter().map(|column| aligned(column.title, column)));
    for row in &cells {
        let cut_row = row.iter().zip(&columns).zip(&widths);
        drawn.add_row(
            cut_row.map(|(((text, _), column), width)| aligned(&cut(text, *width, how.charset), column)),
        );
    }
    for (n, width) in widths.iter().enumerate() {
        if let Some(column) = drawn.column_mut(n) {
            column.set_padding((0, u16::try_from(GAP).unwrap_or(0)));
            let fixed = u16::try_from(width + GAP).unwrap_or(u16::MAX);
            column.set_constraint(ColumnConstraint::Absolute(comfy_table::Width::Fixed(fixed)));
        }
    }
    let mut lines: Vec<String> = drawn.lines().map(|line| line.trim_end().to_owned()).collect();
    if let Some(head) = lines.first_mut() {
        *head = paint.tone(Tone::Head, head);
    }
    for (line, row) in lines.iter_mut().skip(1).zip(&cells) {
        let tones: Vec<_> = row.iter().map(|(_, tone)| *tone).collect();
        *line = painted(line, &widths, &tones, paint);
    }
    lines
}

fn aligned(text: &str, column: &Column) -> DrawnCell {
    DrawnCell::new(text).set_alignment(if column.is_number {
        CellAlignment::Right
    } else {
        CellAlignment::Left
    })
}

/// Widths of the content; the widest column that may be cut gives way until the row fits.
fn fitted(columns: &[Column], rows: &[Vec<(String, Tone)>], limit: Option<usize>) -> Vec<usize> {
    let mut widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(n, column)| {
            rows.iter().map(|row| row[n].0.width()).max().unwrap_or(0).max(column.title.width())
        })
        .collect();
    let Some(limit) = limit else { return widths };
    let gaps = GAP * widths.len().saturating_sub(1);
    let floor = |n: usize| MIN_CUT_WIDTH.max(columns[n].title.width());
    while widths.iter().sum::<usize>() + gaps > limit {
        let can_give = (0..widths.len()).filter(|n| columns[*n].may_be_cut && widths[*n] > floor(*n));
        let Some(widest) = can_give.max_by_key(|n| widths[*n]) else { break };
        widths[widest] -= 1;
    }
    widths
}

/// The text in at most `width` columns, with a mark at its end where something is missing.
fn cut(text: &str, width: usize, charset: Charset) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mark = charset.ellipsis();
    let mut kept = String::new();
    let mut used = mark.width();
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(c);
    }
    format!("{}{mark}", kept.trim_end())
}

/// Paints the cells of a line that has been laid out, by their places.
fn painted(line: &str, widths: &[usize], tones: &[Tone], paint: Paint) -> String {
    if !paint.is_on() {
        return line.to_owned();
    }
    let mut out = String::new();
    let mut rest = line;
    for (width, tone) in widths.iter().zip(tones) {
        let (cell, after) = split_at_width(rest, width + GAP);
        let text = cell.trim_end();
        let lead = text.len() - text.trim_start().len();
        out.push_str(&text[..lead]);
        out.push_str(&paint.tone(*tone, &text[lead..]));
        out.push_str(&cell[text.len()..]);
        rest = after;
    }
    out + rest
}

fn split_at_width(text: &str, width: usize) -> (&str, &str) {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > width {
            return text.split_at(at);
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::render::{Cell, ColorChoice};
    use fleet_types::time::Timestamp;

    const WIDE: Shown = Shown { columns: None, wide: true, charset: Charset::Unicode };
    const NARROW: Shown = Shown { columns: Some(80), wide: false, charset: Charset::Unicode };

    fn sample() -> Table {
        let mut table = Table::new(&[
            Column::whole("NAME"),
            Column::number("NODES"),
            Column::text("WHY"),
            Column::whole("DIGEST").wide(),
        ]);
        let long = "the gate \"verify\" does not hold: firewall inactive after ten seconds, and once more: it does not";
        table.row(["fw-fra1-07".into(), "1".into(), long.into(), "abc".into()]);
        table.row([
            "日本".into(),
            "1200".into(),
            Cell::toned(Tone::Bad, "\u{1b}[31mred\u{202e}\nx"),
            "def".into(),
        ]);
        table
    }

    #[test]
    fn eighty_columns_and_wide() {
        let narrow = lines(&sample(), NARROW, Paint::plain());
        assert!(narrow.iter().all(|line| line.width() <= 80), "{narrow:#?}");
        insta::assert_snapshot!(narrow.join("\n"));
        insta::assert_snapshot!(lines(&sample(), WIDE, Paint::plain()).join("\n"));
    }

    #[test]
    fn colour_changes_no_place() {
        let environment = Environment::fixed(&[], || Timestamp::clamped(0));
        let paint = Paint::new(ColorChoice::Always, false, &environment);
        let strip = |line: &String| {
            let mut text = line.clone();
            for code in ["\u{1b}[1m", "\u{1b}[1;31m", "\u{1b}[0m"] {
                text = text.replace(code, "");
            }
            text
        };
        let painted = lines(&sample(), NARROW, paint);
        assert!(painted[2].contains("\u{1b}[1;31m\\u{1b}"), "{painted:?}");
        let stripped: Vec<_> = painted.iter().map(strip).collect();
        assert_eq!(stripped, lines(&sample(), NARROW, Paint::plain()));
    }

    #[test]
    fn a_cut_text_says_so() {
        let cut = |text, width| cut(text, width, Charset::Unicode);
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 5), "abcd…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("ab cd", 4), "ab…");
        let ascii = lines(&sample(), Shown { charset: Charset::Ascii, ..NARROW }, Paint::plain());
        assert!(ascii[1].ends_with("..."), "{ascii:#?}");
        assert!(ascii.iter().all(|line| line.is_ascii() && line.len() <= 80), "{ascii:#?}");
    }

    #[test]
    fn nothing_is_cut_where_there_is_no_terminal() {
        let lines = lines(&sample(), Shown { columns: None, ..NARROW }, Paint::plain());
        assert!(
            lines[1].ends_with("and once more: it does not") && !lines[0].contains("DIGEST"),
            "{lines:#?}"
        );
    }
}
