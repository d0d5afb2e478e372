//! Units of systemd, over the system bus.
//!
//! `org.freedesktop.systemd1(5)`: the manager's methods answer with a job, whose end is a signal. Each call has a
//! connection of its own: it needs no thread, survives a restart of the bus, and costs a few milliseconds. What cannot be
//! asked is an error, never a state. Must not start anything that is not a unit. Called by tasks through `Units`.

use std::path::Path;
use std::time::{Duration, Instant};

use fleet_types::time::Timestamp;
use tokio::runtime::Builder;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use zbus::proxy::CacheProperties;
use zbus::{Connection, Error, OwnedObjectPath, fdo, proxy};

use super::units::{
    Activity, LastRun, UnitError, UnitRelations, UnitState, Units, UnitsKind, check_unit_name,
};
use super::{systemd_files, systemd_restart};

/// The bus; Debian starts it with the first sockets.
const BUS: &str = "/run/dbus/system_bus_socket";
/// For one question. systemd answers in milliseconds; a machine that swaps takes seconds.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Before something is asked again: systemd is back in a tenth of a second or a few.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(100);

#[proxy(
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    interface = "org.freedesktop.systemd1.Manager"
)]
pub(super) trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reload_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(property)]
    fn system_state(&self) -> zbus::Result<String>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

#[proxy(default_service = "org.freedesktop.systemd1", interface = "org.freedesktop.systemd1.Unit")]
trait Unit {
    #[zbus(property)]
    fn load_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn active_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn sub_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn active_enter_timestamp(&self) -> zbus::Result<u64>;
}

#[proxy(default_service = "org.freedesktop.systemd1", interface = "org.freedesktop.systemd1.Service")]
pub(super) trait Service {
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> zbus::Result<u32>;
    #[zbus(property)]
    fn result(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn exec_main_start_timestamp(&self) -> zbus::Result<u64>;
    #[zbus(property)]
    fn exec_main_exit_timestamp(&self) -> zbus::Result<u64>;
    #[zbus(property)]
    fn exec_main_code(&self) -> zbus::Result<i32>;
    #[zbus(property)]
    fn exec_main_status(&self) -> zbus::Result<i32>;
}

/// What the manager is asked to do with a unit.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Start,
    Stop,
    Restart,
    Reload,
}

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
        }
    }
}

/// The units of this machine's systemd.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SystemdUnits;

impl Units for SystemdUnits {
    fn kind(&self) -> UnitsKind {
        UnitsKind::Systemd
    }

    fn unavailable(&self) -> Option<&'static str> {
        (!Path::new(BUS).exists()).then_some("this machine has no system bus; install the package dbus")
    }

    fn state(&self, unit: &str) -> Result<UnitState, UnitError> {
        check_unit_name(unit)?;
        look(unit, &async |bus| state_of(bus, unit).await)
    }

    fn relations(&self, unit: &str) -> Result<UnitRelations, UnitError> {
        check_unit_name(unit)?;
        look(unit, &async |bus| systemd_files::relations(bus, unit).await)
    }

    fn start(&self, unit: &str, limit: Duration) -> Result<(), UnitError> {
        // A start of one that waits to be started again after it failed would wait as long.
        let waits = self.state(unit)?.activity == Activity::Failed;
        let verb = if waits { Verb::Restart } else { Verb::Start };
        carry_out(unit, verb, limit)
    }

    fn stop(&self, unit: &str, limit: Duration) -> Result<(), UnitError> {
        carry_out(unit, Verb::Stop, limit)
    }

    fn restart(&self, unit: &str, limit: Duration) -> Result<(), UnitError> {
        carry_out(unit, Verb::Restart, limit)
    }

    fn reload(&self, unit: &str, limit: Duration) -> Result<(), UnitError> {
        carry_out(unit, Verb::Reload, limit)
    }

    fn is_enabled(&self, unit: &str) -> Result<bool, UnitError> {
        check_unit_name(unit)?;
        look(unit, &async |bus| systemd_files::is_enabled(bus, unit).await)
    }

    fn set_enabled(&self, unit: &str, enabled: bool) -> Result<(), UnitError> {
        check_unit_name(unit)?;
        look(unit, &async |bus| systemd_files::set_enabled(bus, unit, enabled).await)
    }

    fn load_files(&self) -> Result<(), UnitError> {
        look("systemd", &async |bus| systemd_files::load_files(bus).await)
    }

    fn against_restart(&self) -> Result<Vec<String>, UnitError> {
        ask("systemd", ANSWER_LIMIT, async |bus| systemd_restart::against(bus).await)
    }

    fn restart_machine(&self) -> Result<(), UnitError> {
        ask("systemd", ANSWER_LIMIT, async |bus| systemd_restart::restart(bus).await)
    }

    fn is_booting(&self) -> Result<bool, UnitError> {
        look("systemd", &async |bus: &Connection| {
            let wrong = |error: Error| unit_error("systemd", &error);
            let manager = ManagerProxy::builder(bus).cache_properties(CacheProperties::No).build();
            let state = manager.await.map_err(wrong)?.system_state().await.map_err(wrong)?;
            Ok(matches!(state.as_str(), "initializing" | "starting"))
        })
    }
}

/// Runs one conversation with the manager to its end, on this thread.
pub(super) fn ask<T>(
    unit: &str,
    limit: Duration,
    talk: impl AsyncFnOnce(&Connection) -> Result<T, UnitError>,
) -> Result<T, UnitError> {
    let failed = |why: String| UnitError::Failed { unit: unit.to_owned(), why };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| failed(e.to_string()))?;
    let whole = async {
        let bus = Connection::system().await.map_err(|e| failed(format!("the system bus: {e}")))?;
        talk(&bus).await
    };
    let overran = |_| failed(format!("systemd did not answer within {} s", limit.as_secs()));
    runtime.block_on(async { timeout(limit, whole).await }).map_err(overran)?
}

/// What may be asked twice, asked again while systemd executes itself anew, as it does when its own package is upgraded:
/// then it forgets what it was asked.
fn look<T>(unit: &str, talk: &impl AsyncFn(&Connection) -> Result<T, UnitError>) -> Result<T, UnitError> {
    until_answered(ANSWER_LIMIT, || ask(unit, ANSWER_LIMIT, talk))
}

/// Asks again for so long while nobody answers.
pub(super) fn until_answered<T>(
    limit: Duration,
    mut ask: impl FnMut() -> Result<T, UnitError>,
) -> Result<T, UnitError> {
    let until = Instant::now() + limit;
    loop {
        match ask() {
            Err(UnitError::Away { .. }) if Instant::now() < until => std::thread::park_timeout(AGAIN_AFTER),
            answer => return answer,
        }
    }
}

/// Did whom we asked leave before the answer?
fn is_away(error: &Error) -> bool {
    const NAMES: [&str; 2] =
        ["org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected"];
    match error {
        Error::MethodError(name, ..) => NAMES.contains(&name.as_str()),
        Error::FDO(error) => matches!(**error, fdo::Error::NoReply(_) | fdo::Error::Disconnected(_)),
        _ => false,
    }
}

/// What an error of the bus says of a unit.
pub(super) fn unit_error(unit: &str, error: &Error) -> UnitError {
    let (unit, why) = (unit.to_owned(), error.to_string());
    if is_away(error) {
        return UnitError::Away { unit, why };
    }
    let Error::MethodError(name, said, _) = error else { return UnitError::Failed { unit, why } };
    let why = said.clone().unwrap_or(why);
    match name.as_str().rsplit('.').next() {
        Some("NoSuchUnit") => UnitError::NotFound(unit),
        Some("UnitMasked" | "BadUnitSetting" | "LoadFailed") => UnitError::File { unit, why },
        _ => UnitError::Failed { unit, why },
    }
}

async fn state_of(bus: &Connection, unit: &str) -> Result<UnitState, UnitError> {
    let wrong = |error: Error| unit_error(unit, &error);
    let path = ManagerProxy::new(bus).await.map_err(wrong)?.load_unit(unit).await.map_err(wrong)?;
    let about = UnitProxy::builder(bus).path(path.clone());
    let about = about.cache_properties(CacheProperties::No).build().await.map_err(wrong)?;
    let load = about.load_state().await.map_err(wrong)?;
    if load == "error" || load == "bad-setting" {
        let why = format!("systemd cannot load it ({load}); see systemctl status {unit}");
        return Err(UnitError::File { unit: unit.to_owned(), why });
    }
    let (active, sub) = (about.active_state().await.map_err(wrong)?, about.sub_state().await.map_err(wrong)?);
    let mut state = UnitState {
        activity: activity(&load, &active, &sub),
        main_pid: None,
        started: instant(about.active_enter_timestamp().await.map_err(wrong)?),
        last_run: None,
    };
    if state.activity == Activity::NotFound || !unit.ends_with(".service") {
        return Ok(state);
    }
    let service = ServiceProxy::builder(bus).path(path);
    let service = service.cache_properties(CacheProperties::No).build().await.map_err(wrong)?;
    state.main_pid = Some(service.main_pid().await.map_err(wrong)?).filter(|pid| *pid > 0);
    state.started = instant(service.exec_main_start_timestamp().await.map_err(wrong)?).or(state.started);
    // Of a run that is under way the time of the last end is none.
    if let Some(ended) = instant(service.exec_main_exit_timestamp().await.map_err(wrong)?) {
        let result = service.result().await.map_err(wrong)?;
        let code = service.exec_main_code().await.map_err(wrong)?;
        let status = service.exec_main_status().await.map_err(wrong)?;
        state.last_run =
            Some(LastRun { ended, success: result == "success", how: how(&result, code, status) });
    }
    Ok(state)
}

/// `systemctl(1)`: a unit that is reloading runs; one that waits to be started again after it failed does not.
fn activity(load: &str, active: &str, sub: &str) -> Activity {
    match (load, active, sub) {
        (_, "active" | "reloading" | "refreshing", _) => Activity::Active,
        (_, "failed", _) | (_, "activating", "auto-restart" | "auto-restart-queued") => Activity::Failed,
        ("not-found", ..) => Activity::NotFound,
        _ => Activity::Inactive,
    }
}

/// Microseconds since 1970; zero is never.
fn instant(micros: u64) -> Option<Timestamp> {
    let millis = i64::try_from(micros / 1000).unwrap_or(i64::MAX);
    (micros > 0).then(|| Timestamp::clamped(millis))
}

/// How a main process ended: `CLD_EXITED` is 1 (`sigaction(2)`), any other code is a signal's.
fn how(result: &str, code: i32, status: i32) -> String {
    match (result, code) {
        ("success" | "exit-code", 1) => format!("exit status {status}"),
        ("signal" | "core-dump", _) => format!("ended by signal {status}"),
        _ => result.to_owned(),
    }
}

/// Has a job done within the limit; systemd goes on with one that takes longer.
fn carry_out(unit: &str, verb: Verb, limit: Duration) -> Result<(), UnitError> {
    check_unit_name(unit)?;
    let until = Instant::now() + limit;
    // Each may be asked for twice: a service that is restarted once more does no harm, one that was not is taken for broken.
    until_answered(limit, || {
        let left = until.saturating_duration_since(Instant::now());
        ask(unit, left.saturating_add(ANSWER_LIMIT), async |bus| {
            timeout(left, job(bus, unit, verb)).await.unwrap_or_else(|_| {
                let (verb, limit) = (verb.as_str(), limit.as_secs());
                let why = format!(
                    "its {verb} did not end within {limit} s and may go on; see systemctl status {unit}"
                );
                Err(UnitError::Failed { unit: unit.to_owned(), why })
            })
        })
    })
}

/// Gives the manager a job and waits for its end.
async fn job(bus: &Connection, unit: &str, verb: Verb) -> Result<(), UnitError> {
    let manager = ManagerProxy::new(bus).await.map_err(|error| unit_error(unit, &error))?;
    // "replace": a job that stands against this one gives way, as with systemctl.
    job_ended(&manager, unit, verb.as_str(), async || match verb {
        Verb::Start => manager.start_unit(unit, "replace").await,
        Verb::Stop => manager.stop_unit(unit, "replace").await,
        Verb::Restart => manager.restart_unit(unit, "replace").await,
        Verb::Reload => manager.reload_unit(unit, "replace").await,
    })
    .await
}

/// Makes a job and waits for its end.
pub(super) async fn job_ended(
    manager: &ManagerProxy<'_>,
    unit: &str,
    what: &str,
    give: impl AsyncFnOnce() -> zbus::Result<OwnedObjectPath>,
) -> Result<(), UnitError> {
    let wrong = |error: Error| unit_error(unit, &error);
    let failed = |why: String| UnitError::Failed { unit: unit.to_owned(), why };
    manager.subscribe().await.map_err(wrong)?;
    // Listened for before the job is made: its end may come before the answer does.
    let mut ends = manager.receive_job_removed().await.map_err(wrong)?;
    let made = give().await.map_err(wrong)?;
    loop {
        let Some(end) = ends.next().await else { return Err(failed("the system bus went away".to_owned())) };
        let end = end.args().map_err(wrong)?;
        if end.job == made {
            return match end.result.as_str() {
                "done" => Ok(()),
                result => {
                    Err(failed(format!("its {what} ended with \"{result}\"; see systemctl status {unit}")))
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_went_away_is_asked_again() {
        let away = || UnitError::Away { unit: "a.service".to_owned(), why: String::new() };
        let gone = Error::FDO(Box::new(fdo::Error::NoReply("Message recipient disconnected".to_owned())));
        assert!(matches!(unit_error("a.service", &gone), UnitError::Away { .. }));
        let other = Error::FDO(Box::new(fdo::Error::AccessDenied("no".to_owned())));
        assert!(matches!(unit_error("a.service", &other), UnitError::Failed { .. }));
        let mut answers = vec![Ok(7), Err(away()), Err(away())];
        assert_eq!(until_answered(ANSWER_LIMIT, || answers.pop().unwrap()), Ok(7));
        let mut answers = vec![Err(UnitError::NotFound("a.service".to_owned())), Err(away())];
        assert!(matches!(
            until_answered::<u8>(ANSWER_LIMIT, || answers.pop().unwrap()),
            Err(UnitError::NotFound(_))
        ));
    }

    #[test]
    fn words_of_systemd() {
        for (load, active, sub, expected) in [
            ("loaded", "active", "running", Activity::Active),
            ("loaded", "reloading", "reload", Activity::Active),
            ("not-found", "active", "running", Activity::Active),
            ("loaded", "activating", "auto-restart", Activity::Failed),
            ("loaded", "activating", "start", Activity::Inactive),
            ("loaded", "failed", "failed", Activity::Failed),
            ("masked", "inactive", "dead", Activity::Inactive),
            ("not-found", "inactive", "dead", Activity::NotFound),
        ] {
            assert_eq!(activity(load, active, sub), expected, "{load} {active} {sub}");
        }
        assert_eq!(how("success", 1, 0), "exit status 0");
        assert_eq!(how("exit-code", 1, 3), "exit status 3");
        assert_eq!(how("signal", 2, 9), "ended by signal 9");
        assert_eq!(how("timeout", 2, 15), "timeout");
        assert_eq!(instant(0), None);
        assert_eq!(instant(1_790_000_000_123_456), Some(Timestamp::clamped(1_790_000_000_123)));
    }
}
