//! Merges a file over the defaults and checks it; all problems are listed at once, before a port is opened.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
#[cfg(feature = "scaled-timers")]
use std::time::Duration;

use fleet_certs::ServerName;
use fleet_rollout::Limits;
use fleet_types::document::size::Size;

#[cfg(feature = "scaled-timers")]
use super::raw::RawTimers;
use super::raw::{RawConfig, RawCopies};
use crate::settings::Settings;

const DEFAULTS: &str = include_str!("default.toml");
/// More changes at once than this are no limit to any fleet that was measured.
const MAX_CHANGING: u32 = 100_000;
/// A configuration is a page; anything larger is another file by mistake.
const MAX_BYTES: u64 = 64 * 1024;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept.
    pub data_directory: PathBuf,
    /// Listener for agents and operators.
    pub agent_listen: SocketAddr,
    /// Listener for enrolment.
    pub enrol_listen: SocketAddr,
    /// Names in the server certificate, at least one.
    pub server_names: Vec<String>,
    /// URL of the store.
    pub store_url: String,
    /// Where encrypted copies of backups lie.
    pub copies_directory: PathBuf,
    /// What those of one node may take.
    pub copies_quota_bytes: u64,
    /// Timers and limits.
    pub settings: Settings,
    /// Filter of the log.
    pub log_level: String,
    /// Form of the log.
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and journald.
    Text,
    /// For programs.
    Json,
}

/// What is wrong with a configuration, all of it.
#[derive(Debug, thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct ConfigError {
    /// One line a problem, with the file and the key.
    pub problems: Vec<String>,
}

fn parse(file: &str, text: &str) -> Result<RawConfig, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let place = error.span().map_or_else(String::new, |span| {
            let before = &text[..span.start.min(text.len())];
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            format!(":{line}:{column}")
        });
        ConfigError { problems: vec![format!("{file}{place}: {}", error.message())] }
    })
}

impl Config {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let one = |why: String| ConfigError { problems: vec![format!("{shown}: {why}")] };
        let length = std::fs::metadata(path).map_err(|error| one(error.to_string()))?.len();
        if length > MAX_BYTES {
            return Err(one(format!("{length} bytes; a configuration has at most {MAX_BYTES}")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| one(error.to_string()))?;
        Self::from_text(&shown, &text)
    }

    /// Checks a text.
    pub fn from_text(file: &str, text: &str) -> Result<Self, ConfigError> {
        let raw = parse(file, text)?;
        let defaults = parse("default.toml", DEFAULTS)?;
        let mut problems = Vec::new();
        let mut report = |key: &str, why: String| problems.push(format!("{file}: {key}: {why}"));

        let data_directory =
            PathBuf::from(raw.data_directory.or(defaults.data_directory).unwrap_or_default());
        if !data_directory.is_absolute() {
            report("data_directory", "must be an absolute path".to_owned());
        }
        let mut address = |key: &str, text: Option<String>| {
            let text = text.unwrap_or_default();
            text.parse().unwrap_or_else(|_| {
                report(
                    key,
                    format!("\"{text}\" is not an address and port such as 0.0.0.0:7443 or [::]:7443"),
                );
                SocketAddr::from(([0, 0, 0, 0], 0))
            })
        };
        let agent_listen =
            address("server.agent_listen", raw.server.agent_listen.or(defaults.server.agent_listen));
        let enrol_listen =
            address("server.enrol_listen", raw.server.enrol_listen.or(defaults.server.enrol_listen));
        if agent_listen == enrol_listen && agent_listen.port() != 0 {
            report("server.enrol_listen", "must differ from server.agent_listen".to_owned());
        }
        let server_names = raw.server.server_names.or(defaults.server.server_names).unwrap_or_default();
        if server_names.is_empty() {
            report("server.server_names", "name at least one, as agents have it in server_name".to_owned());
        }
        for name in &server_names {
            if ServerName::try_from(name.as_str()).is_err() {
                report("server.server_names", format!("\"{name}\" is neither a host name nor an IP address"));
            }
        }
        let backend = raw.storage.backend.or(defaults.storage.backend).unwrap_or_default();
        let store_url = match backend.as_str() {
            "sled" => format!("sled:{}", data_directory.join("store").display()),
            "memory" => "memory:".to_owned(),
            "postgresql" => {
                report(
                    "storage.backend",
                    "this build has no PostgreSQL backend yet; use \"sled\"".to_owned(),
                );
                String::new()
            }
            other => {
                report("storage.backend", format!("\"{other}\" is not known; use \"sled\" or \"memory\""));
                String::new()
            }
        };
        let (copies_directory, copies_quota_bytes) =
            copies(raw.copies, defaults.copies, &data_directory, &mut report);
        let mut limit = |key: &str, number: Option<u32>| {
            let limit = number.and_then(NonZeroU32::new).filter(|limit| limit.get() <= MAX_CHANGING);
            if let (Some(number), None) = (number, limit) {
                let why = "leave the key out for no limit";
                report(key, format!("{number} is outside 1 to {MAX_CHANGING}; {why}"));
            }
            limit
        };
        let changing = Limits {
            site: limit("limits.max_changing_per_site", raw.limits.max_changing_per_site),
            fleet: limit("limits.max_changing_per_fleet", raw.limits.max_changing_per_fleet),
        };
        #[cfg(feature = "scaled-timers")]
        let scale = scale(raw.timers.scale, &mut report);
        let log_level = raw.log.level.or(defaults.log.level).unwrap_or_default();
        if tracing_subscriber::EnvFilter::try_new(&log_level).is_err() {
            report("log.level", format!("\"{log_level}\" is no level and no filter"));
        }
        let log_format = match raw.log.format.or(defaults.log.format).unwrap_or_default().as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => {
                report("log.format", format!("\"{other}\" is not known; use \"text\" or \"json\""));
                LogFormat::Text
            }
        };
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        let settings = Settings { changing, ..Settings::default() };
        #[cfg(feature = "scaled-timers")]
        let settings = short_lived(settings.scaled(scale), &raw.timers);
        Ok(Self {
            data_directory,
            agent_listen,
            enrol_listen,
            server_names,
            store_url,
            copies_directory,
            copies_quota_bytes,
            settings,
            log_level,
            log_format,
        })
    }
}

/// Where encrypted copies lie, and what those of one node may take.
fn copies(
    raw: RawCopies,
    defaults: RawCopies,
    data_directory: &Path,
    report: &mut impl FnMut(&str, String),
) -> (PathBuf, u64) {
    let directory = raw.directory.map_or_else(|| data_directory.join("copies"), PathBuf::from);
    if !directory.is_absolute() {
        report("copies.directory", "must be an absolute path".to_owned());
    }
    let quota = raw.quota_per_node.or(defaults.quota_per_node).unwrap_or_default();
    let quota = quota.parse::<Size>().map_err(|error| report("copies.quota_per_node", error.to_string()));
    (directory, quota.map_or(0, |size| size.bytes()))
}

/// Certificates that last as long as a test says.
#[cfg(feature = "scaled-timers")]
fn short_lived(mut settings: Settings, timers: &RawTimers) -> Settings {
    for (life, seconds) in [
        (&mut settings.agent_certificate, timers.agent_certificate_s),
        (&mut settings.operator_certificate, timers.operator_certificate_s),
        (&mut settings.controller_certificate, timers.controller_certificate_s),
    ] {
        *life = seconds.map_or(*life, |seconds| Duration::from_secs(seconds.into()));
    }
    settings
}

#[cfg(feature = "scaled-timers")]
fn scale(written: Option<u32>, report: &mut impl FnMut(&str, String)) -> u32 {
    let scale = written.unwrap_or(1);
    if !(1..=1000).contains(&scale) {
        report("timers.scale", format!("{scale} is outside 1 to 1000"));
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_alone_lack_only_a_server_name() {
        let error = Config::from_text("c.toml", "").unwrap_err();
        assert_eq!(error.problems.len(), 1, "{error}");
        let config = Config::from_text("c.toml", "[server]\nserver_names = [\"fleet.example.net\"]").unwrap();
        assert_eq!(config.agent_listen.port(), 7443);
        assert_eq!(config.store_url, "sled:/var/lib/fleet-controller/store");
    }

    #[test]
    fn all_problems_come_at_once_and_unknown_keys_have_a_place() {
        let text = "data_directory = \"x\"\n[server]\nagent_listen = \"a\"\nserver_names = [\"-\"]\n[storage]\nbackend = \"postgresql\"\n[copies]\ndirectory = \"x\"\nquota_per_node = \"much\"\n[limits]\nmax_changing_per_site = 0\n[log]\nformat = \"xml\"";
        let problems = Config::from_text("c.toml", text).unwrap_err().problems;
        for key in [
            "data_directory",
            "server.agent_listen",
            "server.server_names",
            "storage.backend",
            "copies.directory",
            "copies.quota_per_node",
            "limits.max_changing_per_site",
            "log.format",
        ] {
            assert!(problems.iter().any(|p| p.contains(&format!("c.toml: {key}: "))), "{key}: {problems:?}");
        }
        let unknown = Config::from_text("c.toml", "[server]\nagent_listn = 1").unwrap_err();
        assert!(unknown.problems[0].starts_with("c.toml:2:1: "), "{unknown}");
    }
}
