//! What several commands need of the configuration.

use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use fleet_executor::guard::GuardProgram;
use fleet_executor::host::{HostConfig, LinuxHost, Supervisor, UnitsKind};
use fleet_executor::policy::{LocalPolicy, PolicyReader};

use crate::args::Configured;
use crate::clock;
use crate::config::owners_file::{OwnersFile, Stamp};
use crate::config::{Config, raw, validated};
use crate::error::{Exit, Failure, chain};

/// Where systemd says that it runs this machine (`sd_booted(3)`).
const SYSTEMD_RUNS: &str = "/run/systemd/system";

/// Reads the configuration; all its problems are one failure.
pub fn load(configured: &Configured) -> Result<Config, Failure> {
    validated::load(Some(&configured.config), variables(), &configured.set)
        .map_err(|error| Failure::of(Exit::Usage, &error))
}

/// Reads the owner's policy, and refuses a file that others may write. Cheap while the file has not changed.
pub fn policy_reader(configured: &Configured) -> PolicyReader {
    let configured = configured.clone();
    let last: Mutex<Option<(Stamp, Result<LocalPolicy, String>)>> = Mutex::new(None);
    Arc::new(move || {
        let file = OwnersFile::open(&configured.config).map_err(|error| chain(&error))?;
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((stamp, read)) = &*last
            && *stamp == file.stamp()
        {
            return read.clone();
        }
        let stamp = file.stamp();
        let read = file
            .read()
            .and_then(|text| validated::load_text(&configured.config, &text, variables(), &configured.set))
            .map(|config| config.policy)
            .map_err(|error| chain(&error));
        // A file that was written this moment may be written again without its times showing it.
        *last = stamp.is_settled(clock::now()).then(|| (stamp, read.clone()));
        read
    })
}

/// The environment; a variable that is no text is not ours.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Root keys and trust bundle of the executor.
pub fn trust_directory(config: &Config) -> PathBuf {
    config.state_directory.join("trust")
}

/// The machine: the real one, or a development root with supervised units.
pub fn host(config: &Config) -> Result<LinuxHost, Failure> {
    LinuxHost::open(&host_config(config)).map_err(|error| Failure::of(Exit::Failed, &error))
}

/// The same for a process beside the agent.
pub fn host_beside(config: &Config) -> Result<LinuxHost, Failure> {
    LinuxHost::open_beside(&host_config(config)).map_err(|error| Failure::of(Exit::Failed, &error))
}

fn host_config(config: &Config) -> HostConfig {
    HostConfig {
        root: config.dev_root.clone().unwrap_or_else(|| PathBuf::from("/")),
        state: config.state_directory.clone(),
        supervisor: Supervisor::of_this_program(),
        units: units(config),
    }
}

fn units(config: &Config) -> UnitsKind {
    let systemd = config.dev_root.is_none() && std::path::Path::new(SYSTEMD_RUNS).is_dir();
    if systemd { UnitsKind::Systemd } else { UnitsKind::Supervised }
}

/// How guards are started: this program, with the settings that it was given itself.
pub fn guards(configured: &Configured, config: &Config) -> GuardProgram {
    // Its working folder is another one.
    let file = std::path::absolute(&configured.config).unwrap_or_else(|_| configured.config.clone());
    let mut arguments = vec!["guard".to_owned(), "--config".to_owned(), file.to_string_lossy().into_owned()];
    // A unit of systemd has nothing of this process's environment; flags win over it, so they come last.
    let own = variables().filter_map(|(name, value)| Some(format!("{}={value}", raw::variable_key(&name)?)));
    let sets: Vec<String> = own.chain(configured.set.iter().cloned()).collect();
    arguments.extend(sets.into_iter().flat_map(|set| ["--set".to_owned(), set]));
    GuardProgram { arguments, units: units(config) }
}

/// Prints to standard output; a closed pipe is no failure of ours.
pub fn print(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints JSON to standard output.
pub fn print_json(value: &serde_json::Value) {
    // Values have string keys and always serialise.
    print(serde_json::to_string_pretty(value).unwrap_or_default());
}
