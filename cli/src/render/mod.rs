//! The one printer for every output.
//!
//! A command makes an [`Answer`]: the versioned JSON value of a view, and the blocks that people see.
//! [`print()`] writes it in the format asked for. Text from nodes is foreign: it is escaped here, for
//! every human format, and nowhere else (security-and-delivery §1.19).

mod answer;
pub mod escape;
mod format;
mod jsonpath;
mod paint;
mod printer;
mod table;
mod times;
pub mod units;
mod value;
mod yaml;

pub use answer::{Answer, Block, Cell, Column, Table, Tone};
pub use format::OutputFormat;
pub use jsonpath::{JsonPath, JsonPathError};
pub use paint::{ColorChoice, Paint};
pub use printer::{Look, print, to_text};
pub use times::{TimeStyle, Times};
pub use value::{read_printed, to_value};
