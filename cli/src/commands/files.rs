//! The files of `fleetctl config`: named ones, and `*.toml` below folders.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use fleet_documents::{MAX_FILE_BYTES, Problem, read_text};

use crate::error::{ExitCode, Failure};

/// Most files of one call: the controller takes 200 documents at once.
const MAX_FILES: usize = 500;
/// Deepest folder below a named one.
const MAX_DEPTH: usize = 8;

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFile {
    /// As it is named in messages.
    pub name: String,
    /// Its content.
    pub text: String,
    /// What is wrong with its bytes.
    pub unreadable: Option<Problem>,
}

/// Reads all files, in order of their names within a folder.
pub fn read(paths: &[PathBuf]) -> Result<Vec<TextFile>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        let about = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if about.is_dir() {
            let before = found.len();
            walk(path, 0, &mut found)?;
            if found.len() == before {
                return Err(Failure::new(
                    ExitCode::NotFound,
                    "no-files",
                    format!("no .toml file below {}", path.display()),
                ));
            }
        } else {
            found.push(path.clone());
        }
    }
    found.dedup();
    if found.len() > MAX_FILES {
        return Err(Failure::usage(format!("{} files: at most {MAX_FILES} are read at once", found.len())));
    }
    found.iter().map(|path| read_one(path)).collect()
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if depth > MAX_DEPTH {
        return Err(Failure::usage(format!("{} lies too deep", folder.display())));
    }
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(folder, &error))?;
        // Of the entry itself: a link to a folder could lead in a circle.
        let kind = entry.file_type().map_err(|error| unreadable(&entry.path(), &error))?;
        paths.push((entry.path(), kind.is_dir()));
    }
    paths.sort();
    for (path, is_folder) in paths {
        if is_folder {
            walk(&path, depth + 1, found)?;
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    Ok(())
}

fn read_one(path: &Path) -> Result<TextFile, Failure> {
    let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut bytes = Vec::new();
    // One byte more than allowed, so that the parser says that it is too large.
    let limit = MAX_FILE_BYTES as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    let name = path.display().to_string();
    let (text, unreadable) = read_text(&name, bytes);
    Ok(TextFile { name, text, unreadable })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let exit =
        if error.kind() == std::io::ErrorKind::NotFound { ExitCode::NotFound } else { ExitCode::Unexpected };
    Failure::new(exit, "unreadable-file", format!("{} cannot be read", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_in_order_and_links_are_not_followed_down() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("procedures")).unwrap();
        for name in ["profile.toml", "b.toml", "procedures/a.toml", "notes.md"] {
            std::fs::write(root.join(name), "x").unwrap();
        }
        std::os::unix::fs::symlink(root, root.join("procedures/loop")).unwrap();
        let names: Vec<_> = read(&[root.to_owned()]).unwrap().into_iter().map(|file| file.name).collect();
        let expected =
            ["b.toml", "procedures/a.toml", "profile.toml"].map(|n| root.join(n).display().to_string());
        assert_eq!(names, expected);
        assert_eq!(read(&[root.join("none.toml")]).unwrap_err().exit.number(), 4);
        std::fs::write(root.join("b.toml"), b"x = 1\n# \xc3\xa4 \xff").unwrap();
        let files = read(&[root.join("b.toml"), root.join("profile.toml")]).unwrap();
        let bad = files[0].unreadable.as_ref().unwrap();
        assert_eq!((bad.line, bad.column, bad.message.as_str()), (2, 5, "byte 0xff is no UTF-8"));
        assert!(files[1].unreadable.is_none());
    }
}
