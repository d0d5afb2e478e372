//! `fleet-agent status`: who this node is and what its journal holds. Works while the agent runs.

use fleet_executor::damage::REMEDY;
use fleet_executor::guard::{Keeper, Pending};
use fleet_executor::running::Running;
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
    let (record, certificate) = (&identity.record, &identity.present.certificate);
    let open = journal.table.iter().filter(|(_, job)| job.is_open()).count();
    let unsent = journal.table.iter().filter(|(_, job)| job.is_unacknowledged()).count();
    let endpoints: Vec<_> = config.endpoints.iter().map(|endpoint| endpoint.address.as_str()).collect();
    let now = clock::now();
    let validity = if now < certificate.not_before {
        "not_yet_valid"
    } else if now < certificate.not_after {
        "valid"
    } else {
        "ended"
    };
    // Asked as the executor asks: whether the file is used, not what stands in it.
    let policy = settings::policy_reader(&args.configured)();
    let running = Running::read(&config.state_directory);
    let mode = policy.as_ref().map(|policy| policy.mode.as_str());
    let safe_mode = journal.damage.or_else(|| running.as_ref().and_then(|running| running.safe_mode.clone()));
    let pending = Pending::all(&Keeper::folder_in(&config.state_directory));
    let guarded: Vec<String> = pending
        .iter()
        .filter(|pending| pending.is_armed())
        .map(|pending| pending.folder().file_name().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    if args.output == Format::Json {
        print_json(&json!({
            "node": record.node, "name": record.name, "fleet": record.fleet, "labels": record.labels,
            "certificate": {
                "not_before": certificate.not_before.to_string(),
                "not_after": certificate.not_after.to_string(),
                "valid": validity == "valid",
                "state": validity,
            },
            "endpoints": endpoints, "policy_mode": mode.ok(), "policy_fault": policy.as_ref().err(),
            "policy_mode_in_use": running.as_ref().map(|running| running.policy_mode.as_str()),
            "jobs": { "open": open, "unacknowledged": unsent }, "damage": safe_mode,
            "guarded": guarded,
        }));
        return Ok(());
    }
    print(format_args!("node         {} ({})", record.name, record.node));
    print(format_args!("fleet        {}", record.fleet));
    let note = match validity {
        "valid" => String::new(),
        "ended" => "  ENDED".to_owned(),
        _ => format!("  NOT VALID YET: this machine's clock says {now}; the agent waits until it is set"),
    };
    print(format_args!("certificate  {} to {}{note}", certificate.not_before, certificate.not_after));
    print(format_args!("controllers  {}", endpoints.join(", ")));
    match (mode, &running) {
        (Err(fault), Some(running)) => {
            print(format_args!(
                "policy       NOT USED: {fault}; {} stays in force, without changes",
                running.policy_mode
            ));
        }
        (Err(fault), None) => print(format_args!("policy       NOT USED: {fault}")),
        (Ok(mode), Some(running)) if running.policy_mode != mode => {
            print(format_args!("policy       {mode}; the agent last used {}", running.policy_mode));
        }
        (Ok(mode), _) => print(format_args!("policy       {mode}")),
    }
    print(format_args!("jobs         {open} open, {unsent} with a report that is not acknowledged"));
    for name in guarded {
        print(format_args!(
            "guard        {name} waits to be confirmed; fleet-agent keep or undo decides it here"
        ));
    }
    if let Some(why) = safe_mode {
        print(format_args!("changes      SAFE MODE, none are made: {why}; {REMEDY}"));
    }
    Ok(())
}
