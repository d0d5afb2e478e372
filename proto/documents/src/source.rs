//! A file as it was handed in, and the limits of what is read.

/// Largest file that is read: 1 MiB. The longest sample is 22 KiB; a profile with a thousand objects is
/// a tenth of this.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Deepest nesting of tables and lists (security-and-delivery §1.15).
pub const MAX_NESTING: usize = 32;

/// Most problems that are kept of one file: more than anybody reads, and the list stays bounded.
pub(crate) const MAX_PROBLEMS: usize = 200;

/// One file of a set.
#[derive(Debug, Clone, Copy)]
pub struct SourceFile<'a> {
    /// Its name, as it is shown in problems.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}
