//! The file as it is written: unknown keys are errors, nothing is checked beyond types.

use serde::Deserialize;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// See default.toml.
    pub data_directory: Option<String>,
    /// See default.toml.
    pub server: RawServer,
    /// See default.toml.
    pub storage: RawStorage,
    /// See default.toml.
    pub copies: RawCopies,
    /// See default.toml.
    pub limits: RawLimits,
    /// In builds for tests.
    #[cfg(feature = "scaled-timers")]
    pub timers: RawTimers,
    /// See default.toml.
    pub log: RawLog,
}

/// `[server]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawServer {
    /// See default.toml.
    pub agent_listen: Option<String>,
    /// See default.toml.
    pub enrol_listen: Option<String>,
    /// See default.toml.
    pub server_names: Option<Vec<String>>,
}

/// `[storage]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawStorage {
    /// See default.toml.
    pub backend: Option<String>,
}

/// `[copies]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawCopies {
    /// See default.toml.
    pub directory: Option<String>,
    /// See default.toml.
    pub quota_per_node: Option<String>,
}

/// `[limits]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// See default.toml.
    pub max_changing_per_site: Option<u32>,
    /// See default.toml.
    pub max_changing_per_fleet: Option<u32>,
}

/// `[timers]`: in builds for tests alone.
#[cfg(feature = "scaled-timers")]
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawTimers {
    /// Divides every protocol timer.
    pub scale: Option<u32>,
    /// Life of an agent's certificate, seconds.
    pub agent_certificate_s: Option<u32>,
    /// Life of an operator's certificate, seconds.
    pub operator_certificate_s: Option<u32>,
    /// Life of the controller's own, seconds.
    pub controller_certificate_s: Option<u32>,
}

/// `[log]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLog {
    /// See default.toml.
    pub level: Option<String>,
    /// See default.toml.
    pub format: Option<String>,
}
