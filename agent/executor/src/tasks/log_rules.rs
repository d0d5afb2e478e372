//! What the rules of `[log.*]` want of a file. Pure. Called by `log_prune`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_types::document::ids::Id;
use fleet_types::document::profile::Log;
use fleet_types::time::Span;

use super::contract::TaskError;
use super::fill::Filler;
use crate::host::{Found, Glob};

/// Endings of files that are compressed already.
const COMPRESSED: [&str; 5] = ["gz", "xz", "zst", "bz2", "lz4"];

/// Where a file goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Move {
    /// Its new path, as declared.
    pub(super) path: PathBuf,
    /// Compressed on the way?
    pub(super) compress: bool,
    /// Into the archive, or where it lies?
    pub(super) archive: bool,
}

/// The rules of one log, with placeholders filled in.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) paths: Vec<Glob>,
    pub(super) missing_ok: bool,
    pub(super) delete_after: Option<Duration>,
    /// Where `delete` probes.
    pub(super) delete: Vec<Glob>,
    /// Top folder and those that stay.
    pub(super) empty_folders: Option<(PathBuf, Vec<PathBuf>)>,
    exclude: Vec<Glob>,
    archive: Option<(Duration, PathBuf, bool)>,
    compress_after: Option<Duration>,
}

impl Rules {
    /// Fills in the rules of a log.
    pub(super) fn new(filler: &Filler<'_>, id: &Id, log: &Log) -> Result<Self, TaskError> {
        let what = format!("log {id}");
        let path = |text: &String| filler.path(&what, text);
        if log.archive.is_none() && log.compress_after.is_none() && log.delete.is_none() {
            let message = format!("{what}: it has none of archive, compress_after and delete");
            return Err(TaskError::Declared(message));
        }
        let archive = match &log.archive {
            None => None,
            Some(archive) => Some((archive.after.length(), path(&archive.directory)?, archive.compress)),
        };
        let empty_folders = match &log.remove_empty_directories {
            None => None,
            Some(rule) => Some((path(&rule.under)?, rule.keep.iter().map(path).collect::<Result<_, _>>()?)),
        };
        let deleted = log.delete.as_ref().map_or(&[][..], |delete| &delete.paths);
        Ok(Self {
            paths: filler.globs(&what, &log.paths)?,
            missing_ok: log.missing_ok,
            delete_after: log.delete.as_ref().map(|delete| delete.after.length()),
            delete: filler.globs(&what, if deleted.is_empty() { &log.paths } else { deleted })?,
            empty_folders,
            exclude: filler.globs(&what, &log.exclude)?,
            archive,
            compress_after: log.compress_after.as_ref().map(Span::length),
        })
    }

    /// Is the path left out?
    pub(super) fn is_excluded(&self, path: &Path) -> bool {
        self.exclude.iter().any(|glob| glob.covers(path))
    }

    /// Is the path left out of deleting? A pattern of `delete.paths` that lies wholly inside an excluded folder
    /// was meant: that is how old archives are deleted that are excluded from being archived again.
    pub(super) fn is_excluded_from_delete(&self, path: &Path, of: &Glob) -> bool {
        let meant = |glob: &Glob| of.base() != Path::new("/") && glob.covers(&of.base());
        self.exclude.iter().any(|glob| glob.covers(path) && !meant(glob))
    }

    /// Where a file goes, if anywhere.
    pub(super) fn wanted(
        &self,
        found: &Found,
        glob: &Glob,
        old: &dyn Fn(&Found, Duration) -> bool,
    ) -> Option<Move> {
        let path = &found.declared;
        if self.is_excluded(path) {
            return None;
        }
        let compressed = path.extension().is_some_and(|e| COMPRESSED.iter().any(|known| e == *known));
        if let Some((after, directory, compress)) = &self.archive {
            if path.starts_with(directory) {
                return None;
            }
            if old(found, *after) {
                let compress = *compress && !compressed;
                let mut name = archive_name(found, glob);
                name.push_str(if compress { ".gz" } else { "" });
                return Some(Move { path: directory.join(name), compress, archive: true });
            }
        }
        if compressed || !self.compress_after.is_some_and(|after| old(found, after)) {
            return None;
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".gz");
        Some(Move { path: PathBuf::from(name), compress: true, archive: false })
    }
}

/// `sub.fw-20250901T020000Z.log`: folders below the pattern's base, the name, the time of the last change, the
/// ending. Two files never share it, and `*.log.gz` in the archive matches it.
fn archive_name(found: &Found, glob: &Glob) -> String {
    let relative = found.declared.strip_prefix(glob.base()).ok().filter(|r| !r.as_os_str().is_empty());
    let relative =
        relative.map_or_else(|| found.declared.file_name().unwrap_or_default().into(), PathBuf::from);
    let flat = relative.to_string_lossy().replace('/', ".");
    let flat = flat.trim_start_matches('.');
    let time = found.stat.modified.compact();
    match flat.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() => format!("{stem}-{time}.{ending}"),
        _ => format!("{flat}-{time}"),
    }
}
