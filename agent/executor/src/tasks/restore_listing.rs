//! What an archive would write, checked whole before the first write: regular files and folders inside the declared sources,
//! under names that lead nowhere else (security-and-delivery §1.18).
//!
//! It must never trust an archive because its digest is right: who could change the archive could change the checksum beside it.
//! Called by `backup.restore`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use flate2::bufread::GzDecoder;

use super::archive::{MANIFEST, ON_DISK};
use super::archive_error::ArchiveError;
use super::deadline::Deadline;
use crate::host::{Dress, FileError, Files, Glob, WriteFile};

/// Most members: as many as a manifest may list.
const MAX_MEMBERS: usize = 500_000;
/// Deepest folder. Real configurations have a dozen levels; paths of Linux end at 4,096 bytes.
const MAX_DEPTH: usize = 64;
/// Largest content: no firewall's disk is larger, and sums stay far from their end. How much of it there is room for is asked as
/// well, and gzip itself never packs more than 1,032 to one.
const MAX_CONTENT_BYTES: u64 = 1 << 44;
/// What a file system gives out, as a rule: holes are whole ones of these.
const PAGE_BYTES: usize = 4096;
/// Names of PAX records with extended attributes.
const ATTRIBUTE: &str = "SCHILY.xattr.";
/// Attributes that are put back. Not capabilities, which give rights as setuid does.
const ATTRIBUTES: [&str; 3] = ["user.", "system.posix_acl_", "security.selinux"];

/// One member that is to be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// Where it goes, as declared.
    pub(super) path: PathBuf,
    /// A folder, else a regular file.
    pub(super) is_folder: bool,
    /// Bytes of its content.
    pub(super) size: u64,
    /// Bytes that it took on the disk, where it had holes.
    pub(super) on_disk: Option<u64>,
    /// What it has beside its content.
    pub(super) dress: Dress,
}

/// Which members are wanted.
pub(super) struct Scope {
    /// The declared sources.
    pub(super) sources: Vec<Glob>,
    /// Parts of them; empty is all.
    pub(super) only: Vec<PathBuf>,
}

impl Scope {
    /// Is it inside a declared source?
    pub(super) fn declares(&self, path: &Path) -> bool {
        self.sources.iter().any(|source| source.covers(path))
    }

    /// Is it asked for?
    pub(super) fn wants(&self, path: &Path) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| path.starts_with(part))
    }
}

/// Reads all headers of an archive. Calls `each` with every wanted member and its content; members come in the archive's order.
pub(super) fn read(
    files: &dyn Files,
    archive: &Path,
    scope: &Scope,
    deadline: Deadline<'_>,
    mut each: impl FnMut(&Item, &mut dyn Read) -> Result<(), ArchiveError>,
) -> Result<Vec<Item>, ArchiveError> {
    let damaged = |why: String| ArchiveError::Damaged { path: archive.to_owned(), why };
    let broken = |e: io::Error| damaged(format!("it cannot be read: {e}"));
    let gzip = GzDecoder::new(BufReader::with_capacity(256 * 1024, files.open(archive)?));
    let mut tar = tar::Archive::new(gzip);
    let (mut items, mut seen, mut content, mut count) = (Vec::new(), BTreeSet::new(), 0u64, 0usize);
    for entry in tar.entries().map_err(broken)? {
        deadline.check()?;
        let mut entry = entry.map_err(broken)?;
        let name = entry.path_bytes().into_owned();
        if name == MANIFEST.as_bytes() {
            continue;
        }
        let shown = String::from_utf8_lossy(&name).into_owned();
        let refused = |why: &str| damaged(format!("{shown:?} {why}; nothing of it is restored"));
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_dir()) {
            return Err(refused("is no regular file and no folder"));
        }
        let path = declared(&name).ok_or_else(|| refused("is no plain path below the root"))?;
        if !scope.declares(&path) {
            return Err(refused("is outside of the declared sources"));
        }
        let mode = entry.header().mode().map_err(broken)?;
        if mode & 0o7000 != 0 {
            return Err(refused("has setuid, setgid or the sticky bit"));
        }
        count += 1;
        content = content.saturating_add(entry.size());
        if count > MAX_MEMBERS || content > MAX_CONTENT_BYTES {
            return Err(refused("is one too many, or too large"));
        }
        // One path twice would write through what the first one made.
        if !seen.insert(path.clone()) {
            return Err(refused("is in it twice"));
        }
        if !scope.wants(&path) {
            continue;
        }
        let Records { attributes, on_disk } = records(&mut entry).map_err(broken)?;
        let header = entry.header();
        let number = |value: io::Result<u64>| value.map_err(broken);
        let item = Item {
            is_folder: kind.is_dir(),
            size: entry.size(),
            on_disk: on_disk.filter(|on_disk| *on_disk < entry.size()),
            dress: Dress {
                uid: u32::try_from(number(header.uid())?).map_err(|_| refused("has no owner that can be"))?,
                gid: u32::try_from(number(header.gid())?).map_err(|_| refused("has no group that can be"))?,
                mode,
                modified_seconds: i64::try_from(number(header.mtime())?).unwrap_or(0),
                attributes,
            },
            path,
        };
        each(&item, &mut entry)?;
        items.push(item);
    }
    // A file that is a folder of another one would be written through.
    let folders: BTreeSet<&Path> = items.iter().filter(|i| !i.is_folder).map(|i| i.path.as_path()).collect();
    let through =
        items.iter().find(|item| item.path.ancestors().skip(1).any(|above| folders.contains(above)));
    match through {
        Some(item) => Err(damaged(format!("{} lies below a file", item.path.display()))),
        None => Ok(items),
    }
}

/// The PAX records of a member that mean something here.
fn records(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Records> {
    let mut found = Records::default();
    let Some(records) = entry.pax_extensions()? else { return Ok(found) };
    for record in records {
        let record = record?;
        match record.key() {
            Ok(ON_DISK) => found.on_disk = record.value().ok().and_then(|value| value.parse().ok()),
            Ok(key) => {
                let Some(name) = key.strip_prefix(ATTRIBUTE) else { continue };
                if ATTRIBUTES.iter().any(|allowed| name.starts_with(allowed)) {
                    found.attributes.push((name.to_owned(), record.value_bytes().to_vec()));
                }
            }
            Err(_) => {}
        }
    }
    Ok(found)
}

/// What the PAX records of a member say.
#[derive(Default)]
struct Records {
    attributes: Vec<(String, Vec<u8>)>,
    on_disk: Option<u64>,
}

/// The declared path of a member's name: relative, without `.` or `..`, and not too deep.
fn declared(name: &[u8]) -> Option<PathBuf> {
    if name.contains(&0) || name.is_empty() {
        return None;
    }
    let relative = Path::new(OsStr::from_bytes(name));
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && relative.components().count() <= MAX_DEPTH).then(|| Path::new("/").join(relative))
}

/// Writes the content of a member into a new file, and makes it durable.
pub(super) fn unpack(
    files: &dyn Files,
    item: &Item,
    content: &mut dyn Read,
    to: &Path,
    deadline: Deadline<'_>,
) -> Result<(), ArchiveError> {
    let mut file = files.create(to, 0o600)?;
    let (mut chunk, mut hole) = (vec![0; 256 * 1024], 0);
    loop {
        deadline.check()?;
        match content.read(&mut chunk).map_err(|e| FileError::of("unpack", to, &e))? {
            0 => break,
            count if item.on_disk.is_some() => hole = sparse(&mut *file, &chunk[..count], hole, to)?,
            count => file.write_all(&chunk[..count]).map_err(|e| FileError::of("write", to, &e))?,
        }
    }
    if hole > 0 {
        file.skip(hole)?;
    }
    file.sync()?;
    drop(file);
    Ok(files.dress(to, &item.dress)?)
}

/// Writes what is not zero of a chunk behind a hole that is still to be left; gives the hole at its end.
fn sparse(file: &mut dyn WriteFile, chunk: &[u8], mut hole: u64, to: &Path) -> Result<u64, FileError> {
    for page in chunk.chunks(PAGE_BYTES) {
        if page.iter().all(|byte| *byte == 0) {
            hole += page.len() as u64;
            continue;
        }
        if hole > 0 {
            file.skip(std::mem::take(&mut hole))?;
        }
        file.write_all(page).map_err(|e| FileError::of("write", to, &e))?;
    }
    Ok(hole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_plain_path_or_none() {
        assert_eq!(declared(b"etc/edgefw/a.json"), Some(PathBuf::from("/etc/edgefw/a.json")));
        for bad in ["", "/etc/passwd", "../etc/passwd", "etc/../../x", "./../x", "etc/\0x"] {
            assert_eq!(declared(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(declared("d/".repeat(MAX_DEPTH + 1).as_bytes()), None);
    }
}
