//! What the process gives: variables, terminals, width, time and zone, answers from the keyboard.
//!
//! Read once, in `main`; everything else is handed this value, so that tests need no child process and
//! no change of the real environment. It must never be read around.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, IsTerminal as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use fleet_types::time::Timestamp;

use crate::clock;

/// Columns where the output is no terminal or does not tell its width.
pub const DEFAULT_WIDTH: usize = 80;
/// Longest line that is read as an answer; the longest name has 128 bytes.
const MAX_ANSWER_BYTES: u64 = 1024;

/// The surroundings of one invocation.
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Can a question be answered at a keyboard?
    pub stdin_is_terminal: bool,
    /// Does data go to a terminal?
    pub stdout_is_terminal: bool,
    /// Does talk go to a terminal?
    pub stderr_is_terminal: bool,
    /// Columns of the terminal, where known.
    pub width: Option<usize>,
    /// Zone for `--time local`.
    pub zone: jiff::tz::TimeZone,
    /// The clock.
    pub now: fn() -> Timestamp,
    input: Mutex<Box<dyn BufRead + Send>>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("width", &self.width).finish_non_exhaustive()
    }
}

impl Environment {
    /// The real one.
    pub fn of_process() -> Self {
        let variables: BTreeMap<_, _> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let told = variables.get("COLUMNS").and_then(|text| text.parse().ok());
        let seen = rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_col));
        Self {
            width: told.or(seen).filter(|columns| *columns > 0),
            variables,
            stdin_is_terminal: std::io::stdin().is_terminal(),
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            zone: jiff::tz::TimeZone::system(),
            now: clock::now,
            input: Mutex::new(Box::new(BufReader::new(std::io::stdin()))),
        }
    }

    /// A fixed one without terminals, at `now`, in UTC.
    pub fn fixed(variables: &[(&str, &str)], now: fn() -> Timestamp) -> Self {
        Self {
            variables: variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            stdin_is_terminal: false,
            stdout_is_terminal: false,
            stderr_is_terminal: false,
            width: None,
            zone: jiff::tz::TimeZone::UTC,
            now,
            input: Mutex::new(Box::new(std::io::empty())),
        }
    }

    /// The same with somebody at a keyboard who types `answers`.
    #[must_use]
    pub fn with_answers(mut self, answers: &str) -> Self {
        self.stdin_is_terminal = true;
        self.input = Mutex::new(Box::new(std::io::Cursor::new(answers.as_bytes().to_vec())));
        self
    }

    /// A variable; an empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Where contexts and keys are kept: `FLEET_CONFIG_DIR`, else the XDG directory, else `~/.config/fleet`.
    pub fn config_dir(&self) -> Option<PathBuf> {
        if let Some(dir) = self.get("FLEET_CONFIG_DIR") {
            return Some(PathBuf::from(dir));
        }
        let base = self
            .get("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(self.get("HOME")?).join(".config")))?;
        Some(base.join("fleet"))
    }

    /// Columns to fit tables into.
    pub fn columns(&self) -> usize {
        self.width.unwrap_or(DEFAULT_WIDTH)
    }

    /// Reads one line of an answer; empty at the end of the input.
    pub fn read_answer(&self) -> std::io::Result<String> {
        use std::io::Read as _;
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = Vec::new();
        (&mut *input).take(MAX_ANSWER_BYTES).read_until(b'\n', &mut line)?;
        Ok(String::from_utf8_lossy(&line).trim().to_owned())
    }
}
