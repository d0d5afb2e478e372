//! Answers each line of the input by one line of output, as both come: for programs that ask many things.
//!
//! Must never hold more than one line, or let a line go unanswered. Called by the commands beside it.

use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// The longest line that is read. The longest vector has a hundredth of it; the rest of a longer one is passed over.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// As much is shown of a line that is too long.
const SHOWN_OF_LONG: usize = 64;

/// What a line is answered by.
pub(super) struct Reply {
    pub text: String,
    pub is_error: bool,
}

/// A line that cannot be looked at: what can be shown of it, and why.
pub(super) struct BadLine {
    pub shown: String,
    pub why: String,
}

type Line<'a> = Result<&'a str, BadLine>;

/// Answers every line on stdin until its end. `what` is what the lines are, in the plural.
pub(super) async fn answer(
    session: &mut Session<'_>,
    what: &str,
    reply: &dyn Fn(Line<'_>) -> Reply,
) -> Result<ExitCode, Failure> {
    if session.can_ask() {
        session.say(format!("reads {what} from the keyboard, one line each; Ctrl-D ends"));
    }
    let mut lines = Lines::default();
    loop {
        let read = session.environment.read_input().await;
        let chunk = read.map_err(|error| Failure::unexpected("stdin cannot be read", &error))?;
        let answers = if chunk.is_empty() { lines.end(reply) } else { lines.take(&chunk, reply) };
        session.data(&answers)?;
        if chunk.is_empty() {
            return lines.judged(what);
        }
    }
}

/// The line that is being read, and how it went so far.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    bytes: usize,
    answered: u64,
    bad: u64,
}

impl Lines {
    fn take(&mut self, chunk: &[u8], reply: &dyn Fn(Line<'_>) -> Reply) -> String {
        let mut answers = String::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            self.bytes = self.bytes.saturating_add(text.len());
            let room = MAX_LINE_BYTES.saturating_sub(self.line.len()).min(text.len());
            self.line.extend_from_slice(&text[..room]);
            if part.len() > text.len() {
                self.finish(reply, &mut answers);
            }
        }
        answers
    }

    /// A last line without its end is a line.
    fn end(&mut self, reply: &dyn Fn(Line<'_>) -> Reply) -> String {
        let mut answers = String::new();
        if self.bytes > 0 {
            self.finish(reply, &mut answers);
        }
        answers
    }

    fn finish(&mut self, reply: &dyn Fn(Line<'_>) -> Reply, answers: &mut String) {
        let line = std::mem::take(&mut self.line);
        let bytes = std::mem::take(&mut self.bytes);
        let Reply { text, is_error } = reply(read(&line, bytes));
        answers.push_str(&text);
        answers.push('\n');
        self.answered += 1;
        self.bad += u64::from(is_error);
    }

    fn judged(&self, what: &str) -> Result<ExitCode, Failure> {
        if self.bad == 0 {
            return Ok(ExitCode::Done);
        }
        let (bad, all) = (self.bad, self.answered);
        Err(Failure::new(ExitCode::Usage, "bad-lines", format!("{bad} of {all} lines are no {what}"))
            .fix("each of them is answered by its error"))
    }
}

/// The text of a line; files of other systems end theirs with a carriage return too.
fn read(line: &[u8], bytes: usize) -> Line<'_> {
    let bad = |shown: &[u8], why: String| {
        let shown = String::from_utf8_lossy(shown).into_owned();
        Err(BadLine { shown, why })
    };
    if bytes > line.len() {
        let why = format!("the line has {bytes} bytes; at most {MAX_LINE_BYTES} are read");
        let line = line.get(..SHOWN_OF_LONG).unwrap_or(line);
        return bad(&[line, "…".as_bytes()].concat(), why);
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(text) => Ok(text),
        Err(error) => bad(line, format!("the line is not UTF-8 from byte {} on", error.valid_up_to() + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: Line<'_>) -> Reply {
        match line {
            Ok(text) => Reply { text: format!("[{text}]"), is_error: text == "bad" },
            Err(bad) => Reply { text: format!("{}: {}", bad.shown, bad.why), is_error: true },
        }
    }

    /// Whatever the pieces are in which the input comes.
    #[test]
    fn lines_are_lines_however_they_arrive() {
        let input = b"one\r\n\ntwo\xff\nbad\nlast";
        for size in 1..input.len() {
            let mut lines = Lines::default();
            let mut out: String = input.chunks(size).map(|chunk| lines.take(chunk, &told)).collect();
            out += &lines.end(&told);
            assert_eq!(out, "[one]\n[]\ntwo\u{fffd}: the line is not UTF-8 from byte 4 on\n[bad]\n[last]\n");
            assert_eq!(lines.judged("things").unwrap_err().what, "2 of 5 lines are no things");
        }
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut lines = Lines::default();
        for _ in 0..1000 {
            assert_eq!(lines.take(&[b'A'; 8192], &told), "");
            assert!(lines.line.len() <= MAX_LINE_BYTES);
        }
        let out = lines.take(b"\nnext\n", &told);
        assert!(out.ends_with("…: the line has 8192000 bytes; at most 65536 are read\n[next]\n"), "{out}");
        assert_eq!(lines.end(&told), "");
    }
}
