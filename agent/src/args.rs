//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fleet_types::id::NodeId;

/// The agent of one firewall node: carries out signed maintenance work and reports on it.
#[derive(Debug, Parser)]
#[command(name = "fleet-agent", version, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run core and executor until SIGTERM or Ctrl-C
    Run(Run),
    /// Join a fleet with a token that an operator created (`fleetctl join-token create`)
    Enrol(Enrol),
    /// Show who this node is and what its journal holds
    Status(Show),
    /// Print the journal of this node's jobs
    Journal(Show),
    /// End safe mode after its cause was looked at; the agent must be stopped
    AcceptDamage(Configured),
    /// Start no changes on this node until it is released; needs no controller
    Hold(Spoken),
    /// End a hold
    Release(Configured),
    /// Let the change stay that waits to be confirmed by a controller
    Keep(Spoken),
    /// Put the change back now that waits to be confirmed by a controller
    Undo(Spoken),
    /// The half that speaks to the network; started by run and enrol only
    #[command(hide = true)]
    Core(Core),
    /// Put back a change that nobody confirms; started by the executor, and at the start of the machine
    #[command(hide = true)]
    Guard(Guard),
    /// Stop all supervised units below a development root
    #[command(hide = true)]
    StopUnits(Configured),
    /// Supervise one program; started by the executor only
    #[command(hide = true, disable_help_flag = true)]
    Supervise {
        /// Passed on to the supervisor.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Show version and protocol
    Version,
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Default, Args)]
pub struct Configured {
    /// Configuration file
    #[arg(
        long,
        short,
        value_name = "FILE",
        env = "FLEET_AGENT_CONFIG",
        default_value = "/etc/fleet/agent.toml"
    )]
    pub config: PathBuf,
    /// Override one key of the configuration; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

/// `run`.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// The configuration.
    #[command(flatten)]
    pub configured: Configured,
    /// End the process at a point of the executor's work
    #[cfg(feature = "crash-points")]
    #[arg(long, hide = true, value_name = "POINT")]
    pub crash_at: Option<fleet_executor::crash::CrashPoint>,
}

/// `core`.
#[derive(Debug, Clone, Args)]
pub struct Core {
    /// The configuration.
    #[command(flatten)]
    pub configured: Configured,
    /// Keep the link for the executor of this node; without it redeem a join token
    #[arg(long, value_name = "ID")]
    pub node: Option<NodeId>,
}

/// `hold`, `keep`, `undo`.
#[derive(Debug, Clone, Args)]
pub struct Spoken {
    /// The configuration.
    #[command(flatten)]
    pub configured: Configured,
    /// Why; kept, and told to the controller with the job
    #[arg(long, short, value_name = "TEXT")]
    pub reason: String,
}

/// `guard`.
#[derive(Debug, Clone, Args)]
pub struct Guard {
    /// The configuration.
    #[command(flatten)]
    pub configured: Configured,
    /// Folder of the change; without it all that are pending
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

/// `enrol`.
#[derive(Debug, Clone, Args)]
pub struct Enrol {
    /// The configuration.
    #[command(flatten)]
    pub configured: Configured,
    /// Join token, ft1.…; "-" reads it from standard input, where no process list shows it
    #[arg(long, value_name = "TOKEN", env = "FLEET_JOIN_TOKEN", hide_env_values = true)]
    pub token: String,
    /// Join although this node has an identity already; its old state is set aside. The agent must be stopped
    #[arg(long)]
    pub replace: bool,
}

/// `status` and `journal`.
#[derive(Debug, Clone, Args)]
pub struct Show {
    /// The configuration.
    #[command(flatten)]
    pub configured: Configured,
    /// Output format
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub output: Format,
}

/// How a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}
