//! Commands around this machine: signing in, trying out, completing.

use std::path::PathBuf;

use clap::Args;

/// `login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The invite, as `fleet-controller init` or a security-admin gave it; `-` reads it from stdin.
    pub invite: String,
    /// The controller's host, with its enrolment port where that is not 7444.
    #[arg(long, value_name = "HOST[:PORT]", default_value = "127.0.0.1")]
    pub server: String,
    /// The controller's address for everything else [default: the same host, port 7443].
    #[arg(long, value_name = "HOST:PORT")]
    pub endpoint: Option<String>,
    /// The name in the controller's certificate [default: the host of --server].
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// A root key of the fleet: lists your content key in the trust bundle, so that nodes accept what you sign.
    #[arg(long, value_name = "FILE")]
    pub root_key: Option<PathBuf>,
}

/// `dev`.
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 6, allow_negative_numbers = true, value_parser = |text: &str| super::parse::number(text, 1..=200))]
    pub nodes: u32,
    /// End after the first run, with its exit code.
    #[arg(long)]
    pub once: bool,
    /// Where everything lives [default: a new folder, removed at the end].
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
    /// Keep the folder at the end.
    #[arg(long)]
    pub keep: bool,
}

/// `completion`.
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// The shell.
    pub shell: clap_complete::Shell,
}
