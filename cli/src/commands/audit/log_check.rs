//! The check of the log itself, pure: bytes in order go in, faults come out.
//!
//! Each record is hashed as it was presented and bound to its place; the root over all of them is made
//! here and compared with what was seen before and with what the controller says now
//! (security-and-delivery §3.7).

use fleet_types::audit::{AuditRecord, MAX_RECORD_BYTES, RECORD_VERSION};
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::id::FleetId;
use fleet_types::merkle::{Frontier, leaf_hash};
use fleet_types::view::AuditHead;

use crate::context::{AuditMark, Mark};

/// A mark is kept after every so many records, so that a rewritten record is named to within these.
const MARK_EVERY: u64 = 256;

/// What is wrong with the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogFault {
    /// A record stands at another place than it says, or one is missing.
    #[error("record {expected} is missing: record {found} came in its place")]
    Place {
        /// The index that was due.
        expected: u64,
        /// The index that came.
        found: u64,
    },
    /// The record's own index is not its place.
    #[error("record {index} says of itself that it is record {claimed}")]
    Claimed {
        /// Its place.
        index: u64,
        /// What it says.
        claimed: u64,
    },
    /// It is no record of this release, too long, or not in the one canonical form.
    #[error("record {index} is not well-formed: {why}")]
    Form {
        /// Its place.
        index: u64,
        /// What is wrong.
        why: String,
    },
    /// It belongs to another log.
    #[error("record {index} is of the log of fleet {log}")]
    OtherLog {
        /// Its place.
        index: u64,
        /// The log that it names.
        log: FleetId,
    },
    /// Records that were seen before are other ones now.
    #[error("record {first} or one up to {last} is not what was seen before; all before {first} are whole")]
    Rewritten {
        /// First that may have been rewritten.
        first: u64,
        /// Last that may be the first rewritten one.
        last: u64,
    },
    /// The log is shorter than it was.
    #[error("record {size} is missing: the log has {size} records, {seen} were seen before")]
    Shrunk {
        /// Size now.
        size: u64,
        /// Size seen before.
        seen: u64,
    },
    /// The log ended before its head.
    #[error("record {found} is missing: the log ends there, its head says {size} records")]
    Short {
        /// Records that came.
        found: u64,
        /// Records that the head counts.
        size: u64,
    },
    /// All records are well-formed, and the controller's root is another.
    #[error(
        "the records do not lead to the root that the controller gives: {made} was made, {given} was given"
    )]
    Root {
        /// Made here.
        made: Digest,
        /// Given.
        given: Digest,
    },
    /// The head is of another log.
    #[error("the controller shows the log of fleet {0}")]
    OtherHead(FleetId),
}

/// Checks one log from its first record to its head.
#[derive(Debug)]
pub struct LogCheck {
    log: FleetId,
    head: AuditHead,
    frontier: Frontier,
    /// What was seen before, not yet reached.
    seen: Vec<Mark>,
    /// Size up to which the log is as it was seen.
    whole_to: u64,
    marks: Vec<Mark>,
}

impl LogCheck {
    /// Begins a check against a head and what was seen before.
    pub fn new(log: FleetId, head: AuditHead, seen: Option<&AuditMark>) -> Result<Self, LogFault> {
        if head.log != log {
            return Err(LogFault::OtherHead(head.log));
        }
        let seen: Vec<Mark> =
            seen.filter(|mark| mark.log == log).map(|mark| mark.marks.clone()).unwrap_or_default();
        if let Some(last) = seen.last().filter(|last| last.size > head.size) {
            return Err(LogFault::Shrunk { size: head.size, seen: last.size });
        }
        let seen = seen.into_iter().rev().collect();
        Ok(Self { log, head, frontier: Frontier::default(), seen, whole_to: 0, marks: Vec::new() })
    }

    /// The next record as it is stored.
    pub fn push(&mut self, index: u64, bytes: &[u8]) -> Result<AuditRecord, LogFault> {
        let expected = self.frontier.size();
        if index != expected || index >= self.head.size {
            return Err(LogFault::Place { expected, found: index });
        }
        let record = well_formed(index, bytes)?;
        if record.index != index {
            return Err(LogFault::Claimed { index, claimed: record.index });
        }
        if record.log != self.log {
            return Err(LogFault::OtherLog { index, log: record.log });
        }
        self.frontier.push(leaf_hash(bytes));
        let size = self.frontier.size();
        while let Some(mark) = self.seen.last().copied().filter(|mark| mark.size <= size) {
            if mark.size == size && mark.root != self.frontier.root() {
                return Err(LogFault::Rewritten { first: self.whole_to, last: size - 1 });
            }
            self.whole_to = mark.size;
            self.seen.pop();
        }
        if size.is_multiple_of(MARK_EVERY) {
            self.marks.push(Mark { size, root: self.frontier.root() });
        }
        Ok(record)
    }

    /// Ends the check; gives what is worth keeping for the next one.
    pub fn finish(mut self) -> Result<AuditMark, LogFault> {
        let (found, made) = (self.frontier.size(), self.frontier.root());
        if found < self.head.size {
            return Err(LogFault::Short { found, size: self.head.size });
        }
        if made != self.head.root {
            return Err(LogFault::Root { made, given: self.head.root });
        }
        if found > 0 && self.marks.last().is_none_or(|mark| mark.size != found) {
            self.marks.push(Mark { size: found, root: made });
        }
        Ok(AuditMark { log: self.log, marks: self.marks })
    }
}

fn well_formed(index: u64, bytes: &[u8]) -> Result<AuditRecord, LogFault> {
    let bad = |why: String| LogFault::Form { index, why };
    if bytes.len() > MAX_RECORD_BYTES {
        return Err(bad(format!("it has {} bytes, at most {MAX_RECORD_BYTES} are allowed", bytes.len())));
    }
    let record: AuditRecord = canonical::from_signed(bytes).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|e| format!(": {e}")).unwrap_or_default();
        bad(format!("{error}{cause}"))
    })?;
    if !(1..=RECORD_VERSION).contains(&record.version) {
        return Err(bad(format!("version {} is not known here", record.version)));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_types::audit::{Actor, Decision};
    use fleet_types::id::{ControllerId, Generation, RecordId};
    use fleet_types::time::Timestamp;
    use uuid::Uuid;

    fn fleet() -> FleetId {
        FleetId::from_uuid(Uuid::from_u128(1))
    }

    fn record(index: u64, action: &str) -> Vec<u8> {
        let record = AuditRecord {
            version: RECORD_VERSION,
            log: fleet(),
            index,
            id: RecordId::from_uuid(Uuid::from_u128(u128::from(index) + 10)),
            time: Timestamp::clamped(1_790_000_000_000),
            controller: ControllerId::from_uuid(Uuid::from_u128(2)),
            generation: Generation(1),
            actor: Actor {
                role: "operator".into(),
                id: String::new(),
                name: "ada".into(),
                certificate: None,
                address: String::new(),
            },
            action: action.into(),
            object: "run/x".into(),
            decision: Decision::Allowed,
            reason: String::new(),
            idempotency_key: None,
            subject_digest: None,
            job: None,
            attempt: None,
            outcome: None,
            nodes: None,
            detail: std::collections::BTreeMap::new(),
            text: None,
            report: None,
            report_signature: None,
        };
        canonical::to_vec(&record).unwrap()
    }

    fn log(size: u64) -> Vec<Vec<u8>> {
        (0..size).map(|index| record(index, "run.start")).collect()
    }

    fn head(records: &[Vec<u8>]) -> AuditHead {
        let leaves: Vec<_> = records.iter().map(|bytes| leaf_hash(bytes)).collect();
        AuditHead {
            schema: "fleet/v1/audit-head".into(),
            log: fleet(),
            size: records.len() as u64,
            root: fleet_types::merkle::root(&leaves),
            as_of: Timestamp::clamped(1_790_000_000_000),
        }
    }

    fn checked(
        records: &[Vec<u8>],
        head: AuditHead,
        seen: Option<&AuditMark>,
    ) -> Result<AuditMark, LogFault> {
        let mut check = LogCheck::new(fleet(), head, seen)?;
        for (index, bytes) in (0u64..).zip(records) {
            check.push(index, bytes)?;
        }
        check.finish()
    }

    #[test]
    fn a_log_that_grew_is_whole() {
        let (small, large) = (log(300), log(700));
        let seen = checked(&small, head(&small), None).unwrap();
        assert_eq!(seen.marks.iter().map(|mark| mark.size).collect::<Vec<_>>(), [256, 300]);
        let seen = checked(&large, head(&large), Some(&seen)).unwrap();
        assert_eq!(seen.marks.iter().map(|mark| mark.size).collect::<Vec<_>>(), [256, 512, 700]);
        assert_eq!(checked(&[], head(&[]), None).unwrap().marks, []);
    }

    #[test]
    fn a_log_rewritten_with_a_fresh_root_is_found_and_the_place_told() {
        let mut records = log(600);
        let seen = checked(&records, head(&records), None).unwrap();
        records[300] = record(300, "run.cancel");
        let fault = checked(&records, head(&records), Some(&seen)).unwrap_err();
        assert_eq!(fault, LogFault::Rewritten { first: 256, last: 511 });
        records.truncate(400);
        let fault = checked(&records, head(&records), Some(&seen)).unwrap_err();
        assert_eq!(fault, LogFault::Shrunk { size: 400, seen: 600 });
    }

    #[test]
    fn each_fault_names_its_record() {
        let good = log(5);
        let with = |index: usize, bytes: Vec<u8>| {
            let mut records = good.clone();
            records[index] = bytes;
            checked(&records, head(&records), None).unwrap_err()
        };
        assert_eq!(with(3, record(4, "x")), LogFault::Claimed { index: 3, claimed: 4 });
        let spaced = String::from_utf8(good[2].clone()).unwrap().replacen(',', ", ", 1).into_bytes();
        assert!(matches!(with(2, spaced), LogFault::Form { index: 2, .. }));
        assert!(matches!(with(1, b"{}".to_vec()), LogFault::Form { index: 1, .. }));
        let doubled = String::from_utf8(good[1].clone()).unwrap().replacen('{', "{\"action\":\"x\",", 1);
        assert!(matches!(with(1, doubled.into_bytes()), LogFault::Form { index: 1, .. }));
        let foreign = String::from_utf8(good[0].clone()).unwrap().replace(
            "\"log\":\"00000000-0000-0000-0000-000000000001\"",
            "\"log\":\"00000000-0000-0000-0000-000000000009\"",
        );
        assert!(matches!(with(0, foreign.into_bytes()), LogFault::OtherLog { index: 0, .. }));
        assert!(matches!(checked(&good[..3], head(&good), None), Err(LogFault::Short { found: 3, size: 5 })));
        assert!(matches!(
            checked(&good, head(&good[..3]), None),
            Err(LogFault::Place { expected: 3, found: 3 })
        ));
        let mut wrong = head(&good);
        wrong.root = Digest::of(b"x");
        assert!(matches!(checked(&good, wrong, None), Err(LogFault::Root { .. })));
        let mut check = LogCheck::new(fleet(), head(&good), None).unwrap();
        assert_eq!(check.push(1, &good[1]), Err(LogFault::Place { expected: 0, found: 1 }));
    }
}
