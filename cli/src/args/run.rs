//! `run`.

use clap::{Args, Subcommand};
use fleet_types::document::Id;
use fleet_types::id::{Name, RunId};
use fleet_types::time::Span;

use super::parse;

/// `run`.
#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// Ask the nodes what a procedure would do; changes nothing.
    Plan(WhatToRun),
    /// Carry a procedure out on the chosen nodes; shows them and asks. With --plan: exactly what was planned.
    Start(StartArgs),
    /// Carry one action out, without a file: --with gives its parameters. Waits; what changes nothing asks nobody.
    Task(TaskArgs),
    /// List runs, newest first.
    List {
        /// Most runs to list.
        #[arg(long, value_name = "N", default_value_t = 20, allow_negative_numbers = true, value_parser = |text: &str| parse::number(text, 1..=100_000))]
        limit: u32,
    },
    /// Show a run with its jobs, failed ones first; RUN/NODE shows one job with its report.
    Show {
        /// The run, or one job of it.
        #[arg(value_name = "RUN[/NODE]")]
        what: String,
    },
    /// Print what the steps of a job wrote.
    Logs {
        /// The run, or one job of it.
        #[arg(value_name = "RUN[/NODE]")]
        what: String,
        /// One step only.
        #[arg(long, value_name = "ID")]
        step: Option<Id>,
        /// Go on printing until the job ends.
        #[arg(short = 'f', long)]
        follow: bool,
    },
    /// Wait until a run has ended. Exit code 0 all succeeded, 3 some failed, 7 failed, 8 still running.
    Wait {
        /// The run.
        run: RunId,
    },
    /// Stop a run: nothing new starts, what runs is finished or undone.
    Cancel {
        /// The run.
        run: RunId,
    },
}

/// What is carried out, where it is the same for plan and start.
#[derive(Debug, Args)]
pub struct WhatToRun {
    /// The procedure's name.
    pub procedure: Name,
    /// A parameter of the procedure; may be given several times.
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse::parameter)]
    pub params: Vec<(String, serde_json::Value)>,
    /// The profile to use [default: the one the procedure names].
    #[arg(long, value_name = "NAME")]
    pub profile: Option<Name>,
    /// How.
    #[command(flatten)]
    pub how: HowToRun,
}

/// `run start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// The procedure's name.
    #[arg(required_unless_present = "plan", conflicts_with = "plan")]
    pub procedure: Option<Name>,
    /// Start what this plan says, on its nodes; a node that finds anything else to do touches nothing.
    #[arg(long, value_name = "RUN", conflicts_with = "params")]
    pub plan: Option<RunId>,
    /// A parameter of the procedure; may be given several times.
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse::parameter)]
    pub params: Vec<(String, serde_json::Value)>,
    /// The profile to use [default: the one the procedure names].
    #[arg(long, value_name = "NAME")]
    pub profile: Option<Name>,
    /// Go ring by ring, as this applied rollout policy says.
    #[arg(long, value_name = "NAME")]
    pub policy: Option<Name>,
    /// How.
    #[command(flatten)]
    pub how: HowToRun,
}

/// How something is carried out, where it is the same for plan, start and task.
#[derive(Debug, Args)]
pub struct HowToRun {
    /// At most so many nodes at once [default: 5 and 1 of each pair where something changes, else all].
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = |text: &str| parse::number(text, 1..=100_000))]
    pub max_parallel: Option<u32>,
    /// Start no more nodes once so many failed, were rolled back or got lost; 0 for no such limit [default: 1 where
    /// something changes, else 0].
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = |text: &str| parse::number(text, 0..=100_000))]
    pub max_failures: Option<u32>,
    /// Go on although a node or document is not the one that this machine saw before.
    #[arg(long)]
    pub accept_changed: bool,
    /// No node starts later than this after now, at most 24h.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse::validity)]
    pub valid_for: Span,
}

/// `rollout`.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Show the rings of a rollout, and why nodes wait.
    Status {
        /// The run.
        run: RunId,
    },
    /// Start nothing new for a while; what runs goes on.
    Pause {
        /// The run.
        run: RunId,
    },
    /// Go on after a pause or a halt; what has failed so far is excused.
    Resume {
        /// The run.
        run: RunId,
    },
    /// Let the next ring begin, where the policy leaves that to an operator.
    Promote {
        /// The run.
        run: RunId,
    },
    /// End a rollout: what runs is finished or undone, the rest is cancelled.
    Abort {
        /// The run.
        run: RunId,
    },
}

/// `run task`.
#[derive(Debug, Args)]
pub struct TaskArgs {
    /// The action, such as health.check; fleetctl explain actions lists them.
    pub action: String,
    /// A parameter of the action, such as checks=all; lists by commas; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::pair)]
    pub with: Vec<(String, String)>,
    /// The profile whose ids it uses [default: the only one that is applied].
    #[arg(long, value_name = "NAME")]
    pub profile: Option<Name>,
    /// Ask the nodes what it would do; changes nothing.
    #[arg(long)]
    pub plan: bool,
    /// Longest time that it may take on a node.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse::span)]
    pub step_timeout: Span,
    /// Put it back unless a new connection to a controller confirms it within this time; for what can cut the node off.
    #[arg(long, value_name = "DURATION", value_parser = parse::span)]
    pub guard: Option<Span>,
    /// How.
    #[command(flatten)]
    pub how: HowToRun,
}

#[cfg(test)]
impl TaskArgs {
    /// As typed without any flag.
    pub fn of(action: &str) -> Self {
        use clap::FromArgMatches as _;
        let matches = TaskArgs::augment_args(clap::Command::new("task")).get_matches_from(["task", action]);
        Self::from_arg_matches(&matches).unwrap()
    }
}
