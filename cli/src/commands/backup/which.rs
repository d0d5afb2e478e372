//! `NODE/BACKUP[@WHEN]`: which archive is meant, among those that reports have named.

use fleet_types::id::{Name, RunId};
use fleet_types::time::Timestamp;
use fleet_types::view::BackupItem;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::list::MAX_LISTED;
use crate::client::Client;
use crate::commands::paging;
use crate::error::{ExitCode, Failure};

/// Digits of a digest that are enough to name an archive.
const LEAST_DIGITS: usize = 8;

/// An archive as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Which {
    node: Name,
    backup: String,
    when: When,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum When {
    Newest,
    Day(Date),
    Run(RunId),
    Digest(String),
}

impl Which {
    /// Reads what was typed.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let fix =
            "write NODE/BACKUP, NODE/BACKUP@2026-11-28 or NODE/BACKUP@RUN; fleetctl backup list shows them";
        let wrong = |why: &str| Failure::usage(format!("\"{text}\" names no archive: {why}")).fix(fix);
        let (archive, when) = text.split_once('@').map_or((text, None), |(of, when)| (of, Some(when)));
        let (node, backup) =
            archive.split_once('/').ok_or_else(|| wrong("a node and a backup belong together"))?;
        let node = node.parse().map_err(|error| wrong(&format!("{error}")))?;
        if backup.is_empty() {
            return Err(wrong("the backup is missing"));
        }
        let when = match when {
            None | Some("latest") => When::Newest,
            Some(when) => When::parse(when).ok_or_else(|| wrong("it is no day, no run and no digest"))?,
        };
        Ok(Self { node, backup: backup.to_owned(), when, text: text.to_owned() })
    }

    /// The archives of its backup, newest first, and which of them is meant.
    pub(super) async fn find(&self, client: &Client) -> Result<(Vec<BackupItem>, usize), Failure> {
        let selector = format!("name={}", self.node);
        let page = paging::all("", MAX_LISTED, async |after| client.backups(&selector, after).await);
        let mut all = page.await?.items;
        let mut known: Vec<String> = all.iter().map(|one| format!("{}/{}", one.node, one.backup)).collect();
        known.sort();
        known.dedup();
        all.retain(|one| one.backup == self.backup);
        all.sort_by_key(|archive| std::cmp::Reverse(archive.made));
        let missing = |what: String| Failure::new(ExitCode::NotFound, "not-found", what);
        if all.is_empty() {
            let failure = missing(format!("no archive of \"{}/{}\" is known", self.node, self.backup));
            let has = format!("there are: {}", known.join(", "));
            return Err(if known.is_empty() { failure } else { failure.fix(has) }.fix("fleetctl backup list"));
        }
        match all.iter().position(|one| self.when.is(one)) {
            Some(place) => Ok((all, place)),
            None => Err(missing(format!("there is no archive \"{}\"", self.text))
                .fix(format!("fleetctl backup list --node {}", self.node))),
        }
    }
}

impl When {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(day) = text.parse::<Date>() {
            return Some(Self::Day(day));
        }
        if let Ok(run) = text.parse::<RunId>() {
            return Some(Self::Run(run));
        }
        let is_digest = text.len() >= LEAST_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_digest.then(|| Self::Digest(text.to_ascii_lowercase()))
    }

    fn is(&self, archive: &BackupItem) -> bool {
        match self {
            Self::Newest => true,
            Self::Day(day) => day_of(archive.made) == *day,
            Self::Run(run) => archive.run == *run,
            Self::Digest(digits) => archive.sha256.to_string().starts_with(digits),
        }
    }
}

/// The day in UTC, as lists show it.
pub(super) fn day_of(at: Timestamp) -> Date {
    let at = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
    at.to_zoned(TimeZone::UTC).date()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_named_by_day_run_or_digest() {
        let when =
            |text: &str| Which::parse(text).map(|which| which.when).map_err(|failure| failure.what.clone());
        assert_eq!(when("fw-1/config"), Ok(When::Newest));
        assert_eq!(when("fw-1/config@latest"), Ok(When::Newest));
        let day = jiff::civil::date(2026, 11, 28);
        assert_eq!(when("fw-1/config@2026-11-28"), Ok(When::Day(day)));
        assert_eq!(when("fw-1/config@20261128"), Ok(When::Day(day)));
        let run = RunId::from_number(5);
        assert_eq!(when(&format!("fw-1/config@{run}")), Ok(When::Run(run)));
        assert_eq!(when("fw-1/config@9F86D081"), Ok(When::Digest("9f86d081".into())));
        for bad in ["fw-1", "fw-1/", "/config", "fw 1/config", "fw-1/config@", "fw-1/config@yesterday"] {
            let why = when(bad).unwrap_err();
            assert!(why.starts_with(&format!("\"{bad}\" names no archive: ")), "{why}");
        }
    }
}
