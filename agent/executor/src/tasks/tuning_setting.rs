//! One setting of a tuning: where it lives, how it is read, written and compared. The diff, the noting and the way back of
//! every kind of tuning are the same code over these. Called by `tuning_apply`, `tuning_revert` and what makes settings.

use std::path::{Path, PathBuf};

use fleet_types::report::Change as ReportedChange;
use serde::{Deserialize, Serialize};

use super::contract::TaskContext;
use super::part::change;
use super::tuning_mount;
use crate::host::{FileError, FileKind, FileProblem, Files, read_all, temporary_beside, write_atomic};

/// Largest file that is noted and put back; the undo of a step has room for several.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// So much of a file is shown in a change.
const SHOWN_CHARS: usize = 300;

/// Where a setting lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Place {
    /// A file that belongs to the tuning alone.
    File {
        /// Its declared path.
        path: PathBuf,
    },
    /// A value of the kernel, below `/proc/sys` or `/sys`.
    Kernel {
        /// Its path; links are followed, because `/sys` is made of them.
        path: PathBuf,
    },
    /// The options that a mount point has now.
    Mounted {
        /// The mount point.
        path: PathBuf,
        /// Names of options of its file system that count too.
        keys: Vec<String>,
    },
    /// The options of a mount point in `/etc/fstab`.
    Fstab {
        /// The mount point.
        path: PathBuf,
    },
}

/// A setting and what it is, was or is to be; no value is a file that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Setting {
    /// As shown: a key of sysctl, a path.
    pub(super) name: String,
    /// Where it lives.
    pub(super) place: Place,
    /// The value.
    pub(super) value: Option<String>,
}

impl Setting {
    /// A value of the kernel.
    pub(super) fn kernel(name: impl Into<String>, path: PathBuf, value: impl Into<String>) -> Self {
        Self { name: name.into(), place: Place::Kernel { path }, value: Some(value.into()) }
    }

    /// The content of a file.
    pub(super) fn file(path: PathBuf, text: String) -> Self {
        Self { name: path.display().to_string(), place: Place::File { path }, value: Some(text) }
    }

    /// The same place with the value that it has now.
    pub(super) fn now(&self, context: &TaskContext<'_>) -> Result<Self, String> {
        let value = read(context, &self.place)?;
        Ok(Self { value, ..self.clone() })
    }

    /// Is it this value that stands there? The kernel separates numbers by tabs, people by blanks.
    pub(super) fn is(&self, other: Option<&str>) -> bool {
        match (&self.place, self.value.as_deref(), other) {
            (Place::Kernel { .. }, Some(a), Some(b)) => a.split_whitespace().eq(b.split_whitespace()),
            (Place::Mounted { .. }, Some(a), Some(b)) => tuning_mount::same_options(a, b),
            (_, a, b) => a == b,
        }
    }

    /// Is there nothing to write: a value of the kernel that went, or came, with a module or a device?
    pub(super) fn is_gone(&self, now: Option<&str>) -> bool {
        matches!(self.place, Place::Kernel { .. }) && (now.is_none() || self.value.is_none())
    }

    /// How a person would write it.
    pub(super) fn by_hand(&self) -> String {
        let value = self.value.as_deref().unwrap_or_default();
        match (&self.place, &self.value) {
            (Place::Kernel { path } | Place::File { path }, Some(_)) => {
                format!("write \"{}\" to {}", value.trim(), path.display())
            }
            (Place::File { path }, None) => format!("remove {}", path.display()),
            (Place::Mounted { path, .. }, _) => format!("mount -o remount,{value} {}", path.display()),
            (Place::Fstab { path }, _) => {
                format!("give {} the options {value} in /etc/fstab", path.display())
            }
            (Place::Kernel { .. }, None) => String::new(),
        }
    }

    /// Writes its value to its place.
    pub(super) fn write(&self, context: &TaskContext<'_>) -> Result<(), String> {
        let files = context.host.files();
        let said = |e: FileError| e.to_string();
        match (&self.place, &self.value) {
            (Place::File { path }, Some(text)) => put_file(files, path, text).map_err(said),
            (Place::File { path }, None) => match files.remove_file(path) {
                Err(error) if error.problem != FileProblem::NotFound => Err(said(error)),
                _ => files.sync_directory(path.parent().unwrap_or(Path::new("/"))).map_err(said),
            },
            (Place::Kernel { path }, Some(value)) => {
                let real = files.canonical(path).map_err(said)?;
                files.write_setting(&real, value.as_bytes()).map_err(said)
            }
            (Place::Mounted { path, .. }, Some(options)) => tuning_mount::remount(context, path, options),
            (Place::Fstab { path }, Some(options)) => tuning_mount::write_fstab(files, path, options),
            // A value that was not there before has gone with what had it.
            (Place::Kernel { .. } | Place::Mounted { .. } | Place::Fstab { .. }, None) => Ok(()),
        }
    }

    /// Takes away what a writer that was killed left beside the file.
    pub(super) fn sweep(&self, context: &TaskContext<'_>) -> Result<(), String> {
        let path = match &self.place {
            Place::File { path } => path,
            Place::Fstab { .. } => Path::new(tuning_mount::FSTAB),
            Place::Kernel { .. } | Place::Mounted { .. } => return Ok(()),
        };
        match context.host.files().remove_file(&temporary_beside(path)) {
            Err(error) if error.problem != FileProblem::NotFound => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    /// How a change from what was there before is reported.
    pub(super) fn change(&self, before: Option<&str>) -> ReportedChange {
        let action = match (&self.place, &self.value) {
            (Place::File { .. }, Some(_)) => "written",
            (Place::File { .. }, None) => "removed",
            _ => "set",
        };
        change(&self.name, action, shown(before), shown(self.value.as_deref()))
    }
}

fn shown(value: Option<&str>) -> String {
    let Some(value) = value else { return "absent".to_owned() };
    let lines = value.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let text = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect::<Vec<_>>().join("; ");
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

fn read(context: &TaskContext<'_>, place: &Place) -> Result<Option<String>, String> {
    let files = context.host.files();
    match place {
        Place::File { path } => text_file(files, path),
        Place::Kernel { path } => match read_all(files, path, MAX_FILE_BYTES) {
            Ok(bytes) => Ok(Some(chosen(String::from_utf8_lossy(&bytes).trim()).to_owned())),
            Err(error) if error.problem == FileProblem::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        },
        Place::Mounted { path, keys } => tuning_mount::mounted(files, path, keys),
        Place::Fstab { path } => tuning_mount::in_fstab(files, path),
    }
}

/// `none [mq-deadline] kyber`: a setting that offers words puts the chosen one into brackets.
fn chosen(text: &str) -> &str {
    text.split_whitespace()
        .find_map(|word| word.strip_prefix('[').and_then(|word| word.strip_suffix(']')))
        .unwrap_or(text)
}

/// The text of a regular file; none when nothing is there.
pub(super) fn text_file(files: &dyn Files, path: &Path) -> Result<Option<String>, String> {
    match files.stat(path) {
        Err(error) if error.problem == FileProblem::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(stat) if stat.kind != FileKind::Regular => {
            return Err(format!("{} is no regular file", path.display()));
        }
        Ok(_) => {}
    }
    let bytes = read_all(files, path, MAX_FILE_BYTES).map_err(|e| e.to_string())?;
    String::from_utf8(bytes).map(Some).map_err(|_| format!("{} is no text", path.display()))
}

/// Replaces a file and keeps its mode; a new one is for all to read.
pub(super) fn put_file(files: &dyn Files, path: &Path, text: &str) -> Result<(), FileError> {
    let mode = match files.stat(path) {
        Ok(stat) => stat.mode,
        Err(error) if error.problem == FileProblem::NotFound => {
            files.make_directories(path.parent().unwrap_or(Path::new("/")), 0o755)?;
            0o644
        }
        Err(error) => return Err(error),
    };
    write_atomic(files, path, text.as_bytes(), mode)
}
