//! What a command hands to the printer: a versioned value for programs, blocks for people.

use serde::Serialize;
use serde_json::{Map, Value};

use super::value::to_value;

/// One answer of one command.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The versioned object; a list's entries stand under `items`.
    pub value: Value,
    /// Names alone, for `-o name`.
    pub names: Vec<String>,
    /// What people see, in order.
    pub blocks: Vec<Block>,
}

/// A part of what people see.
#[derive(Debug, Clone)]
pub enum Block {
    /// One line of text; never cut, for it may hold a command to copy.
    Line(String),
    /// One line in a tone, such as the head of a section.
    Toned(Tone, String),
    /// Names and values below each other.
    Fields(Vec<(&'static str, Cell)>),
    /// A table.
    Table(Table),
    /// Text with lines of its own, such as the end of a step's output, indented.
    Text(String),
    /// An empty line.
    Gap,
}

/// How a text is meant; shown as colour where there is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Needs a look.
    Warn,
    /// Wrong.
    Bad,
    /// Beside the point.
    Dim,
    /// A heading.
    Head,
}

/// Text of a cell, as it came: the printer escapes and cuts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// The text.
    pub text: String,
    /// How it is meant.
    pub tone: Tone,
}

impl Cell {
    /// A cell in a tone.
    pub fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

/// A column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Numbers stand at the right.
    pub is_number: bool,
    /// Shown with `-o wide` only.
    pub is_wide: bool,
    /// May be cut to make the table fit, down to a few characters. Names and ids may not.
    pub may_be_cut: bool,
}

impl Column {
    /// Shown whole.
    pub const fn whole(title: &'static str) -> Self {
        Self { title, is_number: false, is_wide: false, may_be_cut: false }
    }

    /// A number.
    pub const fn number(title: &'static str) -> Self {
        Self { is_number: true, ..Self::whole(title) }
    }

    /// Free text, cut where the terminal is too narrow.
    pub const fn text(title: &'static str) -> Self {
        Self { may_be_cut: true, ..Self::whole(title) }
    }

    /// The same with `-o wide` only.
    #[must_use]
    pub const fn wide(self) -> Self {
        Self { is_wide: true, ..self }
    }
}

/// A table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, a cell a column.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.into());
    }
}

impl Answer {
    /// An answer with the value of a view.
    pub fn of<T: Serialize>(view: &T) -> Self {
        // Views have string keys and no failing serialisers, so that this cannot fail.
        Self { value: to_value(view).unwrap_or_default(), ..Self::default() }
    }

    /// An answer that is no view of the controller's: `schema` and the fields of `body`.
    pub fn local<T: Serialize>(schema: &'static str, body: &T) -> Self {
        let mut object = Map::new();
        object.insert("schema".to_owned(), schema.into());
        if let Ok(Value::Object(fields)) = to_value(body) {
            object.extend(fields);
        }
        Self { value: Value::Object(object), ..Self::default() }
    }

    /// Adds a name for `-o name`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// Adds names for `-o name`.
    #[must_use]
    pub fn names(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.names.extend(names);
        self
    }

    /// Adds a line.
    #[must_use]
    pub fn line(self, text: impl Into<String>) -> Self {
        self.block(Block::Line(text.into()))
    }

    /// Adds a table; what to say instead when it has no rows.
    #[must_use]
    pub fn table(self, table: Table, when_empty: &str) -> Self {
        if table.rows.is_empty() { self.line(when_empty) } else { self.block(Block::Table(table)) }
    }

    /// Adds a block.
    #[must_use]
    pub fn block(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }
}
