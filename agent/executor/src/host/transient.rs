//! Supervisors in transient units of systemd: each has a control group of its own, outside of the agent's and of its sandbox,
//! so that an upgrade or a restart of the agent ends no step, and a step that runs out of memory takes no agent with it.
//!
//! Source: security-and-delivery §1.16. What a program did stands in its record as everywhere; the unit adds that systemd ends
//! what a dead supervisor left behind, and that all of it can be ended by the unit's invocation, which is never given twice.
//! Must not start a program itself. Called by `runner`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use zbus::{Connection, Error, OwnedObjectPath, Variant, proxy};

use super::process_id::ProcessId;
use super::record::Record;
use super::runner::{SUPERVISOR_GRACE, Supervisor, THIS_PROGRAM};
use super::supervise::TERM_GRACE;
use super::systemd::{ANSWER_LIMIT, ManagerProxy, ServiceProxy, ask, job_ended, unit_error, until_answered};
use super::units::UnitError;

/// Half-way to the mildest: a firewall's own work goes before its maintenance, which still gets on. Only here: what a
/// program leaves running on purpose would keep it, and in a unit nothing is left.
const NICE: i32 = 10;
/// `ioprio_set(2)`: best effort, last of its eight.
const IO_CLASS_BEST_EFFORT: i32 = 2;
/// See [`IO_CLASS_BEST_EFFORT`].
const IO_PRIORITY_LAST: i32 = 7;
/// A guard that died is there again before anybody misses it.
const GUARD_RESTART: Duration = Duration::from_millis(500);
/// `proc_pid_oom_score_adj(5)`: after almost everything else.
const GUARD_OOM_SCORE: i32 = -900;
/// Longest name of a unit (`systemd.unit(5)`).
const MAX_UNIT_NAME: usize = 255;

/// One command line as the manager takes it: program, arguments with the name first, may it fail.
type CommandLine<'a> = (&'a str, Vec<&'a str>, bool);

#[proxy(
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    interface = "org.freedesktop.systemd1.Manager"
)]
trait Transients {
    #[allow(clippy::type_complexity)] // the bus's own signature: a(sv), and a(sa(sv)) that nobody uses
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Variant<'_>)],
        aux: &[(&str, Vec<(&str, Variant<'_>)>)],
    ) -> zbus::Result<OwnedObjectPath>;
    #[zbus(name = "GetUnitByInvocationID")]
    fn get_unit_by_invocation_id(&self, invocation: Vec<u8>) -> zbus::Result<OwnedObjectPath>;
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
}

#[proxy(default_service = "org.freedesktop.systemd1", interface = "org.freedesktop.systemd1.Unit")]
trait Killed {
    fn kill(&self, whom: &str, signal: i32) -> zbus::Result<()>;
}

/// Starts the supervisor of a prepared record in a unit of this name and waits until systemd has executed it. Gives the
/// supervisor's process; none when it is gone again already, and its record says why.
///
/// # Errors
///
/// What systemd says: there is a unit of this name, or none can be made. Where it did not answer in time it may start one
/// all the same; the record tells.
pub(super) fn start(
    supervisor: &Supervisor,
    unit: &str,
    record: &Record,
    nonce: &str,
    time_limit: Option<Duration>,
    boot_id: &str,
) -> Result<Option<ProcessId>, UnitError> {
    let program = reachable(&supervisor.program);
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| not_text(unit, path));
    let (program, folder) = (text(&program)?, text(record.folder())?);
    let complaints = text(&record.complaints_path())?;
    let mut arguments = vec!["fleet-agent"];
    arguments.extend(supervisor.arguments.iter().map(String::as_str));
    arguments.extend(["--record", &folder, "--nonce", nonce]);
    let command: Vec<CommandLine<'_>> = vec![(&program, arguments, false)];
    let mut properties = vec![
        ("Description", Variant::from(format!("A step of the fleet agent ({unit})"))),
        ("ExecStart", Variant::from(command)),
        ("StandardErrorFile", Variant::from(complaints)),
        // Its job is done when the supervisor was executed, not when the step has ended.
        ("Type", Variant::from("exec")),
        // Nothing of it stays behind in the manager, however it ended: the record has it.
        ("CollectMode", Variant::from("inactive-or-failed")),
        // The supervisor is asked, and ends its program as at a cancel; what is left in the group is killed.
        ("KillMode", Variant::from("mixed")),
        ("TimeoutStopUSec", Variant::from(micros(SUPERVISOR_GRACE))),
        // A program that ran out of memory is one that ended by a signal: the supervisor says so.
        ("OOMPolicy", Variant::from("continue")),
        ("Nice", Variant::from(NICE)),
        ("IOSchedulingClass", Variant::from(IO_CLASS_BEST_EFFORT)),
        ("IOSchedulingPriority", Variant::from(IO_PRIORITY_LAST)),
    ];
    if let Some(limit) = time_limit {
        // Behind the supervisor, which keeps the limit itself.
        properties.push(("RuntimeMaxUSec", Variant::from(micros(limit + SUPERVISOR_GRACE + TERM_GRACE))));
    }
    ask(unit, ANSWER_LIMIT, async |bus| {
        let transients = started(bus, unit, &properties).await?;
        Ok(main_process(bus, &transients, unit).await.and_then(|pid| ProcessId::of(pid, boot_id)))
    })
}

/// Starts the guard of a change, whose folder this is: outside of the agent's control group, started again when it dies,
/// and among the last that the kernel ends for want of memory.
///
/// # Errors
///
/// As those of a step's unit.
pub fn start_guard(program: &Path, arguments: &[String], folder: &Path) -> Result<(), UnitError> {
    let digest = fleet_types::digest::Digest::of(folder.as_os_str().as_encoded_bytes()).to_string();
    let unit = format!("fleet-guard-{}.service", digest.rsplit(':').next().unwrap_or_default());
    let program = program.to_str().ok_or_else(|| not_text(&unit, program))?;
    let mut words = vec!["fleet-agent"];
    words.extend(arguments.iter().map(String::as_str));
    let command: Vec<CommandLine<'_>> = vec![(program, words, false)];
    let properties = vec![
        ("Description", Variant::from("The guard of a change of the fleet agent".to_owned())),
        ("ExecStart", Variant::from(command)),
        ("Type", Variant::from("exec")),
        ("CollectMode", Variant::from("inactive-or-failed")),
        ("Restart", Variant::from("on-failure")),
        ("RestartUSec", Variant::from(micros(GUARD_RESTART))),
        ("StartLimitIntervalUSec", Variant::from(0_u64)),
        ("OOMScoreAdjust", Variant::from(GUARD_OOM_SCORE)),
    ];
    until_answered(ANSWER_LIMIT, || {
        ask(&unit, ANSWER_LIMIT, async |bus| match started(bus, &unit, &properties).await {
            // Asked for before systemd went away, and there.
            Err(UnitError::Failed { .. }) if is_there(bus, &unit).await => Ok(()),
            started => started.map(drop),
        })
    })
}

async fn is_there(bus: &Connection, unit: &str) -> bool {
    let Ok(transients) = TransientsProxy::new(bus).await else { return false };
    transients.get_unit(unit).await.is_ok()
}

/// Starts a unit with these properties and waits until systemd has executed its program.
async fn started<'a>(
    bus: &'a Connection,
    unit: &str,
    properties: &[(&str, Variant<'_>)],
) -> Result<TransientsProxy<'a>, UnitError> {
    let wrong = |error: Error| unit_error(unit, &error);
    let transients = TransientsProxy::new(bus).await.map_err(wrong)?;
    let manager = ManagerProxy::new(bus).await.map_err(wrong)?;
    job_ended(&manager, unit, "start", async || {
        transients.start_transient_unit(unit, "fail", properties, &[]).await
    })
    .await?;
    Ok(transients)
}

/// The process of a unit; none when it is gone, and the unit with it.
async fn main_process(bus: &Connection, transients: &TransientsProxy<'_>, unit: &str) -> Option<u32> {
    let path = transients.get_unit(unit).await.ok()?;
    let service = ServiceProxy::builder(bus).path(path).build().await.ok()?;
    service.main_pid().await.ok().filter(|pid| *pid > 0)
}

/// Ends everything in the unit of this invocation. There may be none any more.
pub(super) fn kill(invocation: &str) {
    let Some(number) = uuid::Uuid::try_parse(invocation).ok() else { return };
    let killed = ask(invocation, ANSWER_LIMIT, async |bus| {
        let wrong = |error: Error| unit_error(invocation, &error);
        let transients = TransientsProxy::new(bus).await.map_err(wrong)?;
        let Ok(path) = transients.get_unit_by_invocation_id(number.as_bytes().to_vec()).await else {
            return Ok(());
        };
        let unit = KilledProxy::builder(bus).path(path).build().await.map_err(wrong)?;
        unit.kill("all", Signal::KILL.as_raw()).await.map_err(wrong)
    });
    if let Err(error) = killed {
        tracing::warn!(invocation, %error, "cannot end a unit");
    }
}

/// The unit of a record: the same for the same step, so that systemd refuses a second one while the first is there.
pub(super) fn name_of(run: &str, record: &str) -> String {
    let name = format!("fleet-step-{run}-{record}.service");
    if name.len() <= MAX_UNIT_NAME {
        return name;
    }
    let digest = fleet_types::digest::Digest::of(record.as_bytes()).to_string();
    format!("fleet-step-{run}-{}.service", digest.rsplit(':').next().unwrap_or_default())
}

/// The program for a process that is none of ours: `/proc/self` would be its own. The link of this process leads to the
/// very file that it runs, also where another version has taken the file's place.
fn reachable(program: &Path) -> PathBuf {
    if program.as_os_str() == OsStr::new(THIS_PROGRAM) {
        return PathBuf::from(format!("/proc/{}/exe", std::process::id()));
    }
    program.to_owned()
}

fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}

fn not_text(unit: &str, path: &Path) -> UnitError {
    UnitError::Failed { unit: unit.to_owned(), why: format!("{} is no UTF-8", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::units::check_unit_name;

    #[test]
    fn every_record_has_a_unit_of_its_own_that_systemd_takes() {
        let run = "0197a0c4-0000-7000-8000-000000000007";
        let name = name_of(run, "1.undo_3aupgrade.1.main");
        assert_eq!(name, format!("fleet-step-{run}-1.undo_3aupgrade.1.main.service"));
        check_unit_name(&name).unwrap();
        let (one, other) = (name_of(run, &"a".repeat(300)), name_of(run, &"a".repeat(301)));
        check_unit_name(&one).unwrap();
        assert_ne!(one, other);
    }
}
