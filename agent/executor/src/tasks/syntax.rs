//! Looking at files of known syntaxes for `config.validate`. Reads only.
//!
//! A problem's subject is `file:line`, so that an editor can jump to it.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use fleet_types::report::Problem;
use fleet_types::severity::Severity;
use serde::de::{MapAccess, SeqAccess, Visitor};

use super::contract::TaskContext;
use super::part::problem;
use super::{programs, syntax_yaml};
use crate::host::{Files, Found, Invocation, ProcessError, ProcessOutcome, Purpose, read_all};

/// Largest file that is looked at. Rule sets of busy firewalls have a few megabytes.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Files of one call of an interpreter, far below the limit on arguments.
const FILES_A_CALL: usize = 200;
/// Parsing takes milliseconds a file; a minute is for a busy machine.
const TIME_LIMIT: Duration = Duration::from_mins(1);
/// Reads each file and says `path TAB line TAB message` for those that do not parse. Nothing is compiled or
/// imported, so nothing of the files runs and no `.pyc` is written.
const PYTHON: &str = "import ast, sys\nbad = 0\nfor path in sys.argv[1:]:\n    try:\n        \
    ast.parse(open(path, 'rb').read(), path)\n    except (SyntaxError, ValueError, OSError) as e:\n        \
    bad = 1\n        line = getattr(e, 'lineno', None) or 0\n        \
    text = str(getattr(e, 'msg', None) or e).replace('\\n', ' ').replace('\\t', ' ')\n        \
    print(path, line, text, sep='\\t')\nsys.exit(bad)\n";

/// The first words of an output, for `evidence`.
pub(super) fn short(text: &str) -> String {
    text.trim().chars().take(300).collect()
}

fn invalid(path: &Path, line: usize, message: impl Into<String>) -> Problem {
    let subject = if line == 0 { path.display().to_string() } else { format!("{}:{line}", path.display()) };
    problem(Severity::High, "invalid", subject, message)
}

/// Calls `parse` with the content of each file; it gives line and message of the first mistake.
fn each(
    files: &dyn Files,
    found: &[Found],
    parse: impl Fn(&[u8]) -> Result<(), (usize, String)>,
) -> Vec<Problem> {
    found
        .iter()
        .filter_map(|one| match read_all(files, &one.path, MAX_FILE_BYTES) {
            Err(error) => Some(invalid(&one.declared, 0, error.to_string())),
            Ok(bytes) => parse(&bytes).err().map(|(line, why)| invalid(&one.declared, line, why)),
        })
        .collect()
}

/// Files parse as JSON (RFC 8259), and no object has a key twice: readers differ in which one counts.
pub(super) fn json(files: &dyn Files, found: &[Found]) -> Vec<Problem> {
    each(files, found, |bytes| {
        encoding(bytes)?;
        serde_json::from_slice::<Unique>(bytes).map(|_| ()).map_err(|e| (e.line(), e.to_string()))
    })
}

/// Files parse as YAML, and no mapping has a key twice.
pub(super) fn yaml(files: &dyn Files, found: &[Found]) -> Vec<Problem> {
    each(files, found, |bytes| {
        encoding(bytes)?;
        syntax_yaml::check(utf8(bytes)?)
    })
}

/// Names what a parser would only call an unexpected character.
fn encoding(bytes: &[u8]) -> Result<(), (usize, String)> {
    let found = match bytes {
        [0xef, 0xbb, 0xbf, ..] => "a byte order mark",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] => "UTF-16 or UTF-32",
        _ => return Ok(()),
    };
    Err((1, format!("it begins as {found}; save it as UTF-8 without a byte order mark")))
}

/// Any JSON value whose objects have each key once; nothing of it is kept.
struct Unique;

impl<'de> serde::Deserialize<'de> for Unique {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Unique, A::Error> {
        while members.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Unique, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if keys.contains(&key) {
                let shown: String = key.chars().filter(|c| !c.is_control()).take(64).collect();
                return Err(serde::de::Error::custom(format!(
                    "the key \"{shown}\" stands twice in one object"
                )));
            }
            keys.insert(key);
            entries.next_value::<Unique>()?;
        }
        Ok(Unique)
    }
}

/// Files parse as TOML 1.0.
pub(super) fn toml(files: &dyn Files, found: &[Found]) -> Vec<Problem> {
    each(files, found, |bytes| {
        toml::from_str::<toml::Table>(utf8(bytes)?).map(|_| ()).map_err(|e| {
            let line = e.span().map_or(0, |span| line_of(bytes, span.start));
            (line, e.message().to_owned())
        })
    })
}

fn utf8(bytes: &[u8]) -> Result<&str, (usize, String)> {
    std::str::from_utf8(bytes).map_err(|e| (line_of(bytes, e.valid_up_to()), "it is no UTF-8".to_owned()))
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    bytes[..at.min(bytes.len())].split(|b| *b == b'\n').count()
}

fn call(context: &TaskContext<'_>, front: &[&str], files: &[Found]) -> Result<ProcessOutcome, Box<Problem>> {
    let mut argv: Vec<String> = front.iter().map(|word| (*word).to_owned()).collect();
    for one in files {
        let path = programs::on_machine(context, &one.path);
        let Some(text) = path.to_str() else {
            return Err(Box::new(invalid(&one.declared, 0, "its name is no UTF-8")));
        };
        argv.push(text.to_owned());
    }
    match programs::run(context, &Invocation::new(argv, TIME_LIMIT), Purpose::ReadOnly) {
        Ok(outcome) => Ok(outcome),
        Err(ProcessError::NotStarted { program, why }) => {
            let message = format!("cannot start {program}: {why}");
            Err(Box::new(problem(Severity::High, "not_available", program, message)))
        }
        Err(error) => Err(Box::new(problem(Severity::High, "not_available", front[0], error.to_string()))),
    }
}

/// Files parse as Python, by the node's own `python3`.
pub(super) fn python(context: &TaskContext<'_>, found: &[Found]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for files in found.chunks(FILES_A_CALL) {
        let outcome = match call(context, &["python3", "-I", "-B", "-c", PYTHON], files) {
            Ok(outcome) => outcome,
            Err(found) => {
                problems.push(*found);
                break;
            }
        };
        let text = String::from_utf8_lossy(&outcome.output);
        let mut said = 0;
        for line in text.lines() {
            let mut fields = line.splitn(3, '\t');
            let (Some(path), Some(number), Some(message)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let of = files.iter().find(|one| programs::on_machine(context, &one.path) == Path::new(path));
            if let Some(one) = of {
                said += 1;
                problems.push(invalid(&one.declared, number.parse().unwrap_or(0), message));
            }
        }
        if !outcome.exit.is_success() && said == 0 {
            let mut found = problem(Severity::High, "not_available", "python3", outcome.exit.to_string());
            found.evidence = short(&text);
            problems.push(found);
        }
    }
    problems
}

/// Files are accepted by `nft -c`, which checks and changes nothing.
pub(super) fn nft(context: &TaskContext<'_>, found: &[Found]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for one in found {
        let outcome = match call(context, &["nft", "-c", "-f"], std::slice::from_ref(one)) {
            Ok(outcome) if outcome.exit.is_success() => continue,
            Ok(outcome) => outcome,
            Err(found) => {
                problems.push(*found);
                break;
            }
        };
        let text = String::from_utf8_lossy(&outcome.output).into_owned();
        let (line, message) = nft_line(&text).unwrap_or((0, outcome.exit.to_string()));
        let mut found = invalid(&one.declared, line, message);
        found.evidence = short(&text);
        problems.push(found);
    }
    problems
}

/// nft writes `file:line:columns: Error: message`.
fn nft_line(text: &str) -> Option<(usize, String)> {
    text.lines().find_map(|line| {
        let (place, message) = line.split_once(": Error: ")?;
        let mut from_end = place.rsplit(':');
        from_end.next()?;
        Some((from_end.next()?.parse().ok()?, message.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_nft() {
        let text = "/x/rules.nft:12:3-8: Error: syntax error, unexpected string\nfoo bar\n";
        assert_eq!(nft_line(text), Some((12, "syntax error, unexpected string".to_owned())));
        assert_eq!(nft_line("killed"), None);
    }

    #[test]
    fn json_with_a_key_twice_is_refused_at_its_place() {
        let parse = |text: &str| {
            serde_json::from_str::<Unique>(text).map(drop).map_err(|e| (e.line(), e.to_string()))
        };
        assert!(parse(r#"[{"a": 1, "b": {"a": null}}, {"a": -1.5e9}, "a", true]"#).is_ok());
        let (line, why) = parse("{\n \"a\": {\"b\": 1,\n  \"b\": 2}\n}").unwrap_err();
        assert_eq!(line, 3);
        assert!(why.starts_with("the key \"b\" stands twice in one object at line 3"), "{why}");
        assert!(parse(&format!("{}{}", "[".repeat(5000), "]".repeat(5000))).is_err(), "nesting is bounded");
    }

    #[test]
    fn foreign_encodings_are_named() {
        for (bytes, word) in [
            (b"\xef\xbb\xbf{}".as_slice(), "byte order mark"),
            (b"\xff\xfe{\0}\0", "UTF-16"),
            (b"\0{\0}", "UTF-16"),
        ] {
            assert!(encoding(bytes).unwrap_err().1.contains(word), "{bytes:?}");
        }
        assert!(encoding(b"{}").is_ok() && encoding(b"").is_ok());
    }

    #[test]
    fn lines_are_counted_from_one() {
        assert_eq!((line_of(b"a\nb", 0), line_of(b"a\nb", 2), line_of(b"", 9)), (1, 2, 1));
    }
}
