//! Ticks of schedules: the request of a tick is made anew from the standing order and compared, and the order's signature
//! stands for the one that the request does not bear (security-and-delivery §1.15).
//!
//! Pure but for signatures and this machine's table of time zones. Whether a tick was used already is asked where jobs are
//! taken up and where they start. Called by `authority`.

use fleet_calendar::{CalendarError, Times, Zones};
use fleet_types::assignment::Assignment;
use fleet_types::authority::Authority;
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::document::Document;
use fleet_types::document::schedule::ScheduleFile;
use fleet_types::request::Request;
use fleet_types::seal::{Envelope, Kind};
use fleet_types::standing_order::{StandingError, StandingOrder, Tick};
use fleet_types::time::Timestamp;
use fleet_types::trust::TrustBundle;

use super::authority::{check_document, other_kind, read, seal_refusal};
use super::local::{LocalPolicy, RequireSignature};
use super::refusal::Refusal;
use crate::identity::NodeIdentity;
use crate::state::Revision;

const SIGN_ANEW: &str = "sign for the schedule again: fleetctl schedule apply FILE";
const ASK_WHO: &str = "look for somebody between operator and controller";
const ZONES: &str = "compare the packages tzdata of the node and the controller";

/// What allows the request of a tick, as it was fetched.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The standing order.
    pub order: Envelope,
    /// The file of schedules that it names.
    pub file: Envelope,
}

/// A tick whose order and file were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// As people write the schedule: `FILE/ID`.
    pub schedule: String,
    /// The time for which it calls.
    pub at: Timestamp,
    /// The file by name and number, as the operator saw it.
    pub file: Revision,
    /// The end of the order.
    ends: Timestamp,
}

/// A request with a tick is for the order's authority, and one without for none: gates are of either.
pub fn check_authority(assignment: &Assignment, request: &Request) -> Result<(), Refusal> {
    let fits = match assignment.authority {
        Authority::Request(_) => request.tick.is_none(),
        Authority::Tick(_) => request.tick.is_some(),
        Authority::Gates(_) => true,
    };
    if fits {
        return Ok(());
    }
    let message = "a request that names a tick is not the one of an operator, nor the other way round";
    Err(Refusal::new("request-tick", message, ASK_WHO))
}

/// The file that an order names; read before its signature is checked, only to learn what to ask for.
pub fn file_of(order: &Envelope) -> Result<Digest, Refusal> {
    Ok(read_order(order)?.file)
}

/// Checks that the request is what an operator's order makes of its tick, that the tick is one of the schedule here, and
/// whom the signatures are of, as far as local policy asks for them.
pub fn check(
    (request, tick): (&Request, Tick),
    standing: &Standing,
    bundle: &TrustBundle,
    policy: &LocalPolicy,
    node: &NodeIdentity,
) -> Result<Due, Refusal> {
    if standing.order.digest() != tick.order {
        let message = "the standing order is not the one that the request names";
        return Err(Refusal::new("order-digest", message, ASK_WHO));
    }
    let order = read_order(&standing.order)?;
    // Reading work too: nobody looks at what a schedule starts.
    if policy.require_signature != RequireSignature::Off {
        bundle
            .verify_content(&standing.order, Kind::StandingOrder)
            .map_err(|error| seal_refusal("the standing order", &error))?;
    }
    order.check(node.fleet).map_err(|error| refusal(&error))?;
    check_document("file of schedules", order.file, &standing.file, bundle, policy)?;
    let file = read_file(&standing.file)?;
    order.made(tick.order, &file, request).map_err(|error| refusal(&error))?;
    check_due(&order, &file, tick.at, node)?;
    Ok(due(&order, &file, tick.at))
}

/// A tick stands on its order alone.
pub fn no_order() -> Refusal {
    Refusal::new("order-digest", "the standing order of the tick is missing", ASK_WHO)
}

/// Which tick it is, of documents that were checked before.
pub fn due_again(tick: Tick, standing: &Standing) -> Result<Due, Refusal> {
    Ok(due(&read_order(&standing.order)?, &read_file(&standing.file)?, tick.at))
}

fn due(order: &StandingOrder, file: &ScheduleFile, at: Timestamp) -> Due {
    Due {
        schedule: format!("{}/{}", file.name, order.schedule),
        at,
        file: Revision { document: format!("schedule/{}", file.name), number: order.file_revision },
        ends: order.not_after,
    }
}

impl Due {
    /// Does the order still hold? It began before its tick, and the request after that.
    pub fn check_now(&self, now: Timestamp) -> Result<(), Refusal> {
        if now < self.ends {
            return Ok(());
        }
        let message = format!("the standing order of {} ended at {}", self.schedule, self.ends);
        Err(Refusal::new("order-ended", message, SIGN_ANEW))
    }
}

fn check_due(
    order: &StandingOrder,
    file: &ScheduleFile,
    at: Timestamp,
    node: &NodeIdentity,
) -> Result<(), Refusal> {
    let unknown = |error: CalendarError| Refusal::new("tick-not-due", error.to_string(), ZONES);
    let schedule = order.schedule_in(file).map_err(|error| refusal(&error))?;
    let zones = Zones::of(file, schedule).map_err(unknown)?;
    let zone = zones.of_node(&node.labels);
    let times = Times::of(file, schedule, zone.parse().map_err(unknown)?).map_err(unknown)?;
    if times.is_tick(at) {
        return Ok(());
    }
    let message = format!("schedule \"{}\" does not call for {at} in zone {zone}", schedule.id);
    Err(Refusal::new("tick-not-due", message, ZONES))
}

fn read_order(envelope: &Envelope) -> Result<StandingOrder, Refusal> {
    canonical::from_signed(&envelope.payload)
        .map_err(|error| Refusal::new("order-malformed", error.to_string(), SIGN_ANEW))
}

fn read_file(envelope: &Envelope) -> Result<ScheduleFile, Refusal> {
    match read("file of schedules", envelope)? {
        Document::Schedule(file) => Ok(*file),
        _ => Err(other_kind()),
    }
}

fn refusal(error: &StandingError) -> Refusal {
    let (rule, remedy) = match error {
        StandingError::Schema(_)
        | StandingError::OtherFleet(_)
        | StandingError::Validity { .. }
        | StandingError::Parallel
        | StandingError::Failures => ("order-invalid", SIGN_ANEW),
        StandingError::NoSchedule(_) | StandingError::NotEnabled(_) => ("schedule-off", SIGN_ANEW),
        StandingError::TickOutside { .. } => ("tick-outside", SIGN_ANEW),
        StandingError::NotInTime { .. } => ("tick-late", "wait for the next tick, or start it by hand"),
        StandingError::Differs => ("tick-differs", ASK_WHO),
    };
    Refusal::new(rule, error.to_string(), remedy)
}

/// The tick was used by another run, or a later one was.
pub fn used(due: &Due, by: &str) -> Refusal {
    let message =
        format!("this node has begun the tick of {} of {}, or a later one, with {by}", due.at, due.schedule);
    Refusal::new("tick-used", message, "wait for the next tick, or start it by hand")
}
