//! `schedule`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use fleet_types::document::Id;
use fleet_types::id::Name;
use fleet_types::time::Span;

use super::parse;
use super::run::HowToRun;

/// `schedule`.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// Show how every schedule stands, when it fires next, and how the last one went.
    List,
    /// Show one schedule (FILE/ID), or a file as it was written (FILE).
    Show {
        /// The schedule, FILE/ID; or the name of a file.
        #[arg(value_name = "FILE[/ID]")]
        name: String,
        /// An older revision of the file [default: the newest].
        #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = |text: &str| parse::number(text, 1..=u32::MAX))]
        revision: Option<u32>,
    },
    /// Show when a schedule fires next. For a TOML file on this machine no controller is needed.
    Next {
        /// The schedule, or a TOML file.
        #[arg(value_name = "FILE/ID|FILE.toml")]
        schedule: String,
        /// So many times.
        #[arg(long, value_name = "N", allow_negative_numbers = true, default_value = "3", value_parser = |text: &str| parse::number(text, 1..=100))]
        count: u32,
    },
    /// Show what became of the ticks of a schedule, newest first.
    History {
        /// The schedule.
        #[arg(value_name = "FILE/ID")]
        schedule: ScheduleName,
        /// At most so many.
        #[arg(long, value_name = "N", allow_negative_numbers = true, default_value = "20", value_parser = |text: &str| parse::number(text, 1..=500))]
        limit: u32,
        /// Those that were missed count as seen from now on: fleetctl status says them no more.
        #[arg(long)]
        seen: bool,
    },
    /// Fire nothing for a while; runs under way go on. Wants a reason.
    Pause {
        /// The schedule; --all for every one.
        #[arg(value_name = "FILE/ID")]
        schedule: Option<ScheduleName>,
    },
    /// Fire again. What came due meanwhile is not made up for.
    Resume {
        /// The schedule; --all for every one.
        #[arg(value_name = "FILE/ID")]
        schedule: Option<ScheduleName>,
    },
    /// Apply a file of schedules and sign for them: from then on they start work by themselves. Shows all of it, and asks.
    Apply(AuthoriseArgs),
    /// Start now what a schedule would start at its time; shows the nodes and asks.
    Trigger(TriggerArgs),
}

/// `schedule apply`.
#[derive(Debug, Args)]
pub struct AuthoriseArgs {
    /// The TOML file.
    pub file: PathBuf,
    /// How long the schedules may start work, at most 400d.
    #[arg(long = "for", value_name = "DURATION", default_value = "400d", value_parser = parse::standing)]
    pub length: Span,
    /// At most so many nodes at once, in each of their runs [default: as the rollout policies say].
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = |text: &str| parse::number(text, 1..=100_000))]
    pub max_parallel: Option<u32>,
    /// A run starts no more nodes once so many failed, were rolled back or got lost; 0 for no such limit [default: as the
    /// rollout policies say].
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = |text: &str| parse::number(text, 0..=100_000))]
    pub max_failures: Option<u32>,
    /// Go on although a document is not the one that this machine saw before.
    #[arg(long)]
    pub accept_changed: bool,
}

/// `schedule trigger`.
#[derive(Debug, Args)]
pub struct TriggerArgs {
    /// The schedule: the name of its file, and its id there.
    #[arg(value_name = "FILE/ID")]
    pub schedule: ScheduleName,
    /// How.
    #[command(flatten)]
    pub how: HowToRun,
}

/// A schedule by the name of its file and its id there.
#[derive(Debug, Clone)]
pub struct ScheduleName {
    /// The file.
    pub file: Name,
    /// The schedule.
    pub id: Id,
}

impl fmt::Display for ScheduleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.file, self.id)
    }
}

impl FromStr for ScheduleName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (file, id) = text.split_once('/').ok_or("expected FILE/ID, such as edge-firewall/daily")?;
        let file = file.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { file, id: id.parse().map_err(|error| format!("{error}"))? })
    }
}
