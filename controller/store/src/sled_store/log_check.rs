//! At start: do the counters and the newest records of the logs agree.
//!
//! A truncated file can open without an error and lack its last commits (security-and-delivery §4.4). What the store
//! can see alone is checked here; that a whole tail is missing shows only against the audit mirror, which the
//! controller compares. Values that are not read here are checked whenever they are read.

use crate::commit_plan::{LOG_COUNTER_PREFIX, read_counter};
use crate::envelope;
use crate::error::StoreError;
use crate::key::{LogName, end_of_prefix};

/// Records of each log that are read at start, newest first; as many as the audit mirror is compared for.
const RECORDS_CHECKED: u64 = 1000;

/// Checks all logs; returns how many there are and how many records were read. Errors of sled itself are left to the
/// caller's guard.
pub(crate) fn check_logs(db: &sled::Db) -> sled::Result<Result<CheckedLogs, StoreError>> {
    let mut checked = CheckedLogs::default();
    for found in db.scan_prefix(LOG_COUNTER_PREFIX) {
        let (key, sealed) = found?;
        let name = String::from_utf8_lossy(&key[LOG_COUNTER_PREFIX.len()..]).into_owned();
        let parsed = LogName::new(name).and_then(|log| Ok((log, read_counter(&key, Some(&sealed))?)));
        let (log, next) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return Ok(Err(error)),
        };
        match check_log(db, &log, next)? {
            Ok(records) => checked.records += records,
            Err(error) => return Ok(Err(error)),
        }
        checked.logs += 1;
    }
    Ok(Ok(checked))
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CheckedLogs {
    pub(crate) logs: u64,
    pub(crate) records: u64,
}

fn check_log(db: &sled::Db, log: &LogName, next: u64) -> sled::Result<Result<u64, StoreError>> {
    let corrupt = |what: String| Ok(Err(StoreError::Corrupt { what }));
    let first_free = log.record_key(next).into_bytes();
    let end = end_of_prefix(&log.record_prefix()).unwrap_or_default();
    if let Some(above) = db.range(first_free..end).keys().next().transpose()?
        && above.len() == log.record_prefix().len() + 8
    {
        return corrupt(format!("log {log} has a record above its counter of {next}"));
    }
    let mut records = 0;
    for index in (next.saturating_sub(RECORDS_CHECKED)..next).rev() {
        let key = log.record_key(index);
        match db.get(key.as_bytes())? {
            Some(sealed) => {
                if let Err(error) = envelope::open(key.as_bytes(), &sealed) {
                    return Ok(Err(error));
                }
                records += 1;
            }
            // Older records may have been pruned, the last one never is.
            None if records > 0 => break,
            None => return corrupt(format!("log {log} should have {next} records, its last one is missing")),
        }
    }
    Ok(Ok(records))
}
