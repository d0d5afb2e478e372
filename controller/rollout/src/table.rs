//! The one table: what an event means in a phase of a job.
//!
//! Must never change anything; `apply` carries out what it says. Which phases may follow each other is
//! asked from `fleet_types::job`, where controller and agent have the same table. Called by `apply` only.

// The rows stand in the order of the phases and events, equal ones too: it is read as a table.
#![allow(clippy::match_same_arms)]

use fleet_types::id::Attempt;
use fleet_types::job::{Outcome, Phase, check_reachable, check_transition};

use crate::event::{JobEvent, Presence};

/// What to do with a job's event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobStep {
    /// Take a slot, if the cap, the pair rule and the limits allow.
    Offer,
    /// Go to this phase short of the end.
    Move(Phase),
    /// End.
    End(Outcome),
    /// Note the node's presence.
    Presence(Presence),
    /// The node was heard; nothing new.
    Heard,
    /// Nothing new.
    Repeated,
    /// About something that is over.
    Late,
}

/// Why an event cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidTransition {
    /// The pair is not in the table.
    Pair,
    /// The attempt does not exist.
    Attempt(Attempt),
}

/// Jobs: phase × event.
pub(crate) fn job_step(
    phase: Phase,
    attempt: Attempt,
    event: JobEvent,
) -> Result<JobStep, InvalidTransition> {
    use JobEvent as E;
    use Phase as P;
    if let E::Offered { attempt: got } | E::Reported { attempt: got, .. } | E::Ended { attempt: got, .. } =
        event
    {
        match (got.cmp(&attempt), event) {
            (std::cmp::Ordering::Equal, _) => {}
            // News of a former attempt, which is over by definition (security-and-delivery §2.4).
            (std::cmp::Ordering::Less, E::Reported { .. } | E::Ended { .. }) => return Ok(JobStep::Late),
            _ => return Err(InvalidTransition::Attempt(got)),
        }
    }
    match (phase, event) {
        (P::Queued, E::Offered { .. }) => Ok(JobStep::Offer),
        (P::Offered | P::Accepted | P::Running | P::Waiting | P::RollingBack, E::Offered { .. }) => {
            Ok(JobStep::Repeated)
        }
        (P::Ended(_), E::Offered { .. }) => Err(InvalidTransition::Pair),

        // A node cannot have what was never offered to it. After a restore from a backup the offer is
        // saved first, then its report is applied.
        (P::Queued, E::Reported { .. }) => Err(InvalidTransition::Pair),
        (
            P::Offered | P::Accepted | P::Running | P::Waiting | P::RollingBack,
            E::Reported { phase: said, .. },
        ) => {
            let said = said.phase();
            if said == phase {
                Ok(JobStep::Heard)
            } else if check_reachable(phase, said).is_ok() {
                Ok(JobStep::Move(said))
            } else if check_reachable(said, phase).is_ok() {
                // Repeated or overtaken on its way: older than what is known.
                Ok(JobStep::Heard)
            } else {
                Err(InvalidTransition::Pair)
            }
        }
        (P::Ended(_), E::Reported { .. }) => Ok(JobStep::Late),

        // What was never offered can only end as the table's own line for `queued` says: it did nothing.
        (P::Queued, E::Ended { outcome, .. }) => match check_transition(phase, P::Ended(outcome)) {
            Ok(()) => Ok(JobStep::End(outcome)),
            Err(_) => Err(InvalidTransition::Pair),
        },
        (P::Offered | P::Accepted | P::Running | P::Waiting | P::RollingBack, E::Ended { outcome, .. }) => {
            match check_reachable(phase, P::Ended(outcome)) {
                Ok(()) => Ok(JobStep::End(outcome)),
                Err(_) => Err(InvalidTransition::Pair),
            }
        }
        (P::Ended(was), E::Ended { outcome, .. }) if was == outcome => Ok(JobStep::Repeated),
        (P::Ended(_), E::Ended { .. }) => Ok(JobStep::Late),

        (P::Ended(_), E::Presence(_)) => Ok(JobStep::Repeated),
        (_, E::Presence(presence)) => Ok(JobStep::Presence(presence)),
    }
}
