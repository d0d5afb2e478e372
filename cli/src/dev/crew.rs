//! The processes of a running development fleet: started, watched, started again, and ended in order.
//!
//! Blocking, and owned by one place at a time: `run` while the fleet is up, a thread of its own while it
//! ends. Whatever happens to its owner, dropping it ends everything that was started.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::launch;
use super::ledger::{ProcessLedger, end_below};
use super::process::{Process, wait_for};
use super::programs::Programs;
use crate::error::{ExitCode, Failure};

/// Agents end within their drain time of 3 s; as much again for a machine that is busy.
const AGENT_GRACE: Duration = Duration::from_secs(6);
/// The controller's drain time is 10 s.
const CONTROLLER_GRACE: Duration = Duration::from_secs(12);
/// A unit has 10 s between SIGTERM and SIGKILL.
const UNITS_GRACE: Duration = Duration::from_secs(20);
/// When it has to be quick.
const HURRIED_GRACE: Duration = Duration::from_secs(3);
/// systemd's `RestartSec=` of the shipped units.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// systemd's `StartLimitBurst=`: one that ends again and again is not helped by another start.
const MAX_RESTARTS: usize = 5;
/// systemd's `StartLimitIntervalSec=`, longer, because these programs take a while to fail.
const RESTART_WINDOW: Duration = Duration::from_mins(1);

/// Signals that somebody sends on purpose, to see what happens; after these a program is always started again.
const SENT: [i32; 3] = [Signal::KILL.as_raw(), Signal::TERM.as_raw(), Signal::INT.as_raw()];

/// One program that is to run.
#[derive(Debug)]
struct Member {
    name: String,
    command: Command,
    log: PathBuf,
    state: State,
    /// Ends that nobody else had caused, within [`RESTART_WINDOW`].
    own_ends: Vec<Instant>,
}

#[derive(Debug)]
enum State {
    Running(Process),
    /// Ended by itself; to be started again.
    Ended(Instant),
    /// Ended too often.
    GivenUp,
}

/// Set once: from then on nothing is waited for patiently.
#[derive(Debug, Clone, Default)]
pub struct Hurry(Arc<AtomicBool>);

impl Hurry {
    /// From now on.
    pub fn up(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Has it been asked for?
    pub fn is_up(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// All of them.
#[derive(Debug)]
pub struct Crew {
    programs: Programs,
    folder: PathBuf,
    ledger: ProcessLedger,
    controller: Option<Member>,
    agents: Vec<Member>,
    /// Configurations of nodes that may have supervised units.
    nodes: Vec<(PathBuf, PathBuf)>,
    hurry: Hurry,
    is_stopped: bool,
}

impl Crew {
    /// Nobody yet; `folder` is that of the fleet.
    pub fn new(programs: Programs, folder: &Path) -> Self {
        let ledger = ProcessLedger::open(&folder.join("processes.json"));
        let (controller, agents, nodes) = (None, Vec::new(), Vec::new());
        Self {
            programs,
            folder: folder.to_owned(),
            ledger,
            controller,
            agents,
            nodes,
            hurry: Hurry::default(),
            is_stopped: false,
        }
    }

    /// Where they are.
    pub const fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Makes the end quick, also from another thread.
    pub fn hurry(&self) -> Hurry {
        self.hurry.clone()
    }

    /// Starts the controller.
    pub fn start_controller(&mut self, config: &Path, ready: &Path, log: &Path) -> Result<u32, Failure> {
        let command = launch::controller(&self.programs.controller, config, ready);
        let (pid, member) = self.start("controller", command, log)?;
        self.controller = Some(member);
        Ok(pid)
    }

    /// Starts the agent of a node whose configuration is `config`.
    pub fn start_agent(&mut self, name: &str, config: &Path, log: &Path) -> Result<u32, Failure> {
        // Noted first: whatever comes, its units are stopped.
        self.nodes.push((config.to_owned(), log.to_owned()));
        let command = launch::agent(&self.programs.agent, "run", config);
        let (pid, member) = self.start(name, command, log)?;
        self.agents.push(member);
        Ok(pid)
    }

    fn start(&mut self, name: &str, mut command: Command, log: &Path) -> Result<(u32, Member), Failure> {
        let process = self.process(&mut command, log)?;
        let (pid, name, log) = (process.pid(), name.to_owned(), log.to_owned());
        Ok((pid, Member { name, command, log, state: State::Running(process), own_ends: Vec::new() }))
    }

    /// Starts a program that ends by itself, such as an enrolment; its owner waits for it.
    pub fn process(&mut self, command: &mut Command, log: &Path) -> Result<Process, Failure> {
        let process = Process::start(command, log).map_err(|error| {
            Failure::new(
                ExitCode::Unexpected,
                "not-started",
                format!("{} cannot be started", command.get_program().display()),
            )
            .because(&error)
        })?;
        if let Some(mark) = process.mark() {
            self.ledger
                .note(mark)
                .map_err(|error| Failure::unexpected("the list of processes cannot be kept", &error))?;
        }
        Ok(process)
    }

    /// How the controller or an agent ended by itself, with its log; none while all run.
    pub fn first_end(&mut self) -> Option<(String, ExitStatus, PathBuf)> {
        self.controller.iter_mut().chain(&mut self.agents).find_map(|member| {
            let State::Running(process) = &mut member.state else { return None };
            Some((member.name.clone(), process.ended()?, member.log.clone()))
        })
    }

    /// Notes which process ended and starts it again after a moment, as systemd would; says what was seen and done.
    pub fn look(&mut self, now: Instant) -> Vec<String> {
        let mut said = Vec::new();
        let mut members = std::mem::take(&mut self.agents);
        let controller = self.controller.take().map(|member| members.insert(0, member)).is_some();
        for member in &mut members {
            said.extend(self.look_at(member, now));
        }
        if controller {
            self.controller = Some(members.remove(0));
        }
        self.agents = members;
        said
    }

    fn look_at(&mut self, member: &mut Member, now: Instant) -> Option<String> {
        match &mut member.state {
            State::Running(process) => {
                let status = process.ended()?;
                member.own_ends.retain(|at| now.duration_since(*at) < RESTART_WINDOW);
                if status.signal().is_none_or(|signal| !SENT.contains(&signal)) {
                    member.own_ends.push(now);
                }
                if member.own_ends.len() > MAX_RESTARTS {
                    member.state = State::GivenUp;
                    let log = member.log.display();
                    return Some(format!(
                        "{} ended again ({status}) and is left alone now; its log: {log}",
                        member.name
                    ));
                }
                member.state = State::Ended(now);
                Some(format!(
                    "{} ended ({status}); started again in {} s, as systemd would",
                    member.name,
                    RESTART_AFTER.as_secs()
                ))
            }
            State::Ended(at) if now.duration_since(*at) >= RESTART_AFTER => {
                match self.process(&mut member.command, &member.log) {
                    Ok(process) => {
                        let said = format!("{} runs again, pid {}", member.name, process.pid());
                        member.state = State::Running(process);
                        Some(said)
                    }
                    Err(failure) => {
                        member.state = State::GivenUp;
                        Some(format!("{}: {}", member.name, failure.what))
                    }
                }
            }
            State::Ended(_) | State::GivenUp => None,
        }
    }

    /// Ends everything, agents first, so that they can hand over their reports. Says what did not go well.
    pub fn stop(&mut self) -> Vec<String> {
        if std::mem::replace(&mut self.is_stopped, true) {
            return Vec::new();
        }
        let mut said = Vec::new();
        let hurry = self.hurry.clone();
        let hurried = || hurry.is_up();
        let mut agents = std::mem::take(&mut self.agents);
        end_members(&mut agents, AGENT_GRACE, &hurried, &mut said);
        said.extend(self.stop_units(&hurried));
        // What agents started is known to them alone; this finds what they could not end.
        let left = end_below(&self.folder.join("nodes"), &hurried);
        if left > 0 {
            said.push(format!("ended {left} processes of nodes that were still running"));
        }
        let mut controller: Vec<_> = self.controller.take().into_iter().collect();
        end_members(&mut controller, CONTROLLER_GRACE, &hurried, &mut said);
        said
    }

    /// Stops the supervised units of all nodes at once, through the agent's own command.
    fn stop_units(&mut self, hurried: &dyn Fn() -> bool) -> Vec<String> {
        let nodes = std::mem::take(&mut self.nodes);
        let program = self.programs.agent.clone();
        let mut said = Vec::new();
        let mut running = Vec::new();
        for (config, log) in &nodes {
            match self.process(&mut launch::agent(&program, "stop-units", config), log) {
                Ok(process) => running.push(process),
                Err(failure) => said.push(format!("units of {}: {}", config.display(), failure.what)),
            }
        }
        let grace = if hurried() { HURRIED_GRACE } else { UNITS_GRACE };
        let end = Instant::now() + grace;
        for mut process in running {
            let left = end.saturating_duration_since(Instant::now());
            // Not hurried along here: stopping units takes milliseconds unless one of them hangs.
            match process.wait(left.max(Duration::from_millis(1)), &|| false) {
                Some(status) if status.success() => {}
                Some(status) => {
                    said.push(format!("stopping units: {status}; see {}", process.log().display()));
                }
                None => said.push(format!(
                    "stopping units took over {} s; see {}",
                    grace.as_secs(),
                    process.log().display()
                )),
            }
        }
        said
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // Nobody could stop it in order: a panic, or an error on the way.
        self.hurry.up();
        self.stop();
    }
}

fn end_members(members: &mut [Member], grace: Duration, hurried: &dyn Fn() -> bool, said: &mut Vec<String>) {
    let mut running: Vec<_> = members
        .iter_mut()
        .filter_map(|member| match &mut member.state {
            State::Running(process) => Some((&member.name, process)),
            State::Ended(_) | State::GivenUp => None,
        })
        .collect();
    for (_, process) in &mut running {
        process.signal(Signal::TERM);
    }
    let all_ended = || running.iter_mut().all(|(_, process)| process.ended().is_some()).then_some(());
    if wait_for(grace, hurried, all_ended).is_some() {
        return;
    }
    for (name, process) in &mut running {
        if process.ended().is_none() {
            process.signal(Signal::KILL);
            process.wait(HURRIED_GRACE, &|| false);
            if !hurried() {
                said.push(format!(
                    "{name} did not end within {} s and was killed; its log: {}",
                    grace.as_secs(),
                    process.log().display()
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests;
