//! Encrypted copies of backups: whose are taken, who reads them, and how long they are kept.
//!
//! Taken is only what a node's own signed report names, byte for byte; so nobody can fill the disk under names of their
//! making, and what is kept is what the node made. The keys to them are the owners' (docs/adr/0034).

use std::collections::BTreeMap;

use fleet_store::Direction;
use fleet_types::digest::Digest;
use fleet_types::id::Name;
use fleet_types::time::Timestamp;

use super::caller::Agent;
use super::{inventory, views};
use crate::context::{Context, Files, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::repo::backups::{self, BackupRecord, CopyRecord};
use crate::repo::copy_files::{Piece, Progress};
use crate::repo::reader::{BatchExt as _, PAGE};

/// A piece of a copy is read at a time.
const READ_BYTES: u64 = 1024 * 1024;
/// A day in milliseconds.
const DAY_MS: i64 = 86_400_000;

/// A piece as it arrives: of which archive, and what.
pub struct Arrived {
    /// When the archive was made.
    pub made: Timestamp,
    /// Digest of the archive.
    pub archive: Digest,
    /// Digest of the copy.
    pub sha256: Digest,
    /// Where the piece begins.
    pub offset: u64,
    /// The piece.
    pub data: Vec<u8>,
}

/// Takes a piece of a node's copy.
pub async fn take(context: &Context, agent: &Agent, arrived: Arrived) -> Result<Progress> {
    inventory::check_active(&context.memory, &context.settings, agent.node)?;
    let key = backups::key(agent.node, arrived.made.as_millis(), &arrived.archive)?;
    let known = context.storage.repo.get::<BackupRecord>(&key).await?;
    // The report may be on its way behind reports that are.
    let Some(known) = known else {
        let why = "no report has named this copy yet";
        return Err(ControllerError::new(Kind::Unavailable, "copy-unknown", why));
    };
    let Some(copy) = known.record.copy.clone().filter(|copy| copy.sha256 == arrived.sha256) else {
        let why = "the report on this archive names another copy, or none";
        return Err(ControllerError::new(Kind::Refused, "copy-refused", why));
    };
    if copy.stored.is_some() {
        return Ok(Progress::Whole);
    }
    let piece = Piece { sha256: copy.sha256, size: copy.size, offset: arrived.offset, data: arrived.data };
    let progress = context.files.copies.append(agent.node, piece).await?;
    if progress == Progress::Whole {
        let copy = Some(CopyRecord { stored: Some(context.storage.clock.now()), ..copy });
        let record = BackupRecord { copy, ..known.record };
        let batch = context.storage.audited.batch().replace_record(key, known.write_id, &record)?;
        // Where the record changed meanwhile, the node asks again and finds the copy whole.
        context.storage.audited.commit(batch, vec![]).await?;
    }
    Ok(progress)
}

/// A piece of a stored copy; empty at its end.
pub async fn read(context: &Context, node: &str, made: i64, archive: Digest, offset: u64) -> Result<Vec<u8>> {
    let name: Name = node.parse().map_err(|error| ControllerError::invalid("copy.node", error))?;
    let node = views::find(&context.memory, name.as_str())?.record.id;
    let missing = |why: &str| {
        ControllerError::new(Kind::NotFound, "no-copy", why)
            .fix("fleetctl backup list shows which copies there are")
    };
    let Some(known) = context.storage.repo.get::<BackupRecord>(&backups::key(node, made, &archive)?).await?
    else {
        return Err(missing("there is no such archive"));
    };
    match known.record.copy {
        None => Err(missing("no copy of this archive was made")),
        Some(CopyRecord { stored: None, .. }) => Err(missing("the copy of this archive is not here yet")),
        Some(CopyRecord { gone: Some(_), .. }) => {
            Err(missing("the copy of this archive was given up by its retention"))
        }
        Some(copy) => context
            .files
            .copies
            .read(node, copy.sha256, offset, READ_BYTES)
            .await?
            .ok_or_else(|| missing("the file of this copy is missing on the controller")),
    }
}

/// Takes away copies that are over by what the profile says of them, never the newest of a backup. How many went.
pub async fn sweep(storage: &Storage, files: &Files, now: Timestamp) -> Result<usize> {
    files.copies.sweep(now).await?;
    let (mut gone, mut after) = (0, None);
    // Newest first, node by node: so many copies of each backup have been passed.
    let mut passed: BTreeMap<(String, String), u32> = BTreeMap::new();
    loop {
        let page = storage
            .repo
            .page::<BackupRecord>(backups::ALL, after.as_ref(), PAGE, Direction::Descending)
            .await?;
        let is_last = page.len() < PAGE;
        after = page.last().map(|(key, _)| key.clone());
        for (key, stored) in page {
            let record = stored.record;
            let Some(copy) = record.copy.clone().filter(|_| record.has_copy()) else { continue };
            let of = (record.node.to_string(), record.backup.clone());
            // Of another node nothing comes any more.
            passed.retain(|(node, _), _| *node == of.0);
            let newer = passed.entry(of).or_default();
            *newer += 1;
            if *newer == 1 || !is_over(&copy, *newer - 1, record.made, now) {
                continue;
            }
            files.copies.remove(record.node, copy.sha256).await?;
            let record = BackupRecord { copy: Some(CopyRecord { gone: Some(now), ..copy }), ..record };
            let batch =
                storage.audited.batch().using_reserve().replace_record(key, stored.write_id, &record)?;
            storage.audited.commit(batch, vec![]).await?;
            gone += 1;
        }
        if is_last {
            return Ok(gone);
        }
    }
}

/// With both limits both must agree; with none the copy stays as long as its record.
fn is_over(copy: &CopyRecord, newer: u32, made: Timestamp, now: Timestamp) -> bool {
    let too_many = copy.keep_count.map(|count| newer >= count);
    let age = now.as_millis().saturating_sub(made.as_millis());
    let too_old = copy.keep_days.map(|days| age > i64::from(days) * DAY_MS);
    match (too_many, too_old) {
        (None, None) => false,
        (many, old) => many.unwrap_or(true) && old.unwrap_or(true),
    }
}

#[cfg(test)]
mod tests {
    use fleet_types::id::RunId;

    use super::*;
    use crate::testing::{TestContext, enrolled};

    async fn record(
        context: &Context,
        agent: &Agent,
        made: i64,
        copy: Option<&[u8]>,
        keep: (Option<u32>, Option<u32>),
    ) {
        let record = BackupRecord {
            node: agent.node,
            node_name: agent.name.clone(),
            backup: "config".to_owned(),
            path: "/b/x".to_owned(),
            size: 1,
            sha256: Digest::of(b"archive"),
            made: Timestamp::clamped(made),
            verified: true,
            run: RunId::from_number(1),
            listed_in: None,
            copy: copy.map(|copy| CopyRecord {
                sha256: Digest::of(copy),
                size: copy.len() as u64,
                keep_days: keep.0,
                keep_count: keep.1,
                stored: None,
                gone: None,
            }),
        };
        let key = backups::key(agent.node, made, &record.sha256).unwrap();
        let batch = context.storage.audited.batch().put_record(key, &record).unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
    }

    fn arrived(made: i64, copy: &[u8], offset: u64, data: &[u8]) -> Arrived {
        let (archive, sha256) = (Digest::of(b"archive"), Digest::of(copy));
        Arrived { made: Timestamp::clamped(made), archive, sha256, offset, data: data.to_vec() }
    }

    const MADE: i64 = 1_790_000_000_000;

    #[tokio::test]
    async fn what_a_report_names_is_taken_and_read_and_nothing_else() {
        let test = TestContext::new().await;
        let context = &test.context;
        let (one, two) = (enrolled(context, 1).await, enrolled(context, 2).await);
        let code = async |agent: &Agent, piece| {
            take(context, agent, piece).await.map_err(|error| error.detail.code.clone())
        };
        let unknown = code(&one, arrived(MADE, b"copy", 0, b"")).await;
        assert_eq!(unknown, Err("copy-unknown".to_owned()), "the report is yet to come");
        record(context, &one, MADE, Some(b"copy"), (None, None)).await;
        assert_eq!(code(&one, arrived(MADE, b"other", 0, b"other")).await, Err("copy-refused".to_owned()));
        assert_eq!(code(&two, arrived(MADE, b"copy", 0, b"co")).await, Err("copy-unknown".to_owned()));
        assert_eq!(code(&one, arrived(MADE, b"copy", 0, b"co")).await, Ok(Progress::At(2)));
        let early = read(context, one.name.as_str(), MADE, Digest::of(b"archive"), 0).await.unwrap_err();
        assert_eq!((early.kind, early.detail.message.contains("not here yet")), (Kind::NotFound, true));
        assert_eq!(code(&one, arrived(MADE, b"copy", 2, b"py")).await, Ok(Progress::Whole));
        assert_eq!(
            code(&one, arrived(MADE, b"copy", 0, b"")).await,
            Ok(Progress::Whole),
            "the answer was lost"
        );
        let whole = async |offset| {
            read(context, one.name.as_str(), MADE, Digest::of(b"archive"), offset).await.unwrap()
        };
        assert_eq!(
            (whole(0).await, whole(3).await, whole(4).await),
            (b"copy".into(), b"y".into(), b"".into())
        );
    }

    #[tokio::test]
    async fn copies_go_by_their_profile_and_the_newest_stays() {
        let test = TestContext::new().await;
        let context = &test.context;
        let agent = enrolled(context, 1).await;
        let now = Timestamp::clamped(MADE);
        for (days, keep) in [
            (50, (Some(30), Some(2))),
            (40, (Some(30), Some(2))),
            (35, (Some(30), None)),
            (34, (None, Some(1))),
        ] {
            let (made, copy) = (MADE - days * DAY_MS, format!("copy {days}"));
            record(context, &agent, made, Some(copy.as_bytes()), keep).await;
            take(context, &agent, arrived(made, copy.as_bytes(), 0, copy.as_bytes())).await.unwrap();
        }
        // The one of 40 days ago is one of the newest but two only by number: both rules must agree.
        assert_eq!(sweep(&context.storage, &context.files, now).await.unwrap(), 3);
        assert_eq!(sweep(&context.storage, &context.files, now).await.unwrap(), 0);
        let there = async |days: i64| {
            read(context, agent.name.as_str(), MADE - days * DAY_MS, Digest::of(b"archive"), 0).await.is_ok()
        };
        assert_eq!(
            [there(34).await, there(35).await, there(40).await, there(50).await],
            [true, false, false, false]
        );
    }
}
