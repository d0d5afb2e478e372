//! `fleet-agent status`: who this node is and what its journal holds. Works while the agent runs.

use serde_json::json;

use super::journal;
use super::settings::{self, print, print_json};
use crate::args::{Format, Show};
use crate::clock;
use crate::core::identity::OwnIdentity;
use crate::error::{Exit, Failure};

/// Prints the status.
pub fn run(args: &Show) -> Result<(), Failure> {
    let config = settings::load(&args.configured)?;
    let identity =
        OwnIdentity::load(&config.identity_directory).map_err(|e| Failure::of(Exit::Identity, &e))?;
    let journal = journal::read(&config)?;
    let (record, certificate) = (&identity.record, &identity.certificate);
    let open = journal.table.iter().filter(|(_, job)| job.is_open()).count();
    let unsent = journal.table.iter().filter(|(_, job)| job.is_unacknowledged()).count();
    let endpoints: Vec<_> = config.endpoints.iter().map(|endpoint| endpoint.address.as_str()).collect();
    let valid = (certificate.not_before..certificate.not_after).contains(&clock::now());
    if args.output == Format::Json {
        print_json(&json!({
            "node": record.node, "name": record.name, "fleet": record.fleet, "labels": record.labels,
            "certificate": {
                "not_before": certificate.not_before.to_string(),
                "not_after": certificate.not_after.to_string(),
                "valid": valid,
            },
            "endpoints": endpoints, "policy_mode": config.policy.mode.as_str(),
            "jobs": { "open": open, "unacknowledged": unsent }, "damage": journal.damage,
        }));
        return Ok(());
    }
    print(format_args!("node         {} ({})", record.name, record.node));
    print(format_args!("fleet        {}", record.fleet));
    let note = if valid { "" } else { "  NOT VALID NOW" };
    print(format_args!("certificate  {} to {}{note}", certificate.not_before, certificate.not_after));
    print(format_args!("controllers  {}", endpoints.join(", ")));
    print(format_args!("policy       {}", config.policy.mode.as_str()));
    print(format_args!("jobs         {open} open, {unsent} with a report that is not acknowledged"));
    if let Some(damage) = journal.damage {
        print(format_args!("journal      SAFE MODE: {damage}"));
    }
    Ok(())
}
