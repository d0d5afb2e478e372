//! Why this build keeps a key of a document, and signs it, and does not act on it; each completes "this build does
//! not act on x: ". What is idle for a reason of its own says so where it stands, as `x-idle`.

/// Ids of tables that steps would name.
pub const NO_ACTION: &str = "no action that reads it is built";
/// Copies of logs.
pub const NO_LOG_FILE: &str = "no copy of logs is written on the node";
/// Alert rules.
pub const NO_ALERTS: &str = "nothing evaluates alerts";
/// The period of checks.
pub const NO_CHECKS: &str = "nothing makes checks by itself, runs of health.check do; a result that is three times as old counts as unknown";
/// What happens to a service that is down.
pub const NO_RESTARTS: &str = "nothing restarts services by itself, runs of health.repair do";
/// Metrics.
pub const NO_SAMPLES: &str = "nothing takes samples by itself, runs of metrics.collect measure";
/// What is sent through nodes to see whether it passes.
pub const NO_FLOWS: &str = "nothing sends flows, and a rollout with a gate that asks for them is refused";
/// What a severity asks of the rollout of its fix.
pub const NO_SEVERITY_ROLLOUT: &str = "no rollout knows the severity of what it fixes";
/// Order and failover of pairs.
pub const NO_PAIR_ORDER: &str = "a rollout with it is refused, because roles are not observed";
/// How long work is expected to take.
pub const NO_SLOW: &str = "nothing compares it with how long work takes";
/// Notifiers.
pub const NO_NOTIFIERS: &str = "nothing notifies anybody; fleetctl status and schedule list say it";
/// Severities that a blackout allows.
pub const NO_SEVERITY_OF_RUNS: &str =
    "no run knows the severity of what it mends, so that the blackout holds it back";
