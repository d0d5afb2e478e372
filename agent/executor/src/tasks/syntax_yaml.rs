//! Files parse as YAML 1.2, and no mapping has a key twice: readers differ in which one counts.
//!
//! Only the parser's events are looked at: aliases are never followed, so that a small file cannot become a large one.
//! Called by `syntax`.

use std::collections::BTreeSet;

use saphyr_parser::{Event, Parser};

/// Deepest nesting. Configurations have a dozen levels; what reads them gives up long before this.
const MAX_DEPTH: usize = 256;

/// What is open around an event.
enum Open {
    Sequence,
    Mapping {
        keys: BTreeSet<String>,
        /// Whether the next node is a key.
        is_key: bool,
    },
}

/// Line and words of the first mistake.
pub(super) fn check(text: &str) -> Result<(), (usize, String)> {
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| (e.marker().line(), e.info().to_owned()))?;
        let line = span.start.line();
        match event {
            Event::Scalar(value, ..) => node(&mut open, Some(&value)).map_err(|why| (line, why))?,
            Event::Alias(_) => node(&mut open, None).map_err(|why| (line, why))?,
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                node(&mut open, None).map_err(|why| (line, why))?;
                if open.len() >= MAX_DEPTH {
                    return Err((line, format!("it is nested deeper than {MAX_DEPTH} levels")));
                }
                open.push(match event {
                    Event::SequenceStart(..) => Open::Sequence,
                    _ => Open::Mapping { keys: BTreeSet::new(), is_key: true },
                });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
            }
            _ => {}
        }
    }
    Ok(())
}

/// A node begins: as a key, with its text where it is a plain one, or as anything else.
fn node(open: &mut [Open], text: Option<&str>) -> Result<(), String> {
    let Some(Open::Mapping { keys, is_key }) = open.last_mut() else { return Ok(()) };
    let was_key = std::mem::replace(is_key, !*is_key);
    match text {
        // Merge keys may stand as often as there is something to merge.
        Some(text) if was_key && text != "<<" && !keys.insert(text.to_owned()) => {
            Err(format!("the key \"{text}\" stands twice in one mapping"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_take_is_taken() {
        for good in [
            "",
            "a: 1\nb:\n  - x\n  - y: {k: v, l: [1, 2]}\nc: &anchor\n  d: 1\ne: *anchor\n",
            "---\na: 1\n---\na: 2\n...\n",
            "- {a: 1}\n- {a: 2}\n",
            "? [complex, key]\n: value\nkey: value\n",
            "<<: {a: 1}\nb: |\n  a: text\n  a: text\n",
            "\"a\": 'b'\n# a comment\n",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn mistakes_have_their_line() {
        for (bad, line) in
            [("a: 1\nb: 2\na: 3\n", 3), ("a:\n  x: 1\n  \"x\": 2\nb: 1\n", 3), ("- {a: 1,\n   a: 2}\n", 2)]
        {
            let (at, why) = check(bad).unwrap_err();
            assert_eq!(at, line, "{bad}: {why}");
            assert!(why.contains("stands twice"), "{bad}: {why}");
        }
        // Where the parser stops is its own matter; it is in the file.
        for bad in [
            "a: 1\nb: [1, 2\nc: 3\n",
            "a: 1\n\tb: 2\n",
            "a: 'open\n",
            "a: *nowhere\n",
            "a: b: c\n",
            "{a: 1\n",
        ] {
            let (at, why) = check(bad).unwrap_err();
            assert!((1..=bad.lines().count() + 1).contains(&at) && !why.is_empty(), "{bad}: {at} {why}");
        }
    }

    #[test]
    fn small_files_stay_small_and_deep_ones_are_refused() {
        let laughs = (1..40).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
            let m = n - 1;
            format!("{text}a{n}: &a{n} [*a{m}, *a{m}, *a{m}, *a{m}]\n")
        });
        assert_eq!(check(&laughs), Ok(()), "nothing is followed");
        let deep = "[".repeat(100_000);
        assert!(check(&deep).is_err());
        let deep = (0..2_000).fold(String::new(), |text, n| text + &" ".repeat(n) + "a:\n");
        assert!(check(&deep).unwrap_err().1.contains("nested deeper"));
    }
}
