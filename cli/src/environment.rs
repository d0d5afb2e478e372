//! What the process gives: variables, terminals, width, time and zone, answers from the keyboard.
//!
//! Read once, in `main`; everything else is handed this value, so that tests need no child process and
//! no change of the real environment. It must never be read around.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, IsTerminal as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet_types::time::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::sync::oneshot;

use crate::clock;

/// Columns of help, and of a terminal that does not tell its width.
pub const DEFAULT_WIDTH: usize = 80;
/// Longest line that is read as an answer; the longest name has 128 bytes.
const MAX_ANSWER_BYTES: u64 = 1024;
/// How often a command that is silent for long looks whether anybody still reads its output.
const LOOK_EVERY: Duration = Duration::from_millis(250);

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
    /// Has the reader of stdout gone away?
    pub is_reader_gone: fn() -> bool,
    input: Arc<Mutex<Box<dyn BufRead + Send>>>,
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
        let seen = rustix::termios::tcgetwinsize(std::io::stdout())
            .or_else(|_| rustix::termios::tcgetwinsize(std::io::stderr()))
            .ok()
            .map(|size| usize::from(size.ws_col));
        Self {
            width: told.or(seen).filter(|columns| *columns > 0),
            variables,
            stdin_is_terminal: std::io::stdin().is_terminal(),
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            zone: jiff::tz::TimeZone::system(),
            now: clock::now,
            is_reader_gone,
            input: shared(BufReader::new(std::io::stdin())),
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
            is_reader_gone: || false,
            input: shared(std::io::empty()),
        }
    }

    /// The same with somebody at a keyboard who types `answers`.
    #[must_use]
    pub fn with_answers(self, answers: &str) -> Self {
        self.with_keyboard(std::io::Cursor::new(answers.as_bytes().to_vec()))
    }

    /// The same with somebody at this keyboard.
    #[must_use]
    pub fn with_keyboard(mut self, keyboard: impl BufRead + Send + 'static) -> Self {
        self.stdin_is_terminal = true;
        self.input = shared(keyboard);
        self
    }

    /// The same with this at its input, and no terminal.
    #[must_use]
    pub fn with_input(mut self, input: impl BufRead + Send + 'static) -> Self {
        self.input = shared(input);
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

    /// Columns to fit help, and tables on a terminal, into.
    pub fn columns(&self) -> usize {
        self.width.unwrap_or(DEFAULT_WIDTH)
    }

    /// Columns to fit tables into: a terminal's, or those that `COLUMNS` tells. Elsewhere a program reads.
    pub fn table_columns(&self, is_terminal: bool) -> Option<usize> {
        (is_terminal || self.get("COLUMNS").is_some()).then(|| self.columns())
    }

    /// Reads one line of an answer; empty at the end of the input.
    ///
    /// The thread that reads is joined by nobody: a read from a keyboard cannot be ended, and Ctrl-C does not wait
    /// for it.
    pub async fn read_answer(&self) -> std::io::Result<String> {
        self.on_input(read_line).await
    }

    /// Reads what the input has next, a buffer of it at most; nothing at its end. Ctrl-C does not wait for it either.
    pub async fn read_input(&self) -> std::io::Result<Vec<u8>> {
        self.on_input(read_some).await
    }

    async fn on_input<T: Send + 'static>(
        &self,
        read: fn(&mut dyn BufRead) -> std::io::Result<T>,
    ) -> std::io::Result<T> {
        let input = Arc::clone(&self.input);
        let (done, answer) = oneshot::channel();
        std::thread::spawn(move || {
            let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = done.send(read(&mut **input));
        });
        answer.await.map_err(std::io::Error::other)?
    }

    /// Comes back when nobody reads stdout any more; a command that prints seldom would notice it seldom.
    pub async fn until_reader_gone(&self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        while !(self.is_reader_gone)() {
            looks.tick().await;
        }
    }
}

fn shared(input: impl BufRead + Send + 'static) -> Arc<Mutex<Box<dyn BufRead + Send>>> {
    Arc::new(Mutex::new(Box::new(input)))
}

fn read_line(input: &mut dyn BufRead) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut line = Vec::new();
    input.take(MAX_ANSWER_BYTES).read_until(b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(&line).trim().to_owned())
}

fn read_some(input: &mut dyn BufRead) -> std::io::Result<Vec<u8>> {
    loop {
        match input.fill_buf() {
            Ok(buffer) => {
                let bytes = buffer.to_vec();
                input.consume(bytes.len());
                return Ok(bytes);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A pipe without a reader says so at its writing end (poll(2): `POLLERR`).
fn is_reader_gone() -> bool {
    let stdout = std::io::stdout();
    let mut ends = [PollFd::new(&stdout, PollFlags::empty())];
    rustix::event::poll(&mut ends, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
        && ends[0].revents().contains(PollFlags::ERR)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A keyboard at which nobody types.
    struct Idle(std::sync::mpsc::Receiver<()>);

    impl std::io::Read for Idle {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(0)
        }
    }

    #[tokio::test]
    async fn a_question_without_an_answer_can_be_left() {
        let (_hands, keyboard) = std::sync::mpsc::sync_channel(1);
        let environment =
            Environment::fixed(&[], || Timestamp::clamped(0)).with_keyboard(BufReader::new(Idle(keyboard)));
        let left = tokio::time::timeout(Duration::from_millis(1), environment.read_answer()).await;
        assert!(left.is_err(), "whoever asks can go on, as at Ctrl-C");
    }

    #[tokio::test]
    async fn a_reader_that_goes_is_noticed() {
        let mut environment = Environment::fixed(&[], || Timestamp::clamped(0));
        environment.is_reader_gone = || true;
        environment.until_reader_gone().await;
    }
}
