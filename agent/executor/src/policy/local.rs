//! Local policy: the `[policy]` table of the agent's configuration, the node owner's last word.
//!
//! Read from a root-owned file that no job may change. Every key of the reference file is known and an
//! unknown one is an error. A key that this build cannot honour and that would have held changes back makes
//! it refuse changes: [`LocalPolicy::not_built`] lists them. Nothing in here decides; the judge does.
//!
//! Where a default differs from the reference file's example: no `local_window` and no `max_load_to_start`
//! are set unless written, because both are values of one site and not of every node.

use serde::Deserialize;

use fleet_types::document::Size;
use fleet_types::time::Span;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML, an unknown key or a wrong value.
    #[error("the [policy] table cannot be read")]
    Malformed(#[source] Box<toml::de::Error>),
    /// A value out of its range.
    #[error("policy key {key}: {why}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What is wrong and what is expected.
        why: String,
    },
}

/// What may be done at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Checks and reports, no change.
    #[default]
    ReadOnly,
    /// Changes as the other keys allow.
    Enforce,
    /// Nothing from a controller.
    Locked,
}

impl Mode {
    /// The word as written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::Enforce => "enforce",
            Self::Locked => "locked",
        }
    }
}

/// Which requests must carry an operator's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequireSignature {
    /// None; documents need none either.
    Off,
    /// Those that change the node. This build has no finer measure of risk, so every change is a high one.
    #[default]
    HighRisk,
    /// All.
    All,
}

/// When the node may be rebooted. This build has neither windows on the node nor sign-offs: both refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reboot {
    /// Never.
    Never,
    /// Inside a window.
    #[default]
    Window,
    /// After a sign-off.
    Ask,
    /// At any time.
    Always,
}

/// Whether a start outside a window may be approved. This build has no windows on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverrideWindow {
    /// No.
    Never,
    /// By a signed approval.
    #[default]
    WithApproval,
}

/// When the node's owner allows changes. Parsed, not built: while it is written, changes are refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalWindow {
    /// `MON` to `SUN`.
    pub days: Vec<String>,
    /// `22:00`.
    pub opens: String,
    /// `06:00`.
    pub closes: String,
    /// A zone's name, or `site`.
    pub timezone: String,
}

/// At most so many disruptive jobs in a time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisruptiveLimit {
    /// How many.
    pub count: u32,
    /// Within this time.
    pub within: Span,
}

/// The table, with its defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalPolicy {
    /// What may be done at all.
    pub mode: Mode,
    /// Which requests must carry an operator's signature.
    pub require_signature: RequireSignature,
    /// Patterns of actions that may run.
    pub allow_actions: Vec<String>,
    /// Patterns of actions that may not; they win.
    pub deny_actions: Vec<String>,
    /// Patterns of ids of `[command.*]` that may run.
    pub allow_commands: Vec<String>,
    /// Units that may not be stopped.
    pub protected_services: Vec<String>,
    /// Packages that may not be removed; they may be upgraded.
    pub protected_packages: Vec<String>,
    /// Publishers whose packages may be installed, by the `Origin` of their signed index.
    pub package_origins: Vec<String>,
    /// Nothing below these may be written.
    pub protected_paths: Vec<String>,
    /// When the node may be rebooted.
    pub reboot: Reboot,
    /// Least time between two reboots.
    pub reboot_cooldown: Span,
    /// When changes may start.
    pub local_window: Option<LocalWindow>,
    /// Whether a start outside may be approved.
    pub override_window: OverrideWindow,
    /// At most so many disruptive jobs.
    pub max_disruptive_jobs: DisruptiveLimit,
    /// No disruptive work while the partner of the pair is not known to be healthy.
    pub require_healthy_partner: bool,
    /// Below this room on the state directory's disk no change starts.
    pub min_free_disk: Size,
    /// Who may confirm a guarded change where no controller answers: addresses that take a connection.
    pub witness: Vec<String>,
    /// While this file exists, no change starts.
    pub hold_file: String,
    /// Highest load, as a part of the processors, at which a change starts; none is any.
    pub max_load_to_start: Option<f64>,
}

/// Defaults are a file (the reference configuration): the same text that people read.
const DEFAULTS: &str = r#"
allow_actions = ["health.*", "hardware.check", "service.*", "package.*", "backup.*", "database.*", "log.*", "config.*",
                 "tuning.apply", "tuning.revert", "ruleset.*", "hardening.run", "metrics.*", "baseline.*", "alerts.*", "flows.check",
                 "scan.*", "report.render", "report.trend", "patch.assess", "procedure.run", "run.assert", "notify.send",
                 "signoff", "snapshot.*", "command.run", "cert.check"]
allow_commands = ["*"]
protected_services = ["ssh.service", "fleet-agent.service"]
protected_packages = ["openssh-server", "fleet-agent"]
package_origins = ["Debian", "ZehraSec"]
protected_paths = ["/etc/fleet", "/root", "/home"]
hold_file = "/run/fleet-agent/hold"
"#;

/// The lists of [`DEFAULTS`].
#[derive(Deserialize)]
struct DefaultLists {
    allow_actions: Vec<String>,
    allow_commands: Vec<String>,
    protected_services: Vec<String>,
    protected_packages: Vec<String>,
    package_origins: Vec<String>,
    protected_paths: Vec<String>,
    hold_file: String,
}

#[allow(clippy::expect_used)] // constant texts of this file, read by every test of it
impl Default for LocalPolicy {
    fn default() -> Self {
        let lists: DefaultLists = toml::from_str(DEFAULTS).expect("the defaults are well-formed");
        let span = |text: &str| text.parse::<Span>().expect("a duration");
        Self {
            mode: Mode::default(),
            require_signature: RequireSignature::default(),
            allow_actions: lists.allow_actions,
            deny_actions: Vec::new(),
            allow_commands: lists.allow_commands,
            protected_services: lists.protected_services,
            protected_packages: lists.protected_packages,
            package_origins: lists.package_origins,
            protected_paths: lists.protected_paths,
            reboot: Reboot::default(),
            reboot_cooldown: span("1h"),
            local_window: None,
            override_window: OverrideWindow::default(),
            max_disruptive_jobs: DisruptiveLimit { count: 4, within: span("24h") },
            require_healthy_partner: true,
            min_free_disk: "512MiB".parse().expect("a size"),
            witness: Vec::new(),
            hold_file: lists.hold_file,
            max_load_to_start: None,
        }
    }
}

impl LocalPolicy {
    /// Reads the `[policy]` table (its keys at the top level of `text`) and checks its values.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let policy: Self = toml::from_str(text).map_err(|e| PolicyError::Malformed(Box::new(e)))?;
        policy.check()?;
        Ok(policy)
    }

    /// Checks the values of a table that came as part of a larger file.
    pub fn check(&self) -> Result<(), PolicyError> {
        if let Some(load) = self.max_load_to_start.filter(|load| !load.is_finite() || *load <= 0.0) {
            let why = format!("{load} is no load; write a part of the processors such as 0.8");
            return Err(PolicyError::Value { key: "max_load_to_start", why });
        }
        let relative =
            self.protected_paths.iter().chain([&self.hold_file]).find(|path| !path.starts_with('/'));
        if let Some(path) = relative {
            let why = format!("{path:?} is not an absolute path");
            return Err(PolicyError::Value { key: "protected_paths or hold_file", why });
        }
        Ok(())
    }

    /// Keys that are written, that this build cannot honour, and that would hold changes back: while there
    /// are any, changes are refused. `reboot` is not among them: what it does not allow is refused by itself.
    pub fn not_built(&self) -> Vec<&'static str> {
        if self.local_window.is_some() { vec!["local_window"] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_change_nothing_and_unknown_keys_are_errors() {
        let policy = LocalPolicy::parse("").unwrap();
        assert_eq!(policy.mode, Mode::ReadOnly);
        assert_eq!(policy.require_signature, RequireSignature::HighRisk);
        assert!(policy.not_built().is_empty());
        for bad in [
            "mod = \"enforce\"",
            "mode = \"free\"",
            "max_load_to_start = -1.0",
            "hold_file = \"hold\"",
            "mode =",
        ] {
            assert!(LocalPolicy::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_reference_table_is_understood() {
        let text = r#"
            mode = "enforce"
            reboot_cooldown = "1h"
            local_window = { days = ["MON"], opens = "22:00", closes = "06:00", timezone = "site" }
            override_window = "with_approval"
            max_disruptive_jobs = { count = 4, within = "24h" }
            min_free_disk = "512MiB"
            max_load_to_start = 0.8
        "#;
        let policy = LocalPolicy::parse(text).unwrap();
        assert_eq!(policy.not_built(), ["local_window"]);
        assert_eq!(policy.min_free_disk.bytes(), 512 << 20);
    }
}
