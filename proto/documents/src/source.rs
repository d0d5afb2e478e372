//! A file as it was handed in, and the limits of what is read.

use crate::position::Position;
use crate::problem::Problem;

/// Largest file that is read: 1 MiB. The longest sample is 22 KiB; a profile with a thousand objects is
/// a tenth of this.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Deepest nesting of tables and lists (security-and-delivery §1.15).
pub const MAX_NESTING: usize = 32;

/// Most problems that are kept of one file: more than anybody reads, and the list stays bounded.
pub(crate) const MAX_PROBLEMS: usize = 200;

/// Reads the bytes of a file as text. What is no UTF-8 is replaced and reported at its place, so that everything else
/// of the file, and of the others, is still checked.
pub fn read_text(name: &str, bytes: Vec<u8>) -> (String, Option<Problem>) {
    let error = match String::from_utf8(bytes) {
        Ok(text) => return (text, None),
        Err(error) => error,
    };
    let good = error.utf8_error().valid_up_to();
    let before = &error.as_bytes()[..good];
    let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let (line, column) = (
        before.split(|b| *b == b'\n').count(),
        String::from_utf8_lossy(&before[start..]).chars().count() + 1,
    );
    let byte = error.as_bytes()[good];
    let message = format!("byte 0x{byte:02x} is no UTF-8");
    let problem =
        Problem::error(name, Position { line, column }, "not-utf8", message, "save the file as UTF-8");
    (String::from_utf8_lossy(error.as_bytes()).into_owned(), Some(problem))
}

/// One file of a set.
#[derive(Debug, Clone, Copy)]
pub struct SourceFile<'a> {
    /// Its name, as it is shown in problems.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}
