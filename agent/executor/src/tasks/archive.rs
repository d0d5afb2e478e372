//! Backup archives: writing one in a single pass, and reading one back against its manifest.
//!
//! An archive is `tar` in `gzip`. Its last member is `manifest.json` with path, size, mode, owner and digest of
//! everything in it; the comment in the gzip header says whose it is, so that archives can be listed without
//! unpacking them. Only regular files and folders are members, because nothing else is ever restored
//! (security-and-delivery §1.18); links are noted in the manifest, and so is what went away or has no content.
//! Extended attributes stand in PAX records, as `tar --xattrs` writes them. It must never leave a half archive under a
//! final name; that is the business of `backup_run`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};
use fleet_types::digest::{Digest, Hasher};
use fleet_types::id::{NodeId, RunId};
use fleet_types::listing::{self, Entry, EntryKind};
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::archive_error::ArchiveError;
use super::contract::OutputSink;
use super::database;
use super::deadline::Deadline;
use crate::host::{FileError, FileKind, FileProblem, Files, Found, ReadFile, Stat, WriteFile};

/// Schema of comment and manifest.
const SCHEMA: &str = "fleet/v1/backup";
/// The last member.
pub(super) const MANIFEST: &str = "manifest.json";
/// Between file, compressor and disk: large enough that system calls cost nothing beside compressing.
const BUFFER_BYTES: usize = 256 * 1024;
/// The PAX record of a file with holes: its bytes on the disk. Its zeros are in the archive, where they compress to
/// nearly nothing; a restore leaves them out again.
pub(super) const ON_DISK: &str = "FLEET.on-disk";
/// Blocks between packing and compressing: one megabyte evens out files that are slow to open.
const BLOCKS: usize = 4;
/// Largest manifest that is read back: 500,000 entries.
const MAX_MANIFEST_BYTES: u64 = 256 * 1024 * 1024;

/// Whose archive it is: the comment of the gzip header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    /// [`SCHEMA`].
    pub(super) schema: String,
    /// Id of the backup in the profile.
    pub(super) backup: String,
    /// Tag, by default the run.
    pub(super) tag: String,
    /// The run.
    pub(super) run: RunId,
    /// The node.
    pub(super) node: NodeId,
    /// Start of its job.
    pub(super) made: Timestamp,
}

impl Label {
    pub(super) fn new(backup: &str, tag: &str, run: RunId, node: NodeId, made: Timestamp) -> Self {
        Self { schema: SCHEMA.to_owned(), backup: backup.to_owned(), tag: tag.to_owned(), run, node, made }
    }
}

/// One entry of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    /// Absolute path as declared. Bytes that are no UTF-8 are replaced; `raw_path` has them.
    pub(super) path: String,
    /// The exact bytes of a path that is no UTF-8, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) raw_path: Option<String>,
    /// `file`, `directory` or `link`.
    pub(super) kind: String,
    /// Bytes.
    pub(super) size: u64,
    /// Permission bits, with setuid, setgid and sticky.
    pub(super) mode: u32,
    /// Owner.
    pub(super) uid: u32,
    /// Group.
    pub(super) gid: u32,
    /// Digest of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<Digest>,
    /// Where a link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<String>,
    /// Names of its extended attributes, whose values are in the archive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) attributes: Vec<String>,
    /// The member that is the same file under another name; a restore makes two of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) same_as: Option<String>,
}

impl Member {
    /// As a listing has it.
    fn entry(&self) -> Entry {
        let raw = self.raw_path.as_deref().and_then(fleet_types::digest::unhex);
        Entry {
            kind: match self.kind.as_str() {
                "directory" => EntryKind::Directory,
                "link" => EntryKind::Link,
                _ => EntryKind::File,
            },
            mode: Some(format!("{:04o}", self.mode)),
            owner: Some(format!("{}:{}", self.uid, self.gid)),
            size: self.size,
            sha256: self.sha256,
            path: raw.map_or_else(|| self.path.clone(), |raw| exact(&raw)),
            target: self.target.clone(),
        }
    }
}

/// A path that is no UTF-8, each byte of it to be seen.
fn exact(path: &[u8]) -> String {
    path.utf8_chunks().fold(String::new(), |mut text, chunk| {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
        text
    })
}

/// Something that was found and is not in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeftOut {
    /// Absolute path as declared.
    pub(super) path: String,
    /// `vanished` or `special`.
    pub(super) why: String,
}

/// The last member of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Whose archive it is.
    pub(super) label: Label,
    /// What is in it.
    pub(super) members: Vec<Member>,
    /// What was found and is not in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) left_out: Vec<LeftOut>,
}

/// A written or verified archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Summary {
    /// Bytes of the archive.
    pub(super) size: u64,
    /// Digest of the archive.
    pub(super) sha256: Digest,
    /// Files in it.
    pub(super) files: usize,
    /// Bytes of the files in it.
    pub(super) content: u64,
    /// Links that are noted and not in it.
    pub(super) links: usize,
    /// Files that are another name of a file in it.
    pub(super) same: usize,
    /// What was found and is not in it.
    pub(super) left_out: Vec<LeftOut>,
    /// Whose it is.
    pub(super) label: Label,
    /// What is in it, for people and for comparing it; none where nobody counted.
    pub(super) listing: Option<String>,
}

impl Summary {
    /// Prints what is in it: the controller keeps it with the output, so that archives are compared when the node is down.
    pub(super) fn list(&self, output: &dyn OutputSink) {
        if let Some(listing) = &self.listing {
            // Behind what a program of the server may have left without an end.
            output.write(format!("\n{listing}").as_bytes());
        }
    }
}

/// Counts and digests what goes through.
struct Hashing<T> {
    inner: T,
    hasher: Hasher,
    bytes: u64,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self { inner, hasher: Hasher::new(), bytes: 0 }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Writes everything that was found into an open file, in one pass, and makes it durable.
pub(super) fn write(
    files: &dyn Files,
    found: &[Found],
    label: &Label,
    mut to: Box<dyn WriteFile>,
    deadline: Deadline<'_>,
) -> Result<Summary, ArchiveError> {
    let summary = stream(files, found, label, &mut to, deadline)?;
    to.sync()?;
    Ok(summary)
}

/// Compressing takes nine tenths of the time, so it has a thread of its own; this one reads, digests and packs.
fn stream(
    files: &dyn Files,
    found: &[Found],
    label: &Label,
    to: impl Write + Send,
    deadline: Deadline<'_>,
) -> Result<Summary, ArchiveError> {
    let comment = serde_json::to_vec(label).map_err(|e| ArchiveError::Write(e.into()))?;
    let (send, receive) = sync_channel(BLOCKS);
    std::thread::scope(|scope| {
        let compressing = scope.spawn(move || compress(&receive, comment, to));
        let packed = pack(files, found, label, Blocks::new(send), deadline);
        let compressed = compressing
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the compressor ended unexpectedly")))
            .map_err(ArchiveError::Write);
        // Where compressing failed, packing failed only because nobody took its blocks.
        let (size, sha256) = match (&packed, compressed) {
            (Err(ArchiveError::Write(_)) | Ok(_), Err(error)) => return Err(error),
            (_, Ok(done)) => done,
            (Err(_), Err(_)) => (0, Digest::of(b"")),
        };
        let manifest = packed?;
        let files = manifest.members.iter().filter(|m| m.kind == "file").count();
        Ok(summary(size, sha256, files, manifest))
    })
}

fn summary(size: u64, sha256: Digest, files: usize, manifest: Manifest) -> Summary {
    Summary {
        size,
        sha256,
        files,
        content: manifest.members.iter().map(|m| m.size).sum(),
        links: manifest.members.iter().filter(|m| m.kind == "link").count(),
        same: manifest.members.iter().filter(|m| m.same_as.is_some()).count(),
        listing: Some(listing::write(
            sha256,
            &manifest.members.iter().map(Member::entry).collect::<Vec<_>>(),
        )),
        left_out: manifest.left_out,
        label: manifest.label,
    }
}

/// Packs everything and the manifest at its end.
fn pack(
    files: &dyn Files,
    found: &[Found],
    label: &Label,
    to: Blocks,
    deadline: Deadline<'_>,
) -> Result<Manifest, ArchiveError> {
    let mut tar = tar::Builder::new(to);
    let (mut members, mut left_out) = (Vec::with_capacity(found.len()), Vec::new());
    let mut names: HashMap<(u64, u64), String> = HashMap::new();
    for one in found {
        deadline.check()?;
        let appended = append(files, one, &mut tar, deadline)?;
        let path = one.declared.to_string_lossy();
        match appended {
            Appended::Member(mut member) => {
                if one.stat.kind == FileKind::Regular && one.stat.names > 1 {
                    let file = (one.stat.device, one.stat.inode);
                    member.same_as = names.get(&file).cloned();
                    names.entry(file).or_insert_with(|| member.path.clone());
                }
                members.push(*member);
            }
            Appended::Nothing(why) => left_out.push(LeftOut { path: path.into_owned(), why: why.to_owned() }),
        }
    }
    let manifest = Manifest { label: label.clone(), members, left_out };
    let bytes = serde_json::to_vec(&manifest).map_err(|e| ArchiveError::Write(e.into()))?;
    let made = label.made.as_millis() / 1000;
    let mut header = header(tar::EntryType::Regular, bytes.len() as u64, 0o600, made);
    tar.append_data(&mut header, MANIFEST, bytes.as_slice()).map_err(ArchiveError::Write)?;
    let mut blocks = tar.into_inner().map_err(ArchiveError::Write)?;
    blocks.flush().map_err(ArchiveError::Write)?;
    Ok(manifest)
}

/// Compresses blocks until there are no more; size and digest of what was written.
fn compress(blocks: &Receiver<Vec<u8>>, comment: Vec<u8>, to: impl Write) -> io::Result<(u64, Digest)> {
    let target = Hashing::new(BufWriter::with_capacity(BUFFER_BYTES, to));
    // No time and no name in the header: the same content gives the same bytes.
    let mut gzip = GzBuilder::new().comment(comment).write(target, Compression::new(6));
    for block in blocks {
        gzip.write_all(&block)?;
    }
    let mut target = gzip.finish()?;
    target.flush()?;
    Ok((target.bytes, target.hasher.finish()))
}

/// Collects what is packed into blocks for the compressor.
struct Blocks {
    send: SyncSender<Vec<u8>>,
    block: Vec<u8>,
}

impl Blocks {
    fn new(send: SyncSender<Vec<u8>>) -> Self {
        Self { send, block: Vec::with_capacity(BUFFER_BYTES) }
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BUFFER_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == BUFFER_BYTES {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BUFFER_BYTES));
        self.send.send(block).map_err(|_| io::Error::other("the compressor has stopped"))
    }
}

fn header(kind: tar::EntryType, size: u64, mode: u32, modified_seconds: i64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    // Setuid and setgid are noted in the manifest and never restored from an archive.
    header.set_mode(mode & 0o777);
    // Before 1970 the header has no number; the time stands in a PAX record then.
    header.set_mtime(u64::try_from(modified_seconds).unwrap_or(0));
    header
}

/// What became of something that was found.
enum Appended {
    /// It is in the archive, or noted in its manifest.
    Member(Box<Member>),
    /// It is not, for this reason.
    Nothing(&'static str),
}

/// What goes while the backup is made is noted; only what cannot be read fails it.
fn unless_gone<T>(result: Result<T, FileError>) -> Result<Option<T>, FileError> {
    match result {
        Err(error) if error.problem == FileProblem::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Writes what a header cannot hold as PAX records, and notes it.
fn append_records<W: Write>(
    tar: &mut tar::Builder<W>,
    member: &mut Member,
    attributes: Vec<(String, Vec<u8>)>,
    stat: &Stat,
) -> io::Result<()> {
    let mut records: Vec<(String, Vec<u8>)> = Vec::new();
    records.extend(stat.sparse().map(|on_disk| (ON_DISK.to_owned(), on_disk.to_string().into_bytes())));
    if stat.modified_seconds < 0 {
        records.push(("mtime".to_owned(), stat.modified_seconds.to_string().into_bytes()));
    }
    for (name, value) in attributes {
        records.push((format!("SCHILY.xattr.{name}"), value));
        member.attributes.push(name);
    }
    if records.is_empty() {
        return Ok(());
    }
    tar.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
}

/// Appends one thing.
fn append<W: Write>(
    files: &dyn Files,
    found: &Found,
    tar: &mut tar::Builder<W>,
    deadline: Deadline<'_>,
) -> Result<Appended, ArchiveError> {
    const GONE: Appended = Appended::Nothing("vanished");
    let mut member = member(found);
    let name = found.declared.strip_prefix("/").unwrap_or(&found.declared);
    match found.stat.kind {
        FileKind::Special => return Ok(Appended::Nothing("special")),
        FileKind::Link => {
            "link".clone_into(&mut member.kind);
            let Some(target) = unless_gone(files.read_link(&found.path))? else { return Ok(GONE) };
            member.target = Some(target.to_string_lossy().into_owned());
        }
        FileKind::Directory => {
            "directory".clone_into(&mut member.kind);
            if !name.as_os_str().is_empty() {
                let Some(attributes) = unless_gone(files.attributes(&found.path))? else { return Ok(GONE) };
                let modified = found.stat.modified_seconds;
                append_records(tar, &mut member, attributes, &found.stat).map_err(ArchiveError::Write)?;
                let mut header = header(tar::EntryType::Directory, 0, member.mode, modified);
                set_owner(&mut header, &found.stat);
                tar.append_data(&mut header, name, io::empty()).map_err(ArchiveError::Write)?;
            }
        }
        FileKind::Regular => {
            let Some(file) = unless_gone(files.open(&found.path))? else { return Ok(GONE) };
            let before = file.stat()?;
            let Some(attributes) = unless_gone(files.attributes(&found.path))? else { return Ok(GONE) };
            member.size = before.size;
            let modified = before.modified_seconds;
            append_records(tar, &mut member, attributes, &before).map_err(ArchiveError::Write)?;
            let mut header = header(tar::EntryType::Regular, before.size, before.mode, modified);
            set_owner(&mut header, &before);
            let mut reading = Reading { file: Hashing::new(file), failed: false, deadline };
            let appended = tar.append_data(&mut header, name, (&mut reading).take(before.size));
            deadline.check()?;
            if reading.failed {
                let error = appended.err().unwrap_or_else(|| io::Error::other("it cannot be read"));
                return Err(FileError::of("read", &found.path, &error).into());
            }
            appended.map_err(ArchiveError::Write)?;
            let after = reading.file.inner.stat()?;
            let state = |stat: &Stat| (stat.size, stat.modified, stat.modified_seconds);
            let same = state(&after) == state(&before);
            if reading.file.bytes != before.size || !same {
                return Err(ArchiveError::Changed(found.declared.clone()));
            }
            member.sha256 = Some(reading.file.hasher.finish());
        }
    }
    Ok(Appended::Member(Box::new(member)))
}

/// Tells a file that cannot be read from an archive that cannot be written, and stops in the middle of a large one.
struct Reading<'a> {
    file: Hashing<Box<dyn ReadFile>>,
    failed: bool,
    deadline: Deadline<'a>,
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.deadline.check().map_err(io::Error::other)?;
        let count = self.file.read(buffer);
        self.failed |= count.is_err();
        count
    }
}

fn set_owner(header: &mut tar::Header, stat: &Stat) {
    header.set_uid(u64::from(stat.uid));
    header.set_gid(u64::from(stat.gid));
}

fn member(found: &Found) -> Member {
    use std::os::unix::ffi::OsStrExt;
    let text = found.declared.to_str();
    Member {
        path: found.declared.to_string_lossy().into_owned(),
        raw_path: text.is_none().then(|| fleet_types::digest::hex(found.declared.as_os_str().as_bytes())),
        kind: "file".to_owned(),
        size: 0,
        mode: found.stat.mode,
        uid: found.stat.uid,
        gid: found.stat.gid,
        sha256: None,
        target: None,
        attributes: Vec::new(),
        same_as: None,
    }
}

/// Whose archive a file is, from its first bytes, or from what lies beside a dump; none when it is not one of ours.
pub(super) fn label(files: &dyn Files, path: &Path) -> Result<Option<Label>, FileError> {
    if let Some(dump) = database::manifest_of(files, path)? {
        return Ok(Some(dump.label));
    }
    let file = BufReader::new(files.open(path)?);
    let gzip = GzDecoder::new(file);
    let label =
        gzip.header().and_then(|header| header.comment()).and_then(|c| serde_json::from_slice(c).ok());
    Ok(label.filter(|label: &Label| label.schema == SCHEMA))
}

/// Reads a whole archive: every member against the manifest, and nothing beside it. A dump is held against the digest that it
/// had when `pg_restore` had read all of it.
pub(super) fn verify(
    files: &dyn Files,
    path: &Path,
    deadline: Deadline<'_>,
) -> Result<Summary, ArchiveError> {
    if let Some(dump) = database::manifest_of(files, path)? {
        return database::verify(files, path, &dump, deadline);
    }
    let damaged = |why: String| ArchiveError::Damaged { path: path.to_owned(), why };
    let broken = |e: io::Error| damaged(format!("it cannot be read: {e}"));
    let file = Hashing::new(files.open(path)?);
    let mut gzip = GzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, file));
    let mut seen: Vec<(Vec<u8>, u64, Option<Digest>)> = Vec::new();
    let mut manifest: Option<Manifest> = None;
    {
        let mut tar = tar::Archive::new(&mut gzip);
        for entry in tar.entries().map_err(broken)? {
            deadline.check()?;
            let mut entry = entry.map_err(broken)?;
            if manifest.is_some() {
                return Err(damaged("something follows its manifest".to_owned()));
            }
            let name = entry.path_bytes().into_owned();
            if name == MANIFEST.as_bytes() {
                let read: io::Result<Manifest> =
                    serde_json::from_reader(BufReader::new((&mut entry).take(MAX_MANIFEST_BYTES)))
                        .map_err(io::Error::from);
                manifest = Some(read.map_err(broken)?);
                continue;
            }
            let is_file = entry.header().entry_type().is_file();
            let mut content = Hashing::new(Bounded { inner: &mut entry, deadline });
            let copied = io::copy(&mut content, &mut io::sink());
            deadline.check()?;
            copied.map_err(broken)?;
            let (size, sha256) = (content.bytes, content.hasher.finish());
            seen.push((name, size, is_file.then_some(sha256)));
        }
    }
    // The gzip trailer (length and checksum) is only looked at when the stream is read to its end.
    io::copy(&mut gzip, &mut io::sink()).map_err(broken)?;
    let mut rest = gzip.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(broken)?;
    let file = rest.into_inner();
    let manifest = manifest.ok_or_else(|| damaged("it has no manifest".to_owned()))?;
    compare(&manifest, &seen).map_err(damaged)?;
    let files = seen.iter().filter(|(_, _, sha256)| sha256.is_some()).count();
    Ok(summary(file.bytes, file.hasher.finish(), files, manifest))
}

/// Stops in the middle of a large member.
struct Bounded<'a, R> {
    inner: R,
    deadline: Deadline<'a>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.deadline.check().map_err(io::Error::other)?;
        self.inner.read(buffer)
    }
}

fn compare(manifest: &Manifest, seen: &[(Vec<u8>, u64, Option<Digest>)]) -> Result<(), String> {
    let expected: Vec<&Member> =
        manifest.members.iter().filter(|m| m.kind != "link" && m.path != "/").collect();
    if expected.len() != seen.len() {
        return Err(format!("its manifest lists {} members, it has {}", expected.len(), seen.len()));
    }
    for (member, (name, size, sha256)) in expected.iter().zip(seen) {
        let raw = member.raw_path.as_deref().and_then(fleet_types::digest::unhex);
        let path = raw.unwrap_or_else(|| member.path.clone().into_bytes());
        if path.strip_prefix(b"/").unwrap_or(&path) != without_slash(name) {
            return Err(format!("{} is not where its manifest has it", member.path));
        }
        if member.size != *size || member.sha256 != *sha256 {
            return Err(format!("the content of {} is not that of the manifest", member.path));
        }
    }
    Ok(())
}

/// Folders are written with a slash at their end.
fn without_slash(name: &[u8]) -> &[u8] {
    name.strip_suffix(b"/").unwrap_or(name)
}
