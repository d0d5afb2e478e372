//! The validated configuration: the only type of the three that travels through the program.

use std::path::{Path, PathBuf};

use fleet_certs::ServerName;
use fleet_executor::policy::LocalPolicy;
use fleet_types::digest::Digest;
use fleet_types::document::Size;
use fleet_types::id::Name;
use serde::Deserialize;

use super::merged::Merged;
use super::problem::{ConfigError, Place, Problem};
use super::raw;
use super::timers::{self, Timers};

/// One address of a controller.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// `host:port`; IPv6 addresses in brackets.
    pub address: String,
    /// `main`; `oob` (out of band) is not supported by this build.
    #[serde(default = "main_role")]
    pub role: String,
}

fn main_role() -> String {
    "main".to_owned()
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything the agent needs to know, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// For log lines only.
    pub name: Option<Name>,
    /// Controllers in the order they are tried; empty is an error of `run` only.
    pub endpoints: Vec<Endpoint>,
    /// Enrolment service, where one is configured.
    pub enrol: Option<String>,
    /// Verified in every handshake; none is an error of `run` and `enrol`.
    pub server_name: Option<ServerName<'static>>,
    /// A controller CA that a join token must name.
    pub trust_pin: Option<Digest>,
    /// Folder of the two identity slots.
    pub identity_directory: PathBuf,
    /// Account that the core runs under, in a process of its own; none is one process for both halves.
    pub core_user: Option<String>,
    /// Folder of the executor's state.
    pub state_directory: PathBuf,
    /// Folder for scratch files of steps. No action of this build keeps any, so it is only checked.
    pub work_directory: PathBuf,
    /// Kept of a step's output.
    pub step_output_limit_bytes: u64,
    /// The node owner's last word; checked here, used by the executor alone.
    pub policy: LocalPolicy,
    /// Least severe level that is logged.
    pub log_level: tracing::Level,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Timers.
    pub timers: Timers,
    /// Everything the node may touch lies below this folder; none is the real machine.
    pub dev_root: Option<PathBuf>,
}

/// Reads and checks all layers. `variables` is the environment, `sets` the `--set` flags.
pub fn load(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    sets: &[String],
) -> Result<Config, ConfigError> {
    let text = file.map(read).transpose()?.unwrap_or_default();
    load_text(file.unwrap_or_else(|| Path::new("")), &text, variables, sets)
}

/// The same with the text of the file as it was read; `file` is only for messages.
pub fn load_text(
    file: &Path,
    text: &str,
    variables: impl IntoIterator<Item = (String, String)>,
    sets: &[String],
) -> Result<Config, ConfigError> {
    let path = file.display().to_string();
    let defaults = raw::defaults();
    let mut problems = Vec::new();
    let layers = [
        raw::file(&path, text, &defaults, &mut problems),
        raw::environment(variables, &defaults, &mut problems),
        raw::flags(sets, &defaults, &mut problems),
    ];
    validate(Merged::new(&defaults, layers, problems))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > raw::MAX_FILE_BYTES {
        return Err(failed(std::io::Error::other(format!("it has {length} bytes, a megabyte is the most"))));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// Account of the core on a real machine, made by whoever installs the agent.
const CORE_USER: &str = "fleet-agent";

fn validate(mut merged: Merged) -> Result<Config, ConfigError> {
    for (key, wanted) in [("schema", "fleet/v1"), ("kind", "agent")] {
        if merged.text(key) != wanted {
            merged.problem(key, format!("expected \"{wanted}\""));
        }
    }
    let dev_root = optional(&mut merged, "dev.root", absolute);
    let named = optional(&mut merged, "runtime.core_user", account_name);
    let config = Config {
        core_user: named.or_else(|| dev_root.is_none().then(|| CORE_USER.to_owned())),
        name: optional(&mut merged, "name", |text| text.parse::<Name>().map_err(|e| e.to_string())),
        endpoints: endpoints(&mut merged),
        enrol: optional(&mut merged, "controller.enrol", |text| address(text).map(|()| text.to_owned())),
        server_name: optional(&mut merged, "controller.server_name", |text| {
            ServerName::try_from(text.to_owned())
                .map_err(|_| format!("\"{text}\" is neither a host name nor an address"))
        }),
        trust_pin: optional(&mut merged, "controller.trust_pin", pin),
        identity_directory: directory(&mut merged, "identity.directory"),
        state_directory: directory(&mut merged, "runtime.state_directory"),
        work_directory: directory(&mut merged, "runtime.work_directory"),
        step_output_limit_bytes: output_limit(&mut merged),
        policy: policy(&mut merged),
        log_level: optional(&mut merged, "log.level", |text| {
            text.parse().map_err(|_| format!("\"{text}\" is none of error, warn, info, debug, trace"))
        })
        .unwrap_or(tracing::Level::INFO),
        log_format: optional(&mut merged, "log.format", |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("\"{text}\" is neither text nor json")),
        })
        .unwrap_or(LogFormat::Text),
        timers: timers::read(&mut merged),
        dev_root,
    };
    // Inside the root the node's own work could change the records of that work.
    if config.dev_root.as_ref().is_some_and(|root| config.state_directory.starts_with(root)) {
        merged.problem("runtime.state_directory", "must not lie below dev.root");
    }
    // What the core owns it could exchange as a whole.
    if config.state_directory.starts_with(&config.identity_directory) {
        merged.problem("runtime.state_directory", "must not be identity.directory, nor lie below it");
    }
    if merged.problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(in_order(merged.problems))) }
}

/// Problems in the order of the file, each once.
fn in_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| match &problem.place {
        Place::File { line, column, .. } => (0, *line, *column),
        _ => (1, 0, 0),
    });
    problems.dedup();
    problems
}

fn optional<T>(merged: &mut Merged, key: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
    let text = merged.text(key);
    if text.is_empty() {
        return None;
    }
    read(&text).map_err(|message| merged.problem(key, message)).ok()
}

fn endpoints(merged: &mut Merged) -> Vec<Endpoint> {
    let key = "controller.endpoints";
    let written = merged.value(key).and_then(toml::Value::as_array).cloned().unwrap_or_else(|| {
        merged.problem(key, "expected a list such as [{ address = \"ctl.example.net:7443\" }]");
        Vec::new()
    });
    let mut endpoints = Vec::new();
    for (index, value) in written.into_iter().enumerate() {
        match Endpoint::deserialize(value).map_err(|e| e.message().to_owned()).and_then(checked) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(message) => merged.problem(key, format!("entry {}: {message}", index + 1)),
        }
    }
    endpoints
}

fn checked(endpoint: Endpoint) -> Result<Endpoint, String> {
    address(&endpoint.address)?;
    match endpoint.role.as_str() {
        "main" => Ok(endpoint),
        "oob" => Err("role \"oob\" is not supported by this build yet: remove the entry".to_owned()),
        other => Err(format!("role \"{other}\" is not known: write \"main\"")),
    }
}

fn address(text: &str) -> Result<(), String> {
    let good = text.parse::<http::uri::Authority>().is_ok_and(|authority| {
        authority.port_u16().is_some_and(|port| port != 0)
            && !authority.host().is_empty()
            && !text.contains('@')
    });
    if good {
        Ok(())
    } else {
        Err(format!("\"{text}\" is no address: write host:port, IPv6 as [2001:db8::5]:7443"))
    }
}

fn pin(text: &str) -> Result<Digest, String> {
    text.strip_prefix("sha256:")
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| format!("\"{text}\" is no pin: write sha256: and 64 hexadecimal digits"))
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let plain = !path.components().any(|part| matches!(part, std::path::Component::ParentDir));
    if path.is_absolute() && plain {
        Ok(path)
    } else {
        Err(format!("\"{text}\" must be an absolute path without \"..\""))
    }
}

/// A name as `useradd` takes it (`useradd(8)`: 32 characters).
fn account_name(text: &str) -> Result<String, String> {
    let good = text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c));
    if good { Ok(text.to_owned()) } else { Err(format!("\"{text}\" is no name of an account")) }
}

fn directory(merged: &mut Merged, key: &str) -> PathBuf {
    let text = merged.text(key);
    absolute(&text).unwrap_or_else(|message| {
        merged.problem(key, message);
        PathBuf::new()
    })
}

fn output_limit(merged: &mut Merged) -> u64 {
    let key = "runtime.step_output_limit";
    let text = merged.text(key);
    match text.parse::<Size>() {
        // At least what stands in a report's tail; at most half of what the controller keeps of a step, so that all that is
        // sent is kept there, and the report's digest is that of it.
        Ok(size) if (4096..=1 << 20).contains(&size.bytes()) => size.bytes(),
        Ok(_) => {
            merged.problem(key, format!("\"{text}\" must lie between 4KiB and 1MiB"));
            4096
        }
        Err(error) => {
            merged.problem(key, error.to_string());
            4096
        }
    }
}

fn policy(merged: &mut Merged) -> LocalPolicy {
    let written = merged.value("policy").cloned().unwrap_or_else(|| toml::Value::Table(toml::Table::new()));
    let policy = LocalPolicy::deserialize(written).map_err(|error| error.message().to_owned());
    let checked =
        policy.and_then(|policy| policy.check().map(|()| policy).map_err(|error| error.to_string()));
    checked.unwrap_or_else(|message| {
        merged.problem("policy", message);
        LocalPolicy::default()
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn loaded(text: &str, variables: &[(&str, &str)], sets: &[&str]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        load(Some(&path), variables, &sets.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_defaults_are_valid_and_say_what_the_rules_say() {
        let config = load(None, [], &[]).unwrap();
        assert_eq!(config.timers.backoff_max, Duration::from_mins(1));
        assert_eq!(config.timers.heartbeat, Duration::from_secs(30));
        assert!(config.endpoints.is_empty() && config.dev_root.is_none());
        assert_eq!(config.core_user.as_deref(), Some("fleet-agent"), "a real machine has two processes");
        let dev = load(None, [], &["dev.root=/tmp/x".to_owned()]).unwrap();
        assert_eq!(dev.core_user, None);
    }

    #[test]
    fn later_layers_win() {
        let text =
            "[log]\nlevel = \"warn\"\n[timers]\ndrain = \"1s\"\n[controller]\nserver_name = \"a.example\"\n";
        let variables =
            [("FLEET_LOG__LEVEL", "debug"), ("FLEET_TIMERS__DRAIN", "2s"), ("FLEET_CONTEXT", "prod")];
        let config = loaded(text, &variables, &["timers.drain=3s"]).unwrap();
        assert_eq!(config.log_level, tracing::Level::DEBUG);
        assert_eq!(config.timers.drain, Duration::from_secs(3));
        assert_eq!(config.server_name.unwrap().to_str(), "a.example");
    }

    #[test]
    fn all_problems_are_listed_at_once_with_their_places() {
        let text = "\
kind = \"agent\"
[controller]
endpoints = [{ address = \"ctl.example.net\" }, { address = \"[::1]:7443\", role = \"oob\" }]
server_nam = \"x\"
[link]
class = \"metered\"
[runtime]
state_directory = \"var/lib\"
step_output_limit = \"1 GB\"
[log]
level = \"loud\"
[timers]
keepalive = \"1ms\"
[policy]
mode = \"free\"
";
        let Err(ConfigError::Invalid(problems)) = loaded(text, &[("FLEET_LOG__COLOR", "1")], &["nonsense"])
        else {
            panic!("ten mistakes pass");
        };
        let lines: Vec<_> = problems
            .iter()
            .map(|p| {
                p.to_string().rsplit_once("agent.toml:").map_or(p.to_string(), |(_, rest)| rest.to_owned())
            })
            .collect();
        let starts = [
            "3:13: controller.endpoints: entry 1",
            "3:13: controller.endpoints: entry 2",
            "4:1: unknown key \"controller.server_nam\", did you mean \"controller.server_name\"?",
            "6:9: link.class = \"metered\" is not supported by this build yet",
            "8:19: runtime.state_directory",
            "9:21: runtime.step_output_limit",
            "11:9: log.level",
            "13:13: timers.keepalive",
            "14:1: policy: unknown variant `free`",
            "environment variable FLEET_LOG__COLOR: unknown key \"log.color\"",
            "flag --set nonsense: write --set",
        ];
        assert_eq!(lines.len(), starts.len(), "{lines:#?}");
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start), "{line} instead of {start}");
        }
    }

    #[test]
    fn form_errors_have_places_too() {
        let Err(ConfigError::Invalid(problems)) = loaded("[log]\nlevel = \n", &[], &[]) else { panic!() };
        assert!(problems[0].to_string().contains("agent.toml:2:"), "{problems:?}");
    }
}
