//! Commits in a loop and prints what was acknowledged, so that tests can kill it at any instant.
//!
//! For the tests of this crate and for trying a disk by hand: an example, so that no release has it. Every writer raises its own
//! counter: one commit holds the new state, the counter and a log record that tells of both, so that a lost or half
//! commit shows. Usage: `torture write DIR FLOOR_BYTES` or `torture probe DIR`.

use std::io::{Write, stdout};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context, bail};
use fleet_store::sled_store::run_probe;
use fleet_store::{Batch, Key, KvStore, LogName, SledSettings, SledStore, StoreError, WriteId};

/// Enough to fill groups, few enough to have several groups between two kills.
const WRITERS: u32 = 16;
/// What the controller exits with when its store has failed (security-and-delivery §4.3).
const EXIT_STORE_FAILED: u8 = 75;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match arguments.as_slice() {
        ["probe", directory] => Ok(run_probe(Path::new(directory))),
        ["write", directory, floor_bytes] => {
            let floor_bytes = floor_bytes.parse().context("FLOOR_BYTES is not a number")?;
            tokio::runtime::Runtime::new()?.block_on(write(Path::new(directory), floor_bytes))
        }
        _ => bail!("usage: torture write DIR FLOOR_BYTES | probe DIR"),
    }
}

async fn write(directory: &Path, floor_bytes: u64) -> anyhow::Result<ExitCode> {
    let mut probe = Command::new(std::env::current_exe()?);
    probe.arg("probe").arg(directory);
    let mut settings = SledSettings::new(directory).with_probe_command(probe);
    settings.free_space_floor_bytes = floor_bytes;
    settings.reserve_floor_bytes = 0;
    let store = SledStore::open(settings).await?;
    say("open");
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write_for_ever(store.clone(), writer));
    }
    let reader = tokio::spawn(read_for_ever(store.clone()));
    let ended = writers.join_next().await.context("there are no writers")?;
    let error = match ended? {
        Err(error) => error,
        Ok(never) => match never {},
    };
    say(&format!("stopped {error}"));
    if matches!(error.downcast_ref::<StoreError>(), Some(StoreError::Full { .. })) {
        writers.shutdown().await;
        reader.abort();
        store.close().await?;
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("failed {}", store.failed().await));
    Ok(ExitCode::from(EXIT_STORE_FAILED))
}

/// Writes 1, 2, 3… from where the last process came to; every fifth time it first tries what must conflict.
async fn write_for_ever(store: Arc<SledStore>, writer: u32) -> anyhow::Result<std::convert::Infallible> {
    let log = LogName::new("leaf")?;
    let counter = Key::new(format!("counter/{writer}"))?;
    let mut seen = store.get(&counter).await?;
    loop {
        let last: u64 = match &seen {
            Some(entry) => std::str::from_utf8(&entry.value)?.parse()?,
            None => 0,
        };
        let number = last + 1;
        if number.is_multiple_of(5) {
            let impossible = Batch::new(fresh(writer, number, 1))
                .if_write_id(counter.clone(), fresh(writer, number, 2))
                .append(log.clone(), |_| b"must not be seen".to_vec());
            match store.commit(impossible).await {
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
                Ok(_) => bail!("an impossible commit was written"),
            }
        }
        let id = fresh(writer, number, 0);
        let mut batch = Batch::new(id)
            .put(Key::new(format!("state/{writer}/{number:012}"))?, vec![b'.'; 300])
            .append(log.clone(), move |index| format!("{index} {writer} {number}").into_bytes());
        batch = match &seen {
            Some(entry) => batch.replace(counter.clone(), entry.write_id, number.to_string()),
            None => batch.create(counter.clone(), number.to_string()),
        };
        let committed = store.commit(batch).await?;
        say(&format!("ack {writer} {number} {}", committed.appended[0]));
        seen = store.get(&counter).await?;
        if seen.as_ref().map(|entry| entry.write_id) != Some(id) {
            bail!("writer {writer} does not read what it wrote");
        }
    }
}

/// Prints each new number of the first writer as soon as it can be read: what was read must not be lost either.
async fn read_for_ever(store: Arc<SledStore>) -> anyhow::Result<()> {
    let counter = Key::new("counter/0")?;
    let mut last = None;
    loop {
        let now = store.get(&counter).await?.map(|entry| entry.value);
        if now != last {
            last = now;
            say(&format!("saw {}", last.as_deref().unwrap_or_default().escape_ascii()));
        }
        tokio::task::yield_now().await;
    }
}

/// A write id that names its commit.
fn fresh(writer: u32, number: u64, kind: u32) -> WriteId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&writer.to_be_bytes());
    bytes[4..8].copy_from_slice(&kind.to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    WriteId::from_bytes(bytes)
}

/// One line at once, unbuffered: what is printed was acknowledged. Nobody reads it any more when it fails.
fn say(line: &str) {
    let mut out = stdout().lock();
    drop(out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()));
}
