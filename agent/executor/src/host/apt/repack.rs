//! An archive put together again from the files of an installed package: the way back where nobody has the old one.
//!
//! Files are taken as they lie on the node, changed configuration included; what was deleted is missing. The format is
//! `deb(5)`: an `ar` archive of a control and a data tar, which dpkg takes uncompressed. It only reads the node. Called by
//! the backend.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::super::files::{FileError, FileKind, FileProblem, Files, Stat, read_all};
use super::super::packages::{Build, PackageError, PackageFault, PackageResult};
use super::super::program::is_rooted;
use super::database::STATUS;

/// Where dpkg keeps what packages brought.
const INFO: &str = "/var/lib/dpkg/info";
/// Where dpkg keeps which files it puts elsewhere.
const DIVERSIONS: &str = "/var/lib/dpkg/diversions";
/// Largest file of dpkg's that is read.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Size of a member's header in an `ar` archive.
const MEMBER_HEADER_BYTES: u64 = 60;

/// What an installed package is made of.
pub(super) struct Parts {
    control: String,
    scripts: Vec<(String, Vec<u8>, u32)>,
    files: Vec<(PathBuf, PathBuf)>,
}

fn of_file(error: &FileError) -> PackageError {
    PackageError::new(PackageFault::NotKept, error.to_string())
}

fn of_io(error: &io::Error) -> PackageError {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let fault = if full { PackageFault::LittleSpace } else { PackageFault::NotKept };
    PackageError::new(fault, format!("repacking: {error}"))
}

fn text(files: &dyn Files, path: &Path) -> PackageResult<String> {
    let bytes = read_all(files, path, MAX_FILE_BYTES).map_err(|e| of_file(&e))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The configuration files that dpkg's own notes name for an installed package.
pub(super) fn config_files(files: &dyn Files, build: &Build) -> PackageResult<Vec<PathBuf>> {
    for stem in stems(build) {
        match read_all(files, &Path::new(INFO).join(format!("{stem}.conffiles")), MAX_FILE_BYTES) {
            Ok(bytes) => return Ok(paths(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.problem == FileProblem::NotFound => {}
            Err(error) => return Err(of_file(&error)),
        }
    }
    Ok(Vec::new())
}

/// Lines of a `conffiles` file (`deb-conffiles(5)`): a path, or a flag and a path.
pub(super) fn paths(text: &str) -> Vec<PathBuf> {
    text.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(line[at..].trim_end()))).collect()
}

/// The names under which dpkg keeps what a package brought.
fn stems(build: &Build) -> [String; 2] {
    let name = build.name.split(':').next().unwrap_or(&build.name);
    [name.to_owned(), format!("{name}:{}", build.architecture)]
}

/// Gathers an installed package, and says how large its archive will be about.
pub(super) fn gather(files: &dyn Files, build: &Build) -> PackageResult<(Parts, u64)> {
    let control = control(&text(files, Path::new(STATUS))?, build)?;
    let stems = stems(build);
    let mut scripts = Vec::new();
    let mut listed = None;
    for entry in files.list(Path::new(INFO)).map_err(|e| of_file(&e))? {
        let Some(name) = entry.path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some((stem, kind)) = name.rsplit_once('.') else { continue };
        if !stems.iter().any(|own| own == stem) {
            continue;
        }
        let bytes = read_all(files, &entry.path, MAX_FILE_BYTES).map_err(|e| of_file(&e))?;
        if kind == "list" {
            listed = Some(String::from_utf8_lossy(&bytes).into_owned());
        } else {
            scripts.push((kind.to_owned(), bytes, entry.stat.mode & 0o777));
        }
    }
    let listed = listed.ok_or_else(|| {
        PackageError::new(PackageFault::NotKept, format!("{build}: dpkg has no list of its files"))
    })?;
    let diverted = diversions(files, &stems[0])?;
    let paths = listed.lines().filter(|line| *line != "/.").map(PathBuf::from);
    let paths: Vec<_> =
        paths.map(|path| (diverted.get(&path).cloned().unwrap_or_else(|| path.clone()), path)).collect();
    let sizes = paths.iter().filter_map(|(real, _)| files.stat(real).ok());
    // A header and the rest of a block for each file, at most.
    let size = sizes.map(|stat| stat.size + 1024).sum::<u64>() + 64 * 1024;
    Ok((Parts { control, scripts, files: paths }, size))
}

/// The stanza of a package without what belongs to the node (`deb-control(5)`).
fn control(status: &str, build: &Build) -> PackageResult<String> {
    let name = build.name.split(':').next().unwrap_or(&build.name);
    let of = |stanza: &&str| {
        let has = |line: String| stanza.lines().any(|found| found == line);
        has(format!("Package: {name}"))
            && has(format!("Version: {}", build.version))
            && has(format!("Architecture: {}", build.architecture))
    };
    let stanza = status.split("\n\n").find(of).ok_or_else(|| {
        PackageError::new(PackageFault::NotKept, format!("{build} is not what is installed"))
    })?;
    let (mut control, mut kept) = (String::new(), true);
    for line in stanza.lines() {
        if !line.starts_with([' ', '\t']) {
            kept = !["Status:", "Config-Version:", "Conffiles:"].iter().any(|own| line.starts_with(own));
        }
        if kept {
            control.push_str(line);
            control.push('\n');
        }
    }
    Ok(control)
}

/// From a package's path to where dpkg put it instead, unless this package is the one that it was moved aside for.
fn diversions(files: &dyn Files, name: &str) -> PackageResult<BTreeMap<PathBuf, PathBuf>> {
    let text = match read_all(files, Path::new(DIVERSIONS), MAX_FILE_BYTES) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.problem == FileProblem::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(of_file(&error)),
    };
    let lines: Vec<&str> = text.lines().collect();
    let triples = lines.chunks_exact(3).filter(|triple| triple[2] != name);
    Ok(triples.map(|triple| (PathBuf::from(triple[0]), PathBuf::from(triple[1]))).collect())
}

/// Writes the archive.
pub(super) fn write(files: &dyn Files, parts: &Parts, file: &mut File) -> PackageResult<()> {
    file.write_all(b"!<arch>\n").map_err(|e| of_io(&e))?;
    member(file, "debian-binary", |file| file.write_all(b"2.0\n").map_err(|e| of_io(&e)))?;
    member(file, "control.tar", |file| {
        let mut tar = Builder::new(file);
        let mut add = |name: &str, bytes: &[u8], mode| {
            let mut header = Header::new_gnu();
            header.set_mode(mode);
            header.set_size(bytes.len() as u64);
            header.set_entry_type(EntryType::Regular);
            tar.append_data(&mut header, name, bytes).map_err(|e| of_io(&e))
        };
        add("control", parts.control.as_bytes(), 0o644)?;
        for (name, bytes, mode) in &parts.scripts {
            add(name, bytes, *mode)?;
        }
        tar.finish().map_err(|e| of_io(&e))
    })?;
    member(file, "data.tar", |file| {
        let mut tar = Builder::new(file);
        for (real, path) in &parts.files {
            add_file(files, &mut tar, real, path)?;
        }
        tar.finish().map_err(|e| of_io(&e))
    })
}

fn add_file(files: &dyn Files, tar: &mut Builder<&mut File>, real: &Path, path: &Path) -> PackageResult<()> {
    let stat = match files.stat(real) {
        Ok(stat) => stat,
        // Somebody deleted it: the package as it is here has it no more.
        Err(error) if error.problem == FileProblem::NotFound => return Ok(()),
        Err(error) => return Err(of_file(&error)),
    };
    let name = path.strip_prefix("/").unwrap_or(path);
    let mut header = header(files, &stat);
    match stat.kind {
        FileKind::Directory => {
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            tar.append_data(&mut header, name, io::empty()).map_err(|e| of_io(&e))
        }
        FileKind::Link => {
            let target = files.read_link(real).map_err(|e| of_file(&e))?;
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, name, target).map_err(|e| of_io(&e))
        }
        FileKind::Regular => {
            let open = files.canonical(real).and_then(|real| files.open(&real)).map_err(|e| of_file(&e))?;
            let size = open.stat().map_err(|e| of_file(&e))?.size;
            header.set_entry_type(EntryType::Regular);
            header.set_size(size);
            // A file that shrinks meanwhile would shift all that follows.
            let mut content = Exactly { from: open, left: size };
            tar.append_data(&mut header, name, &mut content).map_err(|e| of_io(&e))?;
            if content.left > 0 {
                let message = format!("{} changed while it was repacked", path.display());
                return Err(PackageError::new(PackageFault::NotKept, message));
            }
            Ok(())
        }
        FileKind::Special => {
            let message = format!("{} is a device, which cannot be repacked", path.display());
            Err(PackageError::new(PackageFault::NotKept, message))
        }
    }
}

/// At most so many bytes of a file, and how many came short.
struct Exactly<R> {
    from: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.from.read(&mut buffer[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}

fn header(files: &dyn Files, stat: &Stat) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(stat.mode & 0o7777);
    // On a development node everything is its owner's, and means root's.
    let (uid, gid) = if is_rooted(files) { (0, 0) } else { (stat.uid, stat.gid) };
    header.set_uid(u64::from(uid));
    header.set_gid(u64::from(gid));
    header.set_mtime(u64::try_from(stat.modified_seconds).unwrap_or(0));
    header
}

/// One member of an `ar` archive, its size written when it is known.
fn member(
    file: &mut File,
    name: &str,
    write: impl FnOnce(&mut File) -> PackageResult<()>,
) -> PackageResult<()> {
    let start = file.stream_position().map_err(|e| of_io(&e))?;
    let head = |size: u64| format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 100_644);
    file.write_all(head(0).as_bytes()).map_err(|e| of_io(&e))?;
    write(file)?;
    let end = file.stream_position().map_err(|e| of_io(&e))?;
    let size = end - start - MEMBER_HEADER_BYTES;
    let sized = (|| {
        file.seek(SeekFrom::Start(start))?;
        file.write_all(head(size).as_bytes())?;
        file.seek(SeekFrom::Start(end))?;
        // Members begin at even places.
        if size % 2 == 1 { file.write_all(b"\n") } else { Ok(()) }
    })();
    sized.map_err(|e| of_io(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stanza_keeps_what_is_of_the_package() {
        let status = "Package: fw\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0\nConffiles:\n /etc/a 0123\n \
                      /etc/b 4567 obsolete\nDescription: x\n more\n\nPackage: lib\nArchitecture: amd64\nVersion: 1.0\n";
        let build = |version: &str| Build {
            name: "fw".into(),
            version: version.into(),
            architecture: "amd64".into(),
        };
        let expected = "Package: fw\nArchitecture: amd64\nVersion: 1.0\nDescription: x\n more\n";
        assert_eq!(control(status, &build("1.0")).unwrap(), expected);
        assert_eq!(control(status, &build("1.1")).unwrap_err().fault, PackageFault::NotKept);
    }

    #[test]
    fn paths_of_configuration_may_have_a_flag_before_them() {
        assert_eq!(
            paths("/etc/a\nremove-on-upgrade /etc/b c\n\n"),
            [Path::new("/etc/a"), Path::new("/etc/b c")]
        );
    }
}
