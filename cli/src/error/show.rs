//! The one place where a failure becomes text: for people, or as one line of JSON.

use std::fmt::Write as _;

use serde_json::{Value, json as value};

use super::Failure;
use crate::render::Paint;
use crate::render::escape;

/// `error[code]: what`, then causes, fixes and the request id, one a line.
pub fn text(failure: &Failure, paint: Paint) -> String {
    let head = paint.bad(&format!("error[{}]:", escape::line(&failure.code)));
    let mut text = format!("{head} {}\n", indented(&failure.what));
    for cause in &failure.causes {
        let _ = writeln!(text, "  cause: {}", indented(cause));
    }
    for fix in &failure.fixes {
        let _ = writeln!(text, "  fix: {}", indented(fix));
    }
    if let Some(id) = &failure.id {
        let _ = writeln!(text, "  id: {}", escape::line(id));
    }
    text
}

/// Several lines in one message (clap's, a parser's) stay several, below their first; all are escaped.
fn indented(text: &str) -> String {
    let lines: Vec<_> = text.trim_end().lines().map(escape::line).collect();
    lines.join("\n    ")
}

/// The same for programs: a versioned object on one line.
pub fn json(failure: &Failure) -> String {
    let object: Value = value!({
        "schema": "fleet/v1/error",
        "code": failure.code,
        "message": failure.what,
        "causes": failure.causes,
        "fixes": failure.fixes,
        "id": failure.id,
        "exit": failure.exit.number(),
    });
    escape::json(&object.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ExitCode;

    fn sample() -> Failure {
        Failure::new(ExitCode::NotFound, "no-target", "no node matches \"ring=\u{1b}[31m\u{202e}x\"")
            .cause("32 nodes exist")
            .fix("fleetctl node list")
    }

    #[test]
    fn for_people() {
        assert_eq!(
            text(&sample(), Paint::plain()),
            "error[no-target]: no node matches \"ring=\\u{1b}[31m\\u{202e}x\"\n  cause: 32 nodes exist\n  \
             fix: fleetctl node list\n"
        );
    }

    #[test]
    fn for_programs() {
        let line = json(&sample());
        assert!(!line.contains('\u{202e}') && !line.contains('\n'), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["message"], "no node matches \"ring=\u{1b}[31m\u{202e}x\"");
        assert_eq!((read["exit"].as_u64(), read["schema"].as_str()), (Some(4), Some("fleet/v1/error")));
    }
}
