//! Scores of CVEs, a line of JSON each: how a mirror hands on what assigners and CISA published. Pure; for the importer.

use serde::Deserialize;

use super::limits::MAX_NAME_BYTES;
use super::skipped::Skips;
use crate::advisory::{Cve, GivenScore};
use crate::cvss::{MAX_VECTOR_BYTES, Score};

#[derive(Deserialize)]
struct Line {
    cve: Cve,
    scores: Vec<Given>,
}

#[derive(Deserialize)]
struct Given {
    by: String,
    vector: Option<String>,
    base_score: Option<serde_json::Number>,
}

/// Reads all lines.
pub(super) fn read(file: &str, bytes: &[u8], skips: &mut Skips) -> Result<Vec<(Cve, GivenScore)>, String> {
    let mut scores = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let place = format!("line {}", number + 1);
        let line: Line = serde_json::from_slice(line).map_err(|error| format!("{place}: {error}"))?;
        for Given { by, vector, base_score } in line.scores {
            if by.is_empty() || by.len() > MAX_NAME_BYTES {
                return Err(format!("{place}: by has {} bytes; 1 to {MAX_NAME_BYTES} are read", by.len()));
            }
            // As text, so that 9.8 is 98 tenths and 11.0, -1 and NaN are nothing.
            let stated = base_score.map(|number| number.to_string());
            let stated = match stated.as_deref().map(str::parse::<Score>) {
                Some(Err(error)) => {
                    skips.add(file, &place, error.to_string());
                    None
                }
                Some(Ok(score)) => Some(score),
                None => None,
            };
            let Some(vector) = vector else {
                skips.add(file, &place, "a score without a vector cannot be checked and does not count");
                continue;
            };
            let given =
                GivenScore { by, vector: vector.chars().take(MAX_VECTOR_BYTES + 1).collect(), stated };
            match given.read() {
                Err(error) => skips.add(file, &place, error.to_string()),
                Ok(read) if given.stated.is_some_and(|stated| stated != read.score) => {
                    skips.add(file, &place, "the stated number is not the vector's; the vector counts");
                }
                Ok(_) => {}
            }
            scores.push((line.cve, given));
        }
    }
    Ok(scores)
}
