//! The supervisor: a small process between the agent and a program, so that neither the program nor the
//! knowledge of how it ended dies with the agent.
//!
//! The agent's binary starts itself again as `supervise --record FOLDER --nonce N`. The supervisor leaves the
//! agent's session, notes in the record that it begins, starts the program in a process group of its own,
//! keeps head and tail of its output, enforces the time limit on boot time and notes how it ended
//! (security-and-delivery §1.16, §2.5). At the limit, or when the agent asks for it, it ends the program with
//! everything below it: what the program started stays below the supervisor whatever session it made for itself,
//! because orphans come to the supervisor. It must never start a program twice for one record. Called by the
//! agent binary's hidden subcommand.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use fleet_types::digest::{Digest, Hasher};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::clock::{Clock, LinuxClock};
use super::process_id::{ProcessId, below};
use super::processes::{Exit, Input};
use super::record::{Begun, Ended, HEAD_BYTES, Record, RecordLock, Spec, TAIL_BYTES};
use crate::tasks::CancelFlag;

/// Between SIGTERM and SIGKILL, at the time limit and at a cancel. A package manager finishes the package that it
/// is unpacking, a database its checkpoint: seconds, on a slow disk tens of them. Killed before that they leave
/// what a person has to repair; half a minute is what a cancel may take.
pub(super) const TERM_GRACE: Duration = Duration::from_secs(30);
/// A predecessor that finds itself superseded lets go of the lock within milliseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How often boot time is looked at: the error of a time limit.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What the program's group still prints after its end is read for so long.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// As large as a pipe of Linux.
const CHUNK_BYTES: usize = 64 * 1024;

/// The entry of the hidden subcommand; `arguments` are those after `supervise`.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let outcome = match arguments.as_slice() {
        [record, folder, nonce, value] if record == "--record" && nonce == "--nonce" => {
            supervise(&Record::at(Path::new(folder)), &value.to_string_lossy())
        }
        _ => Err(io::Error::other("expected --record FOLDER --nonce N; only the agent starts this")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log_stderr(Err(error));
            ExitCode::FAILURE
        }
    }
}

/// Speaks to the file of the record that was put behind standard error; there is nobody else.
fn log_stderr(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        let _ = writeln!(io::stderr(), "the supervisor failed: {error}");
    }
}

fn supervise(record: &Record, nonce: &str) -> io::Result<()> {
    // A machine that goes down, and a unit that is stopped, ask by this signal: the program ends as at a cancel, and the
    // record says so. A handler, because a signal that is ignored would be so in the program too.
    let told_to_end = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&told_to_end))?;
    // Fails only where this process leads its session already, which is as good.
    let _ = rustix::process::setsid();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let _lock = lock(record)?;
    let spec = record.spec()?.ok_or_else(|| io::Error::other("there is no spec"))?;
    if spec.nonce != nonce {
        return Err(io::Error::other("another start took this one's place"));
    }
    if record.begun()?.is_some() {
        return Err(io::Error::other("this record has begun already"));
    }
    if spec.time_limit_ms.is_some() {
        // Of programs only: a unit lives for months, and the orphans of a daemon are none of its supervisor's
        // business. Fails on no kernel since 3.4; without it, what leaves the program's group is not found again.
        log_stderr(rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(Into::into));
    }
    let clock = LinuxClock;
    let boot_id = clock.boot_id();
    let supervisor = ProcessId::of(std::process::id(), &boot_id)
        .ok_or_else(|| io::Error::other("/proc does not show this process"))?;
    let started = clock.now();
    // Only systemd gives it this variable.
    let invocation = std::env::var("INVOCATION_ID").ok();
    record.write_begun(&Begun { supervisor, at: started, invocation })?;

    let since = clock.since_boot();
    let mut ended = Ended {
        exit: None,
        not_started: None,
        started,
        at: started,
        took_ms: 0,
        output_bytes: 0,
        output_sha256: Digest::of(b""),
    };
    match start(record, &spec) {
        Err(error) => ended.not_started = Some(error.to_string()),
        Ok((mut child, output)) => {
            // From here on nothing may end the supervisor before its program: a record that cannot be written
            // (a full disk) costs knowledge, not the time limit.
            if let Some(program) = ProcessId::of(child.id(), &boot_id) {
                log_stderr(record.write_started(&program));
            }
            let is_asked = || told_to_end.load(Ordering::Acquire) || record.is_asked_to_cancel();
            ended.exit = Some(watch(&mut child, spec.time_limit_ms, since, is_asked)?);
            if let Ok(copied) = output.recv_timeout(OUTPUT_GRACE) {
                log_stderr(record.write_tail(&copied.tail));
                ended.output_bytes = copied.bytes;
                ended.output_sha256 = copied.sha256;
            }
        }
    }
    ended.at = clock.now();
    let took = clock.since_boot().saturating_sub(since);
    ended.took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    record.write_ended(&ended)
}

fn lock(record: &Record) -> io::Result<RecordLock> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        if let Some(lock) = record.try_lock()? {
            return Ok(lock);
        }
        if Instant::now() >= until {
            return Err(io::Error::other("another supervisor holds this record"));
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// What was copied from the program's output.
struct Copied {
    bytes: u64,
    sha256: Digest,
    tail: Vec<u8>,
}

fn start(record: &Record, spec: &Spec) -> io::Result<(Child, Receiver<Copied>)> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(&spec.program);
    if let [name, arguments @ ..] = spec.argv.as_slice() {
        command.arg0(name).args(arguments);
    }
    command
        .env_clear()
        .envs(&spec.environment)
        .current_dir(&spec.directory)
        .process_group(0)
        .stdin(match &spec.input {
            None => Stdio::null(),
            Some(Input::File(path)) => open_plain(path, OFlags::RDONLY)?.into(),
            Some(Input::Text(text)) => fed(text.clone())?,
        })
        .stdout(match &spec.output_file {
            None => writer.try_clone()?.into(),
            Some(path) => Stdio::from(empty_file(path)?),
        })
        .stderr(writer);
    if let Some((uid, gid)) = spec.user {
        // The standard library gives up supplementary groups together with root.
        command.uid(uid).gid(gid);
    }
    let head = record.create_output()?;
    let child = command.spawn()?;
    // The command holds our ends of the pipe; without them the reader sees the program's end.
    drop(command);
    // One message, once: the channel never holds more.
    let (done, output) = sync_channel(1);
    std::thread::spawn(move || {
        let _ = done.send(copy(reader, head));
    });
    Ok((child, output))
}

/// A pipe that gives this text. It is written beside the program, which may read it late or never.
fn fed(text: String) -> io::Result<Stdio> {
    let (reader, mut writer) = io::pipe()?;
    std::thread::spawn(move || {
        // A program that ended without reading all of it says by its end what that was worth.
        let _ = writer.write_all(text.as_bytes());
    });
    Ok(reader.into())
}

/// Opens a file on whose way there is no link: this process may be root where others may write to the folder.
fn open_plain(path: &Path, flags: OFlags) -> io::Result<File> {
    let how = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::openat2(CWD, path, flags, Mode::empty(), how)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!("{} is no regular file", path.display())));
    }
    Ok(file)
}

/// The file that the agent made for a program's output. One that holds something, or has another name too, was put in its
/// place by somebody else.
fn empty_file(path: &Path) -> io::Result<File> {
    let file = open_plain(path, OFlags::WRONLY)?;
    let found = file.metadata()?;
    if found.len() > 0 || found.nlink() != 1 {
        return Err(io::Error::other(format!(
            "{} is not the empty file that was made for it",
            path.display()
        )));
    }
    Ok(file)
}

/// Copies output until its end. What cannot be written (a full disk) is counted all the same: the program must
/// never stand still because of its output.
fn copy(mut from: impl Read, mut head: impl Write) -> Copied {
    let mut hasher = Hasher::new();
    let (mut bytes, mut left) = (0u64, HEAD_BYTES);
    let mut tail: VecDeque<u8> = VecDeque::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let piece = &chunk[..count];
        hasher.update(piece);
        bytes += count as u64;
        let first = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let _ = head.write_all(&piece[..first]);
        left -= first as u64;
        tail.extend(&piece[first..]);
        let over = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..over);
    }
    Copied { bytes, sha256: hasher.finish(), tail: tail.into() }
}

/// Waits for the program's end, and brings it about at the limit or when somebody asks for it.
fn watch(
    child: &mut Child,
    limit_ms: Option<u64>,
    since: Duration,
    is_asked: impl Fn() -> bool,
) -> io::Result<Exit> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the program has no process number"))?;
    let (done, ended) = sync_channel(1);
    std::thread::spawn(move || {
        // NOWAIT leaves the dead process in place, so that its number and group cannot be given to others
        // before the rest of the group was ended.
        let waited = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let _ = done.send(waited.is_ok());
    });
    let limit = limit_ms.map(|ms| since + Duration::from_millis(ms));
    let stopped = loop {
        if has_ended(&ended) {
            break None;
        }
        if limit.is_some_and(|limit| LinuxClock.since_boot() >= limit) {
            break Some(Exit::TimedOut);
        }
        if is_asked() {
            break Some(Exit::Cancelled);
        }
    };
    if stopped.is_some() {
        end_all(pid, &ended);
    }
    // What the program left behind in its group ends with it, as in a transient unit.
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    let exit = exit_of(child.wait()?);
    Ok(match stopped {
        Some(Exit::TimedOut) => Exit::TimedOut,
        // One that ended by itself when it was asked to has said how.
        Some(_) if matches!(exit, Exit::Signal(_)) => Exit::Cancelled,
        _ => exit,
    })
}

/// Ends the program and all below this process: SIGTERM, the grace, then SIGKILL until nothing of it is left.
/// Nothing withstands that but a process that hangs in the kernel; waiting for it is right, because it still acts.
fn end_all(program: Pid, ended: &Receiver<bool>) {
    let own = std::process::id();
    let _ = rustix::process::kill_process_group(program, Signal::TERM);
    // Those in the program's group have it already.
    for pid in below(own).into_iter().filter(|pid| rustix::process::getpgid(Some(*pid)) != Ok(program)) {
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
    let kill_from = LinuxClock.since_boot() + TERM_GRACE;
    let mut is_over = false;
    while !(is_over && below(own).is_empty()) {
        if is_over {
            // What the program left behind tells nobody of its end.
            LinuxClock.pause(LOOK_EVERY, &CancelFlag::default());
        } else {
            is_over = has_ended(ended);
        }
        if LinuxClock.since_boot() >= kill_from {
            for pid in below(own) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Has the program ended? Waits a little for it.
fn has_ended(ended: &Receiver<bool>) -> bool {
    match ended.recv_timeout(LOOK_EVERY) {
        Ok(_) | Err(RecvTimeoutError::Disconnected) => true,
        Err(RecvTimeoutError::Timeout) => false,
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    status.code().map_or_else(|| Exit::Signal(status.signal().unwrap_or(0)), Exit::Status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_tail_are_kept_and_all_of_it_is_counted() {
        let printed: Vec<u8> = (0..900_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut head = Vec::new();
        let copied = copy(printed.as_slice(), &mut head);
        assert_eq!(copied.bytes, 900_000);
        assert_eq!(copied.sha256, Digest::of(&printed));
        assert_eq!(head, printed[..262_144]);
        assert_eq!(copied.tail, printed[900_000 - TAIL_BYTES..]);
    }
}
