//! What a backup archive holds, as text: the node prints it as the output of a step, and whoever compares archives reads it.
//!
//! One line an entry, for people and programs alike, below a line with the archive's digest and the number of entries: so a
//! listing that was cut on its way is never taken for a whole one. Paths are JSON strings, so that no name makes a line of
//! its own. It must never hold content.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// Longest listing: a step's output is kept whole up to 1 MiB by default, and other words may stand in it. Some 7,000
/// entries; beyond, nobody would read the differences by eye.
pub const MAX_LISTING_BYTES: usize = 960 * 1024;
/// How the first line of a listing begins.
const HEAD: &str = "listing of archive";
/// In place of what an entry does not have.
const NONE: &str = "-";

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Link,
    /// A table of a database; its size is its number of rows.
    Table,
}

impl EntryKind {
    /// The word as written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Link => "link",
            Self::Table => "table",
        }
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits in octal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Owner and group, as `uid:gid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Bytes, or rows.
    pub size: u64,
    /// Digest of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Its path, or the table's name. Bytes that are no UTF-8 stand as `\xNN`.
    pub path: String,
    /// Where a link points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// Why there is no listing of an archive in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// Nothing of it.
    #[error("there is no listing of it")]
    Missing,
    /// It is not printed because of its length.
    #[error("its listing is too long to be kept: it has {0} entries")]
    TooLong(usize),
    /// Lines of it are missing, or are none.
    #[error("its listing is not whole")]
    Cut,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |text: Option<&String>| text.map_or(NONE, String::as_str).to_owned();
        let sha256 = self.sha256.map_or_else(|| NONE.to_owned(), |sha256| sha256.to_string());
        let (mode, owner) = (or_none(self.mode.as_ref()), or_none(self.owner.as_ref()));
        let path = serde_json::Value::from(self.path.as_str());
        write!(f, "{} {mode} {owner} {} {sha256} {path}", self.kind.as_str(), self.size)?;
        match &self.target {
            Some(target) => write!(f, " {}", serde_json::Value::from(target.as_str())),
            None => Ok(()),
        }
    }
}

impl FromStr for Entry {
    type Err = ListingError;

    fn from_str(line: &str) -> Result<Self, ListingError> {
        let mut words = line.splitn(6, ' ');
        let mut word = || words.next().ok_or(ListingError::Cut);
        let some = |text: &str| (text != NONE).then(|| text.to_owned());
        let kinds = [EntryKind::File, EntryKind::Directory, EntryKind::Link, EntryKind::Table];
        let (kind, mode, owner, size, sha256, names) = (word()?, word()?, word()?, word()?, word()?, word()?);
        let mut names = serde_json::Deserializer::from_str(names).into_iter::<String>();
        let mut name = || names.next().transpose().map_err(|_| ListingError::Cut);
        Ok(Self {
            kind: kinds.into_iter().find(|one| one.as_str() == kind).ok_or(ListingError::Cut)?,
            mode: some(mode),
            owner: some(owner),
            size: size.parse().map_err(|_| ListingError::Cut)?,
            sha256: some(sha256).map(|text| text.parse()).transpose().map_err(|_| ListingError::Cut)?,
            path: name()?.ok_or(ListingError::Cut)?,
            target: name()?,
        })
    }
}

/// The listing of an archive as text; only its number of entries where that is too long.
pub fn write(archive: Digest, entries: &[Entry]) -> String {
    let mut text = format!("{HEAD} {archive}: {} entries\n", entries.len());
    for entry in entries {
        text.push_str(&entry.to_string());
        text.push('\n');
        if text.len() > MAX_LISTING_BYTES {
            return format!("{HEAD} {archive}: too long, {} entries\n", entries.len());
        }
    }
    text
}

/// The entries of an archive, from a text with its listing.
pub fn read(text: &str, archive: Digest) -> Result<Vec<Entry>, ListingError> {
    let head = format!("{HEAD} {archive}: ");
    let mut lines = text.lines();
    let count = lines.find_map(|line| line.strip_prefix(&head)).ok_or(ListingError::Missing)?;
    let number = |text: &str| text.strip_suffix(" entries").and_then(|n| n.parse().ok());
    if let Some(count) = count.strip_prefix("too long, ").and_then(number) {
        return Err(ListingError::TooLong(count));
    }
    let count: usize = number(count).ok_or(ListingError::Cut)?;
    let entries: Vec<Entry> = lines.take(count).map(str::parse).collect::<Result<_, _>>()?;
    if entries.len() == count { Ok(entries) } else { Err(ListingError::Cut) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let file = Entry {
            kind: EntryKind::File,
            mode: Some("0640".into()),
            owner: Some("0:107".into()),
            size: 12,
            sha256: Some(Digest::of(b"a")),
            path: "/etc/edge fw/a\nlisting of \"archive\" -> \u{202e}".into(),
            target: None,
        };
        let link = Entry {
            kind: EntryKind::Link,
            sha256: None,
            target: Some("../b c".into()),
            path: "/etc/l".into(),
            ..file.clone()
        };
        let table = Entry { kind: EntryKind::Table, mode: None, owner: None, target: None, ..link.clone() };
        vec![file, link, table]
    }

    #[test]
    fn what_is_written_is_read_whatever_the_names_are() {
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let text = format!("words\n{}{}", write(other, &[]), write(one, &entries()));
        assert_eq!(text.lines().count(), 6, "no name makes a line of its own: {text}");
        assert_eq!(read(&text, one), Ok(entries()));
        assert_eq!(read(&text, other), Ok(vec![]));
        assert_eq!(read(&text, Digest::of(b"none")), Err(ListingError::Missing));
    }

    #[test]
    fn a_listing_that_was_cut_is_none() {
        let archive = Digest::of(b"one");
        let text = write(archive, &entries());
        for at in (0..text.len() - 1).filter(|at| text.is_char_boundary(*at)) {
            // Up to its last name's end the last line is one that could be whole.
            let cut = read(&text[..at], archive);
            assert!(matches!(cut, Err(ListingError::Cut | ListingError::Missing)), "{:?}", &text[..at]);
        }
        let marked = text.replacen("link ", "[12 bytes left out]\nlink ", 1);
        assert_eq!(read(&marked, archive), Err(ListingError::Cut));
    }

    #[test]
    fn a_listing_that_is_too_long_says_how_long_it_is() {
        let many = vec![entries().remove(0); 10_000];
        let text = write(Digest::of(b"one"), &many);
        assert!(text.len() < 200);
        assert_eq!(read(&text, Digest::of(b"one")), Err(ListingError::TooLong(10_000)));
    }
}
