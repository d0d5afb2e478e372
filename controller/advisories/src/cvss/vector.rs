//! Reading a vector strictly, and its score. Pure; anyone may call it.
//!
//! The grammar is checked here, letter by letter, because the crate that knows the equations takes lower case too;
//! the crate gives the number alone.

use super::grammar::{CvssVersion, Metric};
use super::score::{Band, Score};

/// The longest vector that is read: with every metric of CVSS 4.0 it has fewer than 250 bytes.
pub const MAX_VECTOR_BYTES: usize = 512;

/// What a vector says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scored {
    /// Its version.
    pub version: CvssVersion,
    /// The score: for 2.0, 3.0 and 3.1 of the base metrics, for 4.0 of the whole vector, because there threat and
    /// environment are part of the one score.
    pub score: Score,
}

impl Scored {
    /// The band of the score.
    pub const fn band(self) -> Band {
        self.score.band()
    }
}

/// A text that no version accepts as a vector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a CVSS vector: at character {place}: {problem}")]
pub struct BadVector {
    /// The character where it went wrong, counted from 1.
    pub place: usize,
    /// What is wrong there.
    pub problem: VectorProblem,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VectorProblem {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Longer than [`MAX_VECTOR_BYTES`].
    #[error("it has {0} bytes; at most {MAX_VECTOR_BYTES} are read")]
    TooLong(usize),
    /// Something else than the letters, digits and signs that vectors have.
    #[error("{0:?} is no character of a vector")]
    Character(char),
    /// A prefix of no known version.
    #[error("{0:?} is no version; CVSS:3.0/, CVSS:3.1/ and CVSS:4.0/ are, and 2.0 has no prefix")]
    Version(String),
    /// A part without a colon, or an empty one.
    #[error("{0:?} is no metric; a metric is NAME:VALUE, with one slash between two")]
    Form(String),
    /// A metric that the version does not have.
    #[error("CVSS {version} has no metric {name:?}")]
    Metric {
        /// The version read so far.
        version: CvssVersion,
        /// What stands there.
        name: String,
    },
    /// A value that the metric does not have.
    #[error("{value:?} is no value of {metric} in CVSS {version}; its values are {allowed}")]
    Value {
        /// The version.
        version: CvssVersion,
        /// The metric.
        metric: &'static str,
        /// What stands there.
        value: String,
        /// What could stand there.
        allowed: String,
    },
    /// A metric that stands there twice.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// Base metrics that are not there.
    #[error("CVSS {version} needs {missing} too")]
    Missing {
        /// The version.
        version: CvssVersion,
        /// Their names.
        missing: String,
    },
    /// The grammar took it and the equations did not: a defect of ours, shown rather than guessed at.
    #[error("it cannot be scored: {0}")]
    Unscored(String),
}

/// Reads and scores a vector.
pub fn score(vector: &str) -> Result<Scored, BadVector> {
    let version = check(vector)?;
    let unscored = |reason: String| BadVector { place: 1, problem: VectorProblem::Unscored(reason) };
    let read: cvss::Cvss = vector.parse().map_err(|error: cvss::Error| unscored(error.to_string()))?;
    // The crate rounds to tenths as each version says; as text they pass into ours without a float's last bit.
    let number = format!("{:.1}", read.score());
    let score = number.parse().map_err(|_| unscored(format!("the equations gave {number}")))?;
    Ok(Scored { version, score })
}

/// Whether the grammar of a version has it; which.
fn check(vector: &str) -> Result<CvssVersion, BadVector> {
    let at = |place: usize, problem| Err(BadVector { place, problem });
    if vector.is_empty() {
        return at(1, VectorProblem::Empty);
    }
    if vector.len() > MAX_VECTOR_BYTES {
        return at(MAX_VECTOR_BYTES + 1, VectorProblem::TooLong(vector.len()));
    }
    let of_vector = |c: char| c.is_ascii_alphanumeric() || c == ':' || c == '/' || c == '.';
    if let Some((place, character)) = vector.chars().enumerate().find(|(_, c)| !of_vector(*c)) {
        return at(place + 1, VectorProblem::Character(character));
    }
    // From here on characters are bytes.
    let prefixed =
        |version: &CvssVersion| *version != CvssVersion::V2 && vector.starts_with(version.prefix());
    let version = match CvssVersion::ALL.into_iter().find(prefixed) {
        Some(version) => version,
        None if vector.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("cvss")) => {
            let prefix = vector.split_inclusive('/').next().unwrap_or(vector);
            return at(1, VectorProblem::Version(prefix.to_owned()));
        }
        None => CvssVersion::V2,
    };
    let mut place = version.prefix().len() + 1;
    let mut seen: Vec<&'static str> = Vec::new();
    for part in vector.get(version.prefix().len()..).unwrap_or_default().split('/') {
        let metric = check_part(version, part).map_err(|problem| BadVector { place, problem })?;
        if seen.contains(&metric.name) {
            return at(place, VectorProblem::Twice(metric.name));
        }
        seen.push(metric.name);
        place += part.len() + 1;
    }
    let missing: Vec<&str> = version
        .metrics()
        .iter()
        .filter(|metric| metric.mandatory && !seen.contains(&metric.name))
        .map(|metric| metric.name)
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return at(vector.len() + 1, VectorProblem::Missing { version, missing });
    }
    Ok(version)
}

fn check_part(version: CvssVersion, part: &str) -> Result<&'static Metric, VectorProblem> {
    let short = |text: &str| text.chars().take(32).collect::<String>();
    let Some((name, value)) = part.split_once(':') else {
        return Err(VectorProblem::Form(short(part)));
    };
    let Some(metric) = version.metrics().iter().find(|metric| metric.name == name) else {
        return Err(VectorProblem::Metric { version, name: short(name) });
    };
    if metric.values.contains(&value) {
        return Ok(metric);
    }
    let allowed = metric.values.join(", ");
    Err(VectorProblem::Value { version, metric: metric.name, value: short(value), allowed })
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use proptest::prelude::*;

    use super::*;

    const VECTORS: &str = include_str!("../../tests/data/cvss-vectors.csv");
    const INVALID: &str = include_str!("../../tests/data/cvss-invalid.jsonl");

    fn rows() -> &'static [(&'static str, Score)] {
        static ROWS: OnceLock<Vec<(&str, Score)>> = OnceLock::new();
        ROWS.get_or_init(|| {
            let row = |line: &'static str| {
                let fields: Vec<&str> = line.split(',').collect();
                let [vector, score, _] = fields.as_slice() else { panic!("{line}") };
                (*vector, score.parse().unwrap())
            };
            VECTORS.lines().skip(1).map(row).collect()
        })
    }

    #[test]
    fn every_known_vector_has_its_score() {
        let mut counts = [0; 4];
        for &(vector, expected) in rows() {
            let scored = score(vector).unwrap_or_else(|error| panic!("{vector}: {error}"));
            assert_eq!(scored.score, expected, "{vector}");
            counts[CvssVersion::ALL.iter().position(|version| *version == scored.version).unwrap()] += 1;
        }
        assert_eq!(counts, [483, 1646, 1597, 1769]);
    }

    #[test]
    fn t40_every_known_mistake_is_refused() {
        let mut count = 0;
        for line in INVALID.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(score(row["vector"].as_str().unwrap()).is_err(), "{line}");
            count += 1;
        }
        assert_eq!(count, 27);
    }

    #[test]
    fn a_refusal_says_why_and_where() {
        let told = |vector: &str| score(vector).unwrap_err().to_string();
        assert_eq!(
            told("CVSS:3.1/AV:N/AC:X/PR:N/UI:N/S:U/C:H/I:H/A:H"),
            "not a CVSS vector: at character 15: \"X\" is no value of AC in CVSS 3.1; its values are L, H"
        );
        assert_eq!(
            told("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N"),
            "not a CVSS vector: at character 59: CVSS 4.0 needs SA too"
        );
        assert_eq!(told("AV:N/AC:L/Au:N/AC:H"), "not a CVSS vector: at character 16: AC is given twice");
        assert_eq!(
            told("CVSS:5.0/AV:N"),
            "not a CVSS vector: at character 1: \"CVSS:5.0/\" is no version; CVSS:3.0/, CVSS:3.1/ and CVSS:4.0/ are, \
             and 2.0 has no prefix"
        );
        assert_eq!(
            told("9.8"),
            "not a CVSS vector: at character 1: \"9.8\" is no metric; a metric is NAME:VALUE, \
             with one slash between two"
        );
        assert!(told(&"A".repeat(1 << 20)).contains("1048576 bytes"));
    }

    /// Whether every impact of the vulnerable and of later systems is none, which alone makes 0.0.
    fn without_impact(vector: &str) -> bool {
        let impacts = ["C", "I", "A", "VC", "VI", "VA", "SC", "SI", "SA"];
        let modified = ["MVC", "MVI", "MVA", "MSC", "MSI", "MSA"];
        vector.split('/').filter_map(|part| part.split_once(':')).all(|(name, value)| {
            !impacts.contains(&name) && !modified.contains(&name) || value == "N" || value == "X"
        })
    }

    #[test]
    fn t40_zero_means_that_there_is_no_impact() {
        for &(vector, _) in rows() {
            let scored = score(vector).unwrap();
            let modified = scored.version == CvssVersion::V4 && vector.contains("/M");
            if !modified {
                assert_eq!(scored.score == Score::NONE, without_impact(vector), "{vector}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// T40: one mutated character of a good vector gives the number of a vector that really says so, or is refused.
        #[test]
        fn t40_a_mutated_vector_is_refused_or_is_another_vector(
            row in 0..5495_usize, place in any::<prop::sample::Index>(), with in any::<char>(), kind in 0..4,
        ) {
            let (vector, _) = rows()[row];
            let mut mutated: Vec<char> = vector.chars().collect();
            let at = place.index(mutated.len());
            match kind {
                0 => mutated[at] = with,
                1 => mutated.insert(at, with),
                2 => { mutated.remove(at); }
                _ => mutated.truncate(at),
            }
            let mutated: String = mutated.into_iter().collect();
            if let Ok(scored) = score(&mutated) {
                // Taken: so it is written as the grammar writes it, and zero still means no impact.
                prop_assert!(mutated.is_ascii());
                let parts = mutated.strip_prefix(scored.version.prefix()).unwrap();
                for metric in scored.version.metrics().iter().filter(|metric| metric.mandatory) {
                    let found = parts.split('/').filter(|part| part.split(':').next() == Some(metric.name)).count();
                    prop_assert_eq!(found, 1, "{}", mutated);
                }
                if !parts.contains("/M") {
                    prop_assert_eq!(scored.score == Score::NONE, without_impact(parts), "{}", mutated);
                }
            }
        }

        #[test]
        fn t40_any_text_gives_an_answer(text in ".{0,600}") {
            let _ = score(&text);
        }

        /// The order of the metrics says nothing.
        #[test]
        fn order_of_metrics_makes_no_difference(row in 0..5495_usize, turn in any::<prop::sample::Index>()) {
            let (vector, expected) = rows()[row];
            let version = score(vector).unwrap().version;
            let mut parts: Vec<&str> = vector.strip_prefix(version.prefix()).unwrap().split('/').collect();
            let by = turn.index(parts.len());
            parts.rotate_left(by);
            let turned = format!("{}{}", version.prefix(), parts.join("/"));
            prop_assert_eq!(score(&turned).unwrap().score, expected);
        }
    }
}
