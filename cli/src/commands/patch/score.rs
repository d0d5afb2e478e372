//! `fleetctl patch score`.

use fleet_advisories::cvss;
use serde::Serialize;

use super::lines::{self, Reply};
use crate::error::{ExitCode, Failure};
use crate::render::escape;
use crate::session::Session;

/// What a line is answered by: the vector and its score, or why it has none.
#[derive(Serialize)]
struct Scored<'a> {
    vector: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Scores the vectors on stdin; asks nobody.
pub async fn score(session: &mut Session<'_>) -> Result<ExitCode, Failure> {
    lines::answer(session, "CVSS vectors", &|line| match line {
        Ok(vector) => match cvss::score(vector) {
            Ok(scored) => reply(&Scored {
                vector,
                version: Some(scored.version.as_str()),
                // For people and programs that read a number; we keep tenths.
                base_score: Some(f64::from(scored.score.tenths()) / 10.0),
                severity: Some(scored.band().as_str()),
                error: None,
            }),
            Err(error) => failed(vector, error.to_string()),
        },
        Err(bad) => failed(&bad.shown, bad.why),
    })
    .await
}

fn failed(vector: &str, error: String) -> Reply {
    reply(&Scored { vector, version: None, base_score: None, severity: None, error: Some(error) })
}

fn reply(scored: &Scored<'_>) -> Reply {
    let text = serde_json::to_string(scored).unwrap_or_default();
    Reply { text: escape::json(&text), is_error: scored.error.is_some() }
}
