//! Opening first in a process that may die of the damage.
//!
//! Damaged files can make sled panic, abort or never end (security-and-delivery §4.4). After an unclean stop the store
//! is opened by a child process first; only when that went well does the controller open it itself. The child is the
//! controller's own binary (`store-probe PATH`), whose whole work is [`run_probe`].

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use super::directory::Directory;
use super::failure::run_caught;
use super::group_state::check_all_keys;
use super::opening::{Opened, SCHEMA_VERSION, open_checked};
use crate::error::StoreError;

/// How the probe ends when the store is damaged (`EX_DATAERR` of sysexits.h). Any end but this one and 0 is damage
/// that the child did not survive.
pub const PROBE_EXIT_DAMAGED: u8 = 65;
/// The probe reads everything once, so a cache would not help it.
const PROBE_CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// What a probe has seen in a sound store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeReport {
    /// The store's schema version.
    pub schema_version: u32,
    /// Keys of the whole store, all read and matching their checksums and the store's own count.
    pub keys: u64,
    /// Logs found.
    pub logs: u64,
    /// Newest records of the logs that were read and match their checksums and counters.
    pub records_checked: u64,
}

/// Opens the store, checks what a start checks, reads every value, and closes it. It blocks, and it may panic or abort inside sled in
/// ways that nobody can catch: run it in a process of its own.
pub fn probe(path: &Path) -> Result<ProbeReport, StoreError> {
    let directory = Directory::prepare(path)?;
    let was_unclean = directory.is_unclean();
    let Opened { db, checked, last_group, .. } = open_checked(&directory, PROBE_CACHE_BYTES)?;
    let keys = run_caught(path, || check_all_keys(&db, last_group))??;
    run_caught(path, || db.flush())?;
    drop(db);
    if !was_unclean {
        directory.note_clean()?;
    }
    Ok(ProbeReport {
        schema_version: SCHEMA_VERSION,
        keys,
        logs: checked.logs,
        records_checked: checked.records,
    })
}

/// The whole of the `store-probe` command: 0 when the store can be opened, or when it is not damage that speaks
/// against it (the caller finds the same and says it better); [`PROBE_EXIT_DAMAGED`] with a text on standard error
/// otherwise.
pub fn run_probe(path: &Path) -> ExitCode {
    match probe(path) {
        Err(StoreError::Corrupt { what }) => {
            let _ = writeln!(std::io::stderr(), "{what}");
            ExitCode::from(PROBE_EXIT_DAMAGED)
        }
        Ok(_) | Err(_) => ExitCode::SUCCESS,
    }
}

/// Runs the probe command and judges its end.
pub(crate) async fn run_probe_command(
    command: Command,
    path: &Path,
    limit: Duration,
) -> Result<(), StoreError> {
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let unavailable = |what: String| StoreError::Unavailable {
        reason: format!("{} could not be opened on trial: {what}", path.display()),
    };
    let child = command.spawn().map_err(|error| unavailable(format!("the probe did not start ({error})")))?;
    let Ok(ended) = tokio::time::timeout(limit, child.wait_with_output()).await else {
        return Err(StoreError::Corrupt {
            what: format!("{} was not opened on trial within {} s", path.display(), limit.as_secs()),
        });
    };
    let output = ended.map_err(|error| unavailable(format!("the probe was lost ({error})")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last_line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim();
    Err(StoreError::Corrupt {
        what: format!("{} could not be opened on trial ({}): {last_line}", path.display(), output.status),
    })
}
