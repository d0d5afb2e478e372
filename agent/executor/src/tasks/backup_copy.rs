//! The encrypted copy of an archive: made beside it, and on its way to the controller once the job's report is made.
//!
//! It is encrypted on the node to the recipients of the signed profile, whose keys the controller lacks (docs/adr/0034). It must
//! never be made in the clear, and no half of one may have its name. Called by `backup.run`.

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use fleet_types::digest::Hasher;
use fleet_types::document::ids::Id;
use fleet_types::document::profile::{Backup, BackupCopy};
use fleet_types::report::ArtifactCopy;

use super::age::{self, MAX_RECIPIENTS, Recipient};
use super::archive_error::ArchiveError;
use super::contract::{TaskContext, TaskError};
use super::deadline::Deadline;
use super::fill::Filler;
use crate::host::{FileError, FileProblem, ReadFile, WriteFile, read_all, temporary_beside};

/// Where copies go.
const TO: &str = "artifacts";
/// Largest file of recipients: a page.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// What the format adds at most: a header with all recipients, and sixteen bytes a chunk.
const HEADER_BYTES: u64 = 8 * 1024;

/// Whom a copy is encrypted to; none where no copy is declared.
pub(super) fn recipients(
    context: &TaskContext<'_>,
    id: &Id,
    backup: &Backup,
) -> Result<Option<Vec<Recipient>>, TaskError> {
    let Some(copy) = &backup.copy else { return Ok(None) };
    let declared = |why: String| TaskError::Declared(format!("backup {id}, copy: {why}"));
    if copy.to != TO {
        return Err(declared(format!("copies go to \"{TO}\" alone in this release, not to \"{}\"", copy.to)));
    }
    let mut lines = copy.encrypt_to.clone();
    lines.extend(of_file(context, id, copy)?);
    if lines.is_empty() || lines.len() > MAX_RECIPIENTS {
        let count = lines.len();
        return Err(declared(format!("it names {count} recipients; give 1 to {MAX_RECIPIENTS}")));
    }
    lines.iter().map(|line| Recipient::parse(line)).collect::<Result<_, _>>().map(Some).map_err(declared)
}

fn of_file(context: &TaskContext<'_>, id: &Id, copy: &BackupCopy) -> Result<Vec<String>, TaskError> {
    let Some(path) = &copy.encrypt_to_file else { return Ok(Vec::new()) };
    let what = format!("backup {id}, copy");
    let path = Filler::new(context).path(&what, path)?;
    let bytes = read_all(context.host.files(), &path, MAX_FILE_BYTES)
        .map_err(|error| TaskError::Declared(format!("{what}: {error}")))?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

/// Makes the copy of an archive beside it.
pub(super) fn make(
    context: &TaskContext<'_>,
    copy: &BackupCopy,
    recipients: &[Recipient],
    (archive, size): (&Path, u64),
) -> Result<ArtifactCopy, ArchiveError> {
    let files = context.host.files();
    let path = copy_beside(archive);
    let folder = path.parent().unwrap_or(Path::new("/"));
    let (needed, available) = (size + size / 2048 + HEADER_BYTES, files.space(folder)?.available);
    if needed > available {
        let why = format!("the encrypted copy takes {needed} bytes, {available} are free; make room");
        return Err(FileError::new("copy into", folder, FileProblem::Full, why).into());
    }
    let temporary = temporary_beside(&path);
    match files.remove_file(&temporary) {
        Err(error) if error.problem != FileProblem::NotFound => return Err(error.into()),
        _ => {}
    }
    let made = (|| {
        let deadline = Deadline::of(context);
        let mut from = Watched { file: files.open(archive)?, deadline };
        let mut to = Counted { file: files.create(&temporary, 0o600)?, hasher: Hasher::new(), bytes: 0 };
        let encrypted = age::encrypt(recipients, from.by_ref(), &mut to);
        deadline.check()?;
        encrypted.map_err(|error| FileError::of("encrypt", &path, &error))?;
        to.file.sync()?;
        files.rename(&temporary, &path)?;
        files.sync_directory(folder)?;
        Ok(ArtifactCopy {
            path: path.display().to_string(),
            size: to.bytes,
            sha256: to.hasher.finish(),
            keep_days: copy.keep.as_ref().and_then(|keep| keep.days),
            keep_count: copy.keep.as_ref().and_then(|keep| keep.count),
        })
    })();
    if made.is_err() {
        // The reason stands in the error already; what cannot be removed now is removed by the next run.
        let _ = files.remove_file(&temporary);
    }
    made
}

/// Where the copy of an archive lies until the controller has it.
pub(super) fn copy_beside(archive: &Path) -> PathBuf {
    let mut name = archive.file_name().unwrap_or_default().to_owned();
    name.push(".age");
    archive.with_file_name(name)
}

/// Stops in the middle of a large archive.
struct Watched<'a> {
    file: Box<dyn ReadFile>,
    deadline: Deadline<'a>,
}

impl io::Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.deadline.check().map_err(io::Error::other)?;
        self.file.read(buffer)
    }
}

/// Counts and digests what is written.
struct Counted {
    file: Box<dyn WriteFile>,
    hasher: Hasher,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use fleet_types::digest::Digest;

    use crate::tasks::testing::{Bench, With};

    const KEY: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    fn bench(copy: &str) -> (Bench, With) {
        let bench = Bench::new(&format!(
            "[backup.config]\nkind = \"files\"\nsources = [\"/etc/edgefw\"]\ndirectory = \"/var/backups\"\n\
             file_name = \"config-{{timestamp}}.tar.gz\"\nkeep = {{ count = 1 }}\ncopy = {copy}\n"
        ));
        bench.file("/etc/edgefw/firewall.json", b"secret rules");
        let with = bench.with(r#"{"backup":"config"}"#);
        (bench, with)
    }

    #[test]
    fn z04_a_copy_is_made_that_only_its_recipients_read() {
        let (bench, with) =
            bench("{ to = \"artifacts\", encrypt_to_file = \"/etc/keys.txt\", keep = { days = 30 } }");
        bench.file("/etc/keys.txt", format!("# the safe\n\n {KEY}\n").as_bytes());
        bench.plan("backup.run", &with).unwrap();
        let report = bench.apply("backup.run", &with).unwrap();
        assert_eq!(report.problems, []);
        let artifact = &report.artifacts[0];
        let copy = artifact.copy.as_ref().unwrap();
        assert_eq!(copy.path, format!("{}.age", artifact.path));
        let bytes = std::fs::read(bench.at(&copy.path)).unwrap();
        assert_eq!((copy.size, copy.sha256), (bytes.len() as u64, Digest::of(&bytes)));
        assert_eq!((copy.keep_days, copy.keep_count), (Some(30), None));
        assert!(bytes.starts_with(b"age-encryption.org/v1\n-> X25519 "));
        assert_eq!(std::fs::metadata(bench.at(&copy.path)).unwrap().permissions().mode() & 0o777, 0o600);
        // Carried out again after a crash there is one archive and one copy, and the copy is no archive.
        let again = bench.apply("backup.run", &with).unwrap();
        assert_eq!(again.artifacts[0].sha256, artifact.sha256);
        assert_eq!(bench.names("/var/backups").len(), 3, "{:?}", bench.names("/var/backups"));
        let verify = bench.with(r#"{"backups":["config"]}"#);
        assert!(bench.apply("backup.verify", &verify).unwrap().artifacts[0].copy.is_none());
    }

    #[test]
    fn what_cannot_be_encrypted_is_said_before_anything_is_made() {
        for (copy, why) in [
            ("{ to = \"artifacts\" }", "it names 0 recipients"),
            ("{ to = \"artifacts\", encrypt_to = [\"age1x\"] }", "is no recipient of age"),
            ("{ to = \"s3:x\", encrypt_to = [\"age1x\"] }", "not to \"s3:x\""),
            ("{ to = \"artifacts\", encrypt_to_file = \"/etc/none\" }", "/etc/none"),
        ] {
            let (bench, with) = bench(copy);
            for outcome in
                [bench.plan("backup.run", &with).map(drop), bench.apply("backup.run", &with).map(drop)]
            {
                let error = outcome.unwrap_err().to_string();
                assert!(error.contains(why), "{copy}: {error}");
            }
            assert!(bench.names("/var/backups").is_empty(), "{copy}");
        }
    }

    #[test]
    fn a_copy_that_fails_leaves_a_good_archive_and_says_so() {
        let (bench, with) = bench(&format!("{{ to = \"artifacts\", encrypt_to = [\"{KEY}\"] }}"));
        bench.apply("backup.run", &with).unwrap();
        let archive = bench.names("/var/backups")[0].clone();
        std::fs::remove_file(bench.at(&format!("/var/backups/{archive}.age"))).unwrap();
        // The archive is there already; only its copy is to be written.
        bench.host.script().disk_left = Some(100);
        let (message, report) = bench.failure("backup.run", &with);
        assert!(message.contains("the archive is good, its copy failed"), "{message}");
        assert!(report.problems.iter().any(|problem| problem.code == "disk_full"), "{:?}", report.problems);
        assert_eq!((report.artifacts.len(), report.artifacts[0].copy.is_some()), (1, false));
        bench.host.script().disk_left = None;
        let names = bench.names("/var/backups");
        assert!(!names.iter().any(|name| name.contains("age")), "{names:?}");
        assert!(bench.apply("backup.run", &with).unwrap().artifacts[0].copy.is_some());
    }
}
