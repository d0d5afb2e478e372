//! Globs of declared paths: `*` and `?` inside one part, `**` for any number of parts. Nothing else.
//!
//! Pure matching; `walk` finds files by them. Called by tasks for `sources`, `exclude` and `paths`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// A pattern over absolute paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    parts: Vec<Vec<u8>>,
}

impl Glob {
    /// Takes a declared path, with or without wildcards.
    pub fn new(text: &str) -> Self {
        let parts = Path::new(text)
            .components()
            .filter_map(|part| match part {
                Component::Normal(name) => Some(name.as_bytes().to_vec()),
                _ => None,
            })
            .collect();
        Self { text: text.to_owned(), parts }
    }

    /// The text as written, after placeholders.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Does it hold a wildcard?
    pub fn has_wildcard(&self) -> bool {
        self.parts.iter().any(|part| is_wild(part))
    }

    /// The path before the first wildcard, or all of it.
    pub fn base(&self) -> PathBuf {
        let mut base = PathBuf::from("/");
        base.extend(self.parts.iter().take_while(|part| !is_wild(part)).map(|part| OsStr::from_bytes(part)));
        base
    }

    /// Most parts a match can have below [`Glob::base`]; none when `**` allows any number.
    pub fn depth(&self) -> Option<usize> {
        let wild = self.parts.iter().skip_while(|part| !is_wild(part));
        let mut depth = 0;
        for part in wild {
            if part == b"**" {
                return None;
            }
            depth += 1;
        }
        Some(depth)
    }

    /// Does it match the whole path?
    pub fn matches(&self, path: &Path) -> bool {
        let parts: Vec<&[u8]> = path
            .components()
            .filter_map(|part| match part {
                Component::Normal(name) => Some(name.as_bytes()),
                _ => None,
            })
            .collect();
        matches_parts(&self.parts, &parts)
    }

    /// Does it match the path or a folder above it? A folder in `exclude` leaves out what is in it.
    pub fn covers(&self, path: &Path) -> bool {
        path.ancestors().any(|above| above != Path::new("/") && self.matches(above))
    }
}

fn is_wild(part: &[u8]) -> bool {
    part.iter().any(|b| matches!(b, b'*' | b'?'))
}

/// Dynamic programming over parts, so that no pattern takes more than parts times parts.
fn matches_parts(pattern: &[Vec<u8>], path: &[&[u8]]) -> bool {
    let mut reachable = vec![false; path.len() + 1];
    reachable[0] = true;
    for part in pattern {
        let mut next = vec![false; path.len() + 1];
        if part == b"**" {
            let mut seen = false;
            for (at, was) in reachable.iter().enumerate() {
                seen |= was;
                next[at] = seen;
            }
        } else {
            for at in 0..path.len() {
                next[at + 1] = reachable[at] && matches_name(part, path[at]);
            }
        }
        reachable = next;
    }
    reachable[path.len()]
}

/// `*` and `?` in one name; linear with one point to come back to.
fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_paths() {
        for (pattern, path, expected) in [
            ("/var/log/edgefw/*.log", "/var/log/edgefw/a.log", true),
            ("/var/log/edgefw/*.log", "/var/log/edgefw/a.log.1", false),
            ("/var/log/edgefw/*.log", "/var/log/edgefw/sub/a.log", false),
            ("/var/log/edgefw/**/*.log", "/var/log/edgefw/a.log", true),
            ("/var/log/edgefw/**/*.log", "/var/log/edgefw/x/y/a.log", true),
            ("/etc/edgefw/cache/**", "/etc/edgefw/cache/x/y", true),
            ("/etc/edgefw/cache/**", "/etc/edgefw/cache", true),
            ("/etc/edgefw/cache/**", "/etc/edgefw/cached", false),
            ("/etc/?.conf", "/etc/a.conf", true),
            ("/etc/?.conf", "/etc/ab.conf", false),
            ("/a*b*c", "/aXbXbXc", true),
            ("/a*b*c", "/aXbXbX", false),
            ("/etc", "/etc", true),
            ("/**", "/x", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(Path::new(path)), expected, "{pattern} {path}");
        }
        assert!(Glob::new("/etc/cache").covers(Path::new("/etc/cache/x/y")));
        assert!(!Glob::new("/etc/cache").covers(Path::new("/etc/cached")));
    }

    #[test]
    fn base_and_depth() {
        let glob = Glob::new("/var/log/*/x.log");
        assert_eq!(glob.base(), Path::new("/var/log"));
        assert_eq!(glob.depth(), Some(2));
        assert_eq!(Glob::new("/var/**/x").depth(), None);
        assert_eq!(Glob::new("/etc/a").base(), Path::new("/etc/a"));
        assert!(!Glob::new("/etc/a").has_wildcard());
    }

    #[test]
    fn hostile_patterns_end_quickly() {
        let pattern = format!("/{}b", "a*".repeat(60));
        assert!(!Glob::new(&pattern).matches(Path::new(&format!("/{}", "a".repeat(200)))));
        let deep = format!("/{}", "**/".repeat(60)) + "x";
        assert!(!Glob::new(&deep).matches(Path::new(&"/a".repeat(200))));
    }
}
