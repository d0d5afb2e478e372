//! Flags that every command has. Raw: what was typed, before variables and file are looked at.

use clap::Args;

use crate::render::{ColorChoice, OutputFormat, TimeStyle};

/// Each may stand anywhere on the line, and may be set as `FLEET_<NAME>`; the flag wins.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag that is typed by itself")]
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options (each may be set as FLEET_<NAME>)")]
pub struct GlobalFlags {
    /// Which fleet: a context of config.toml.
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub context: Option<String>,
    /// Nodes whose labels match, such as product=edgefw,ring!=test.
    #[arg(short = 'l', long, global = true, value_name = "SELECTOR", hide_short_help = true)]
    pub selector: Vec<String>,
    /// Nodes of a site; may be given several times.
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub site: Vec<String>,
    /// One node by name; may be given several times.
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub node: Vec<String>,
    /// All nodes; no variable stands for it. A change of most of a fleet wants --confirm NAME and --reason.
    #[arg(long, global = true, hide_short_help = true)]
    pub all: bool,
    /// Format: table, wide, json, jsonl, yaml, name, jsonpath=PATH [default: table].
    #[arg(short = 'o', long, global = true, value_name = "FORMAT", hide_short_help = true)]
    pub output: Option<OutputFormat>,
    /// Show again whenever something changes, until Ctrl-C.
    #[arg(short = 'w', long, global = true, hide_short_help = true)]
    pub watch: bool,
    /// Longest wait, such as 30s or 2h [default: 30s a call, 30m for a run].
    #[arg(long, global = true, value_name = "DURATION", value_parser = super::span, hide_short_help = true)]
    pub timeout: Option<fleet_types::time::Span>,
    /// Wait until what was started has ended.
    #[arg(long, global = true, overrides_with = "no_wait", hide_short_help = true)]
    pub wait: bool,
    /// Do not wait.
    #[arg(long, global = true, overrides_with = "wait", hide_short_help = true)]
    pub no_wait: bool,
    /// Say what would happen, and do nothing.
    #[arg(long, global = true, hide_short_help = true)]
    pub dry_run: bool,
    /// Answer yes to questions of moderate danger.
    #[arg(short = 'y', long, global = true, hide_short_help = true)]
    pub yes: bool,
    /// The name that a question of severe danger wants to hear.
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub confirm: Option<String>,
    /// Why, for the audit log.
    #[arg(long, global = true, value_name = "TEXT", hide_short_help = true)]
    pub reason: Option<String>,
    /// Never ask; what would need an answer ends with exit code 5.
    #[arg(long, global = true, hide_short_help = true)]
    pub no_input: bool,
    /// No talk on stderr, only errors.
    #[arg(short = 'q', long, global = true, hide_short_help = true)]
    pub quiet: bool,
    /// More talk on stderr.
    #[arg(short = 'v', long, global = true, hide_short_help = true)]
    pub verbose: bool,
    /// Colour [default: auto]. `NO_COLOR` is honoured.
    #[arg(long, global = true, value_name = "WHEN", value_enum, hide_short_help = true)]
    pub color: Option<ColorChoice>,
    /// How to show times [default: relative].
    #[arg(long, global = true, value_name = "STYLE", value_enum, hide_short_help = true)]
    pub time: Option<TimeStyle>,
}
