//! `fleetctl backup fetch`: the encrypted copy of an archive, as its node made it.
//!
//! It is checked against the digest of the node's signed report before it has its name. Nothing here decrypts: the keys are
//! their owners' (docs/adr/0034).

use std::io::Write as _;
use std::path::{Path, PathBuf};

use fleet_types::digest::{Digest, Hasher};
use fleet_types::view::{BackupItem, CopyItem};
use serde::Serialize;

use super::which::Which;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, units};
use crate::session::Session;

#[derive(Serialize)]
struct Fetched {
    file: PathBuf,
    size: u64,
    sha256: Digest,
    archive: BackupItem,
}

/// Brings a copy.
pub async fn fetch(session: &mut Session<'_>, archive: &str, to: Option<&Path>) -> Result<ExitCode, Failure> {
    let which = Which::parse(archive)?;
    let client = session.connect().await?;
    let (archives, place) = which.find(&client).await?;
    let Some(item) = archives.into_iter().nth(place) else { return Err(no_copy(archive, "it is gone")) };
    let copy = match &item.copy {
        None => return Err(no_copy(archive, "its profile declares none, or it could not be made")),
        Some(CopyItem { gone: Some(_), .. }) => {
            return Err(no_copy(archive, "it was given up by the retention of the profile"));
        }
        Some(CopyItem { stored: None, .. }) => {
            return Err(no_copy(archive, "it waits on its node until the controller takes it"));
        }
        Some(copy) => copy.clone(),
    };
    let file = to.map_or_else(|| file_of(&item), Path::to_owned);
    let unwritable = |error: &dyn std::error::Error| {
        let what = format!("{} cannot be written", file.display());
        Failure::new(ExitCode::Unexpected, "unwritable-file", what).because(error)
    };
    if file.exists() {
        return Err(
            Failure::usage(format!("{} is there already", file.display())).fix("name another with --to")
        );
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // It goes again where anything fails, and is nobody else's to read.
    let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(|error| unwritable(&error))?;
    let (mut at, mut hasher) = (0, Hasher::new());
    loop {
        let data = client.read_copy(&item, at).await?;
        if data.is_empty() || at > copy.size {
            break;
        }
        hasher.update(&data);
        at += data.len() as u64;
        temporary.write_all(&data).map_err(|error| unwritable(&error))?;
    }
    if hasher.finish() != copy.sha256 {
        let what = format!(
            "the copy of {archive} is damaged: it is not what its node has made; nothing was written"
        );
        return Err(Failure::new(ExitCode::Verification, "digest-mismatch", what)
            .fix("take the archive from the node, or the copy of another day"));
    }
    temporary.as_file().sync_all().map_err(|error| unwritable(&error))?;
    temporary.persist_noclobber(&file).map_err(|error| unwritable(&error.error))?;
    let shown = file.display();
    let answer = Answer::local(
        "fleet/v1/backup-copy",
        &Fetched { file: file.clone(), size: at, sha256: copy.sha256, archive: item },
    )
    .name(shown.to_string())
    .line(format!("{shown}: {}, encrypted", units::bytes(at)))
    .line(format!("decrypt it where the key is: age --decrypt -i KEY -o ARCHIVE {shown}"));
    session.print(&answer)?;
    Ok(ExitCode::Done)
}

fn no_copy(archive: &str, why: &str) -> Failure {
    Failure::new(ExitCode::NotFound, "no-copy", format!("there is no copy of {archive} to fetch: {why}"))
        .fix("fleetctl backup list -o wide shows which there are")
}

/// In the present folder, by node, backup and time.
fn file_of(item: &BackupItem) -> PathBuf {
    let backup: String =
        item.backup.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    PathBuf::from(format!("{}-{backup}-{}.age", item.node, item.made.compact()))
}
