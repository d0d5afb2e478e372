//! Is a service as it should be? Shared by `health.check`, `service.*` and `config.validate`.
//! Reads only.

use std::time::Duration;

use fleet_types::document::ids::Id;
use fleet_types::document::profile::{Service, ServiceExpect, ServiceType};

use crate::host::{Activity, Host, UnitError, UnitState};

/// A service that ends within this time after its start did not come up.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// Is a service as it should be?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is.
    Good,
    /// It is not.
    Bad,
    /// It cannot be asked on this node: neither.
    Unknown,
}

/// What was seen of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// As it should be?
    pub(super) standing: Standing,
    /// What was seen, in a few words, with the unit.
    pub(super) seen: String,
    /// Does the unit run?
    pub(super) activity: Option<Activity>,
}

impl Verdict {
    /// Is it as it should be, and was that seen?
    pub(super) fn is_good(&self) -> bool {
        self.standing == Standing::Good
    }
}

/// Looks at a service and compares it with what is expected.
///
/// A timer is as it should be when it is active and the last run of the unit it starts ended well, not longer
/// ago than `succeeded_within`.
pub(super) fn judge(host: &dyn Host, service: &Service, expect: ServiceExpect) -> Verdict {
    let state = match host.units().state(&service.unit) {
        Ok(state) => state,
        Err(error) => return unseen(&error),
    };
    let wanted = match expect {
        ServiceExpect::Active => Activity::Active,
        ServiceExpect::Inactive => Activity::Inactive,
        ServiceExpect::Absent => Activity::NotFound,
    };
    let mut verdict = Verdict {
        standing: standing(state.activity == wanted),
        seen: format!("{} is {}", service.unit, described(&state)),
        activity: Some(state.activity),
    };
    if verdict.is_good() && wanted == Activity::Active && service.service_type == ServiceType::Timer {
        let (good, seen) = last_run(host, service);
        verdict.standing = good;
        verdict.seen = format!("{}; {seen}", verdict.seen);
    }
    verdict
}

const fn standing(good: bool) -> Standing {
    if good { Standing::Good } else { Standing::Bad }
}

fn unseen(error: &UnitError) -> Verdict {
    Verdict { standing: standing_of(error), seen: error.to_string(), activity: None }
}

/// A wrong name or a broken unit file is the unit's own fault; the other errors say nothing about it.
const fn standing_of(error: &UnitError) -> Standing {
    match error {
        UnitError::Unsupported { .. } | UnitError::Away { .. } | UnitError::Failed { .. } => {
            Standing::Unknown
        }
        UnitError::Name(_) | UnitError::NotFound(_) | UnitError::File { .. } => Standing::Bad,
    }
}

fn described(state: &UnitState) -> String {
    match (&state.last_run, state.activity) {
        (Some(run), Activity::Failed) => format!("failed ({})", run.how),
        _ => state.activity.as_str().to_owned(),
    }
}

fn last_run(host: &dyn Host, service: &Service) -> (Standing, String) {
    let Some(runs) = &service.runs else {
        return (Standing::Bad, "the profile does not say which unit the timer starts".to_owned());
    };
    match host.units().state(runs) {
        Err(error) => (standing_of(&error), error.to_string()),
        Ok(UnitState { last_run: None, .. }) => (Standing::Bad, format!("{runs} has not run yet")),
        Ok(UnitState { last_run: Some(run), .. }) if !run.success => {
            (Standing::Bad, format!("the last run of {runs} ended badly ({})", run.how))
        }
        Ok(UnitState { last_run: Some(run), .. }) => {
            let age = host.clock().now().since(run.ended);
            let good = service.succeeded_within.as_ref().is_none_or(|within| age <= within.length());
            (standing(good), format!("the last good run of {runs} ended {}", run.ended))
        }
    }
}

/// Names of services, for messages.
pub(super) fn names<'a>(services: impl IntoIterator<Item = &'a Id>) -> String {
    services.into_iter().map(Id::as_str).collect::<Vec<_>>().join(", ")
}
