//! `fleetctl config schema`.

use fleet_types::document::DocumentKind;

use crate::error::{ExitCode, Failure};
use crate::render::Answer;
use crate::session::Session;

/// Prints the JSON Schema of a kind of document; asks nobody.
pub fn schema(session: &mut Session<'_>, kind: DocumentKind) -> Result<ExitCode, Failure> {
    let schema = fleet_documents::json_schema(kind);
    let answer = Answer::of(&schema).name(kind.as_str());
    // The schema is what is asked for, in the table format too.
    let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    session.print(&text.lines().fold(answer, Answer::line))?;
    Ok(ExitCode::Done)
}
