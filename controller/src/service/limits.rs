//! Limits of what operators send, each far below what the store takes, so that an error names the field and not
//! a record of ours.

use std::time::Duration;

use fleet_types::id::RunId;
use fleet_types::request::Request;
use fleet_types::time::Timestamp;

use crate::error::{ControllerError, Result};

/// A reason is a few sentences. It stands in a run's record and in the audit log's texts.
pub(super) const MAX_REASON_BYTES: usize = 1024;
/// A reason about a node stands in its record, in lists and in the reason of each job that ends by it.
const MAX_NODE_REASON_BYTES: usize = 500;
/// Sixty names of nodes, or every label there is. It stands in a run's record.
const MAX_SELECTOR_BYTES: usize = 2048;
/// Parameters are numbers, words and short lists; each job's node reads them again.
const MAX_PARAMS_BYTES: usize = 16 * 1024;
/// An order for later is for one of the next maintenance windows; what is further away is a schedule.
const MAX_AHEAD: Duration = Duration::from_hours(24 * 30);
/// An operator's clock may be ahead by as much when a run's id is made from it.
pub(super) const CLOCK_AHEAD: Duration = Duration::from_hours(1);

fn at_most(field: &str, bytes: usize, most: usize) -> Result<()> {
    if bytes > most {
        return Err(ControllerError::invalid(field, format!("has {bytes} bytes; at most {most} are taken")));
    }
    Ok(())
}

/// A reason for anything.
pub fn check_reason(reason: &str) -> Result<()> {
    at_most("reason", reason.len(), MAX_REASON_BYTES)
}

/// A reason for holding, releasing or removing a node: there is always one.
pub fn check_node_reason(reason: &str) -> Result<()> {
    if reason.trim().is_empty() || reason.len() > MAX_NODE_REASON_BYTES {
        let why = format!("give a reason of 1 to {MAX_NODE_REASON_BYTES} bytes");
        return Err(ControllerError::invalid("reason", why));
    }
    Ok(())
}

/// The words that choose nodes.
pub fn check_selector(selector: &str) -> Result<()> {
    at_most("selector", selector.len(), MAX_SELECTOR_BYTES)
}

/// A signed order, before anything of it is stored.
pub fn check_request(request: &Request, now: Timestamp) -> Result<()> {
    check_reason(&request.reason)?;
    check_selector(&request.selector)?;
    let params = serde_json::to_vec(&request.params).map_err(ControllerError::internal)?;
    at_most("params", params.len(), MAX_PARAMS_BYTES)?;
    if request.not_before > now.plus(MAX_AHEAD) {
        return Err(ControllerError::invalid("not_before", "is more than 30 days ahead")
            .fix("order it when it is nearer"));
    }
    check_run_id(request.run, now)
}

/// Runs are listed by their ids: one from the future would stay on top.
fn check_run_id(run: RunId, now: Timestamp) -> Result<()> {
    if run.time() > now.plus(CLOCK_AHEAD) {
        let why = format!("{run} is an id of {}, which has not come yet", run.time());
        return Err(
            ControllerError::invalid("run", why).fix("set the clock of the machine that fleetctl runs on")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fleet_types::digest::Digest;
    use fleet_types::id::FleetId;
    use fleet_types::request::{NodeList, REQUEST_SCHEMA, Verb};

    use super::*;

    #[test]
    fn every_field_has_its_limit_and_the_error_names_it() {
        let now = Timestamp::clamped(1_790_000_000_000);
        let good = Request {
            schema: REQUEST_SCHEMA.to_owned(),
            fleet: FleetId::from_uuid(uuid::Uuid::from_u128(1)),
            run: RunId::new(now, 7),
            verb: Verb::Run,
            procedure: Digest::of(b"procedure"),
            profile: Digest::of(b"profile"),
            params: BTreeMap::new(),
            selector: "site=a".to_owned(),
            nodes: NodeList { count: 1, root: Digest::of(b"nodes") },
            plan: None,
            rollout_policy: None,
            max_parallel: 1,
            max_failures: None,
            procedure_revision: None,
            profile_revision: None,
            older_revisions: false,
            not_before: now,
            not_after: now.plus(Duration::from_hours(1)),
            tick: None,
            reason: String::new(),
        };
        check_request(&good, now).unwrap();
        let days = |n: u64| now.plus(Duration::from_hours(24 * n));
        let long = serde_json::Value::String("x".repeat(MAX_PARAMS_BYTES));
        let bad = [
            ("reason", Request { reason: "x".repeat(MAX_REASON_BYTES + 1), ..good.clone() }),
            ("selector", Request { selector: "x".repeat(MAX_SELECTOR_BYTES + 1), ..good.clone() }),
            ("params", Request { params: BTreeMap::from([("p".to_owned(), long)]), ..good.clone() }),
            ("not_before", Request { not_before: days(31), not_after: days(32), ..good.clone() }),
            ("run", Request { run: "r-zzzzzzzzzz".parse().unwrap(), ..good.clone() }),
            ("run", Request { run: RunId::new(now.plus(Duration::from_hours(2)), 7), ..good.clone() }),
        ];
        for (field, request) in bad {
            let error = check_request(&request, now).unwrap_err();
            assert!(error.detail.message.starts_with(&format!("{field}: ")), "{error}");
        }
        check_request(&Request { not_before: days(29), not_after: days(30), ..good }, now).unwrap();
    }
}
