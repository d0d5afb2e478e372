//! Log lines on standard error. Set up once, by `main`'s commands that run for long.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Config, LogFormat};

/// Installs the subscriber. Secrets have types whose debug output is `***`, so no field is filtered here;
/// libraries speak at warnings and above only.
pub fn init(config: &Config) {
    let ours = LevelFilter::from_level(config.log_level);
    let targets = Targets::new()
        .with_default(ours.min(LevelFilter::WARN))
        .with_target("fleet_agent", ours)
        .with_target("fleet_executor", ours);
    // A line that cannot be written is lost; told on the same stream, it would end whoever wrote it.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(targets);
    // A second call (several agents in one test process) keeps the first subscriber.
    let _ = match config.log_format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
}
