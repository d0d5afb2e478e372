//! The top of the tree.

use clap::{Parser, Subcommand};

use super::{
    AdvisoryCommand, AuditCommand, BackupCommand, CertCommand, CompletionArgs, ConfigCommand, DevArgs,
    DocumentCommand, ExplainArgs, GlobalFlags, JoinTokenCommand, LoginArgs, NodeCommand, OperatorCommand,
    PatchCommand, RolloutCommand, RunCommand, ScheduleCommand, StatusArgs,
};

/// Maintain a fleet of Linux firewalls.
///
/// Data goes to stdout, talk to stderr. Flags may stand anywhere; a command refuses those that mean nothing to it. Each
/// global one but --all may be set as a variable, such as `FLEET_CONTEXT`. Exit codes: 0 done, 1 unexpected, 2 usage, 3 some nodes failed, 4 not found, 5 confirmation
/// needed, 6 blocked, 7 run failed, 8 still running, 9 controller not reachable, 10 not allowed, 11 conflict,
/// 12 verification failed, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "fleetctl", version, propagate_version = false)]
#[command(infer_subcommands = false, subcommand_required = true, arg_required_else_help = false)]
pub struct Cli {
    /// Flags that every command has.
    #[command(flatten)]
    pub global: GlobalFlags,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a whole fleet on this machine, to try things out.
    Dev(DevArgs),
    /// Sign in: redeem an invite and make your keys on this machine.
    Login(LoginArgs),
    /// Show who you are to the controller, and when your certificate ends.
    Whoami,
    /// Show the fleet on one screen, or one node.
    Status(StatusArgs),
    /// Look at nodes.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Look at certificates, and take them away.
    #[command(subcommand)]
    Cert(CertCommand),
    /// Invite people, and say whose signatures nodes take.
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Make the tokens with which nodes join.
    #[command(subcommand)]
    JoinToken(JoinTokenCommand),
    /// Check and apply documents: profiles, procedures, schedules, rollout policies as files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at applied procedures.
    #[command(subcommand)]
    Procedure(DocumentCommand),
    /// Look at applied profiles.
    #[command(subcommand)]
    Profile(DocumentCommand),
    /// Let schedules start work by themselves, and look at them.
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Carry procedures out, and look at how it goes.
    #[command(subcommand)]
    Run(RunCommand),
    /// What must be patched, and how urgent it is.
    #[command(subcommand)]
    Patch(PatchCommand),
    /// What is published: import advisories, and look at them.
    #[command(subcommand)]
    Advisory(AdvisoryCommand),
    /// Follow and steer runs that go ring by ring.
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Look at the backups on the nodes.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Read and check the audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Explain a field of a document, such as schedule.misfire. Needs no controller.
    Explain(ExplainArgs),
    /// Print a completion script for a shell.
    Completion(CompletionArgs),
    /// Show the versions of fleetctl and of the protocol. Needs no controller.
    Version,
}
