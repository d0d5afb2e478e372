//! Globs of declared paths: `*` and `?` inside one part, `**` for any number of parts. Nothing else.
//!
//! Pure matching; `walk` finds files by them. Called by tasks for `sources`, `exclude` and `paths`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use regex::bytes::Regex;

/// A pattern over absolute paths.
#[derive(Debug, Clone)]
pub struct Glob {
    text: String,
    parts: Vec<String>,
    /// The same as an expression, whose time is linear in the path whatever the pattern is.
    whole: Regex,
}

impl Glob {
    /// Takes a declared path, with or without wildcards. It is refused when it is so long that nobody means it.
    pub fn new(text: &str) -> Result<Self, regex::Error> {
        let parts: Vec<String> =
            names(Path::new(text)).filter_map(|name| Some(name.to_str()?.to_owned())).collect();
        let mut whole = String::from("(?s-u)^");
        for part in &parts {
            if part == "**" {
                whole.push_str("(?:/[^/]*)*");
            } else {
                let part = regex::escape(part).replace(r"\*", "[^/]*").replace(r"\?", "[^/]");
                whole.push('/');
                whole.push_str(&part);
            }
        }
        whole.push('$');
        Ok(Self { text: text.to_owned(), parts, whole: Regex::new(&whole)? })
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
        base.extend(self.parts.iter().take_while(|part| !is_wild(part)));
        base
    }

    /// Most parts a match can have below [`Glob::base`]; none when `**` allows any number.
    pub fn depth(&self) -> Option<usize> {
        let wild = self.parts.iter().skip_while(|part| !is_wild(part));
        let mut depth = 0;
        for part in wild {
            if part == "**" {
                return None;
            }
            depth += 1;
        }
        Some(depth)
    }

    /// Does it match the whole path?
    pub fn matches(&self, path: &Path) -> bool {
        let parts: Vec<_> = names(path).flat_map(|name| [b"/", name.as_bytes()].concat()).collect();
        self.whole.is_match(&parts)
    }

    /// Does it match the path or a folder above it? A folder in `exclude` leaves out what is in it.
    pub fn covers(&self, path: &Path) -> bool {
        path.ancestors().any(|above| above != Path::new("/") && self.matches(above))
    }
}

/// The names that a path is made of; what only says "here" or "from the root" is none.
fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}

fn is_wild(part: &str) -> bool {
    part.contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(text: &str) -> Glob {
        Glob::new(text).unwrap()
    }

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
            ("/**/a/**/b", "/a/a/b", true),
            ("/**/a/**/b", "/a", false),
            ("/a**b", "/aXb", true),
            ("/a**b", "/aX/b", false),
            ("/", "/", true),
            ("/", "/a", false),
            ("//etc/./x", "/etc/x", true),
            ("/log.[ab]{1}", "/log.[ab]{1}", true),
            ("/log.[ab]{1}", "/logXa", false),
            (r"/a\*", r"/a\b", true),
            (r"/a\*", "/a*", false),
            ("/é?", "/éx", true),
            ("/a?c", "/a\nc", true),
        ] {
            assert_eq!(glob(pattern).matches(Path::new(path)), expected, "{pattern} {path}");
        }
        assert!(glob("/etc/cache").covers(Path::new("/etc/cache/x/y")));
        let odd = Path::new(OsStr::from_bytes(b"/etc/a\xff.conf"));
        assert!(glob("/etc/*.conf").matches(odd) && glob("/etc/a?.conf").matches(odd));
        assert!(!glob("/etc/cache").covers(Path::new("/etc/cached")));
    }

    #[test]
    fn base_and_depth() {
        let log = glob("/var/log/*/x.log");
        assert_eq!(log.base(), Path::new("/var/log"));
        assert_eq!(log.depth(), Some(2));
        assert_eq!(glob("/var/**/x").depth(), None);
        assert_eq!(glob("/etc/a").base(), Path::new("/etc/a"));
        assert!(!glob("/etc/a").has_wildcard());
    }

    #[test]
    fn hostile_patterns_end_quickly() {
        let pattern = format!("/{}b", "a*".repeat(60));
        assert!(!glob(&pattern).matches(Path::new(&format!("/{}", "a".repeat(200)))));
        let deep = format!("/{}", "**/".repeat(60)) + "x";
        assert!(!glob(&deep).matches(Path::new(&"/a".repeat(200))));
    }
}
