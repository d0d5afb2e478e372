//! A child process that commits, and what must be true of the store it leaves.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use fleet_store::{Direction, Entry, Key, KvStore, LogName, SledSettings, SledStore};

/// Every acknowledgement ever read: log index → (writer, number).
pub type Acknowledged = BTreeMap<u64, (u32, u64)>;

/// The program of the child: an example, which is built with the tests and in no release.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.ancestors().nth(2).unwrap().join("examples/torture");
    assert!(
        path.is_file(),
        "{} is not there; build it: cargo build -p fleet-store --examples",
        path.display()
    );
    path
}

/// The committing child.
pub struct Torture {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    /// The newest number of writer 0 that the child's reader has seen.
    pub seen: u64,
    /// All other lines.
    pub said: Vec<String>,
}

impl Torture {
    pub fn start(directory: &Path, floor_bytes: u64) -> Self {
        let mut child = Command::new(program())
            .args(["write".as_ref(), directory.as_os_str(), floor_bytes.to_string().as_ref()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, seen: 0, said: Vec::new() }
    }

    /// Reads up to `limit` acknowledgements; fewer when the child ends before.
    pub fn read(&mut self, limit: usize, acknowledged: &mut Acknowledged) -> usize {
        let before = acknowledged.len();
        while acknowledged.len() - before < limit {
            // The child writes each line with one write of a few bytes, which a pipe takes whole or not at all.
            let Some(Ok(line)) = self.lines.next() else { break };
            self.take(line, acknowledged);
        }
        acknowledged.len() - before
    }

    fn take(&mut self, line: String, acknowledged: &mut Acknowledged) {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields.as_slice() {
            ["ack", writer, number, index] => {
                let told = (writer.parse().unwrap(), number.parse().unwrap());
                let before = acknowledged.insert(index.parse().unwrap(), told);
                assert_eq!(before, None, "index {index} was acknowledged twice");
            }
            ["saw", ""] => {}
            ["saw", number] => self.seen = number.parse().unwrap(),
            _ => self.said.push(line),
        }
    }

    /// Reads on until the child's reader sees something new: at that instant its writer has just come back from the
    /// disk, or, if readers were shown too much, is still on the way to it.
    pub fn read_until_seen(&mut self, acknowledged: &mut Acknowledged) {
        let seen = self.seen;
        while self.seen == seen {
            let Some(Ok(line)) = self.lines.next() else { panic!("the child has ended: {:?}", self.said) };
            self.take(line, acknowledged);
        }
    }

    /// SIGKILL at once; what it had acknowledged until then counts. Returns the newest number that was seen.
    pub fn kill(mut self, acknowledged: &mut Acknowledged) -> u64 {
        self.child.kill().unwrap();
        self.read(usize::MAX, acknowledged);
        self.child.wait().unwrap();
        self.seen
    }

    /// Waits for its own end.
    pub fn wait(mut self, acknowledged: &mut Acknowledged) -> (ExitStatus, Vec<String>) {
        self.read(usize::MAX, acknowledged);
        (self.child.wait().unwrap(), self.said)
    }
}

/// Opens the store and compares it with all acknowledgements: none lost, the log without gaps, and exactly one record
/// for each state; what was read is there too. Returns the number of records.
pub async fn verify(directory: &Path, acknowledged: &Acknowledged, seen: u64) -> u64 {
    let mut settings = SledSettings::new(directory);
    settings.free_space_floor_bytes = 0;
    settings.reserve_floor_bytes = 0;
    let store = SledStore::open(settings).await.unwrap();
    let log = LogName::new("leaf").unwrap();
    let states: BTreeMap<Key, Entry> = read_all(&*store, b"state/").await.into_iter().collect();
    let records = read_all(&*store, &log.record_prefix()).await;
    assert_eq!(store.log_len(&log).await.unwrap(), records.len() as u64);
    for (expected, (record_key, record)) in (0..).zip(&records) {
        assert_eq!(log.index_of(record_key), Some(expected), "the log has a gap");
        let text = String::from_utf8(record.value.clone()).unwrap();
        let fields: Vec<u64> = text.split(' ').map(|field| field.parse().unwrap()).collect();
        let [index, writer, number] = fields[..] else { panic!("record {expected} is {text:?}") };
        assert_eq!(index, expected);
        let state = Key::new(format!("state/{writer}/{number:012}")).unwrap();
        assert_eq!(states.get(&state).map(|entry| entry.write_id), Some(record.write_id), "record {text}");
        if let Some(told) = acknowledged.get(&index) {
            assert_eq!(
                (u64::from(told.0), told.1),
                (writer, number),
                "index {index} tells of another commit"
            );
        }
    }
    assert_eq!(states.len(), records.len(), "a state without its record");
    if let Some((last, _)) = acknowledged.last_key_value() {
        assert!(*last < records.len() as u64, "acknowledged record {last} is lost");
    }
    if seen > 0 {
        let state = Key::new(format!("state/0/{seen:012}")).unwrap();
        assert!(states.contains_key(&state), "a reader saw {seen}, and it is lost");
    }
    store.close().await.unwrap();
    records.len() as u64
}

async fn read_all(store: &dyn KvStore, prefix: &[u8]) -> Vec<(Key, Entry)> {
    let mut all: Vec<(Key, Entry)> = Vec::new();
    loop {
        let after = all.last().map(|(key, _)| key.clone());
        let page = store.scan(prefix, after.as_ref(), 1000, Direction::Ascending).await.unwrap();
        let is_last = page.len() < 1000;
        all.extend(page);
        if is_last {
            return all;
        }
    }
}

/// The probe as the controller would run it.
pub fn probe_command(directory: &Path) -> Command {
    let mut command = Command::new(program());
    command.arg("probe").arg(directory);
    command
}
