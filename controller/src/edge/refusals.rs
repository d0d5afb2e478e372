//! Refused calls and connections: counted, and written to the audit log so that an attacker can neither fill the
//! log nor hide in it (security-and-delivery §1.12, §3.4).
//!
//! Each caller with a certificate has an account of its own, and strangers have one for each action, which belongs
//! to one port. An account gives a few leaves at once and a limited number an hour; what it may not write yet is
//! kept, counted, and written later. So nobody's refusals are lost in another's flood. Strangers' leaves never
//! come from the store's reserve. Connections that end before their handshake are told when they are many.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet_types::audit::Actor;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::entrance::Lost;
use crate::context::{Context, Storage};
use crate::repo::audited::AuditEntry;
use crate::service::caller::nobody;

/// Name of the port for agents and operators, as an action of strangers.
pub const MAIN: &str = "connection/main";
/// Name of the enrolment port.
pub const ENROLMENT: &str = "connection/enrolment";

/// How often counts are written: soon enough for a person who looks, seldom enough for a log.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// Different refusals of one account; what is beyond is counted together.
const MAX_KINDS: usize = 30;
/// Accounts of callers. Each has a certificate of ours, so that they are as many as nodes and people that
/// misbehave within an hour; beyond, a role shares one.
const MAX_CALLERS: usize = 1_000;
/// Leaves an hour of one account: one a minute is enough to see that it goes on.
const LEAVES_AN_HOUR: u32 = 60;
const HOUR: Duration = Duration::from_hours(1);
/// Leaves a commit. Each has at most 4 KiB: together they stay below the store's 1 MiB.
const LEAVES_A_COMMIT: usize = 200;
/// Addresses named in one leaf.
const ADDRESSES: usize = 5;
/// Connections of a port that end before their handshake within [`FLOOD_PERIOD`], from which on it is a flood.
/// Port scanners, load balancers' probes and a site with a bad line stay below.
const FLOOD: u64 = 100;
const FLOOD_PERIOD: Duration = Duration::from_mins(1);
/// What is counted when there is no room for its own words.
const OTHERS: &str = "many different refusals";

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Account {
    /// By action.
    Strangers(&'static str),
    /// By role and id.
    Caller(String, String),
}

type Kind = (&'static str, String);

#[derive(Debug, Clone)]
struct Count {
    number: u64,
    actor: Actor,
    addresses: BTreeSet<String>,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.number += other.number;
        self.addresses.extend(other.addresses);
        while self.addresses.len() > ADDRESSES {
            self.addresses.pop_last();
        }
    }

    fn leaf(self, kind: &Kind) -> AuditEntry {
        let mut actor = self.actor;
        let mut reason = kind.1.clone();
        if self.addresses.len() > 1 {
            actor.address = String::new();
            let addresses: Vec<String> = self.addresses.into_iter().collect();
            reason = format!("{reason} (from {})", addresses.join(", "));
        }
        AuditEntry::new(actor, "refused", format!("{}/{}", kind.0, self.number)).refused(reason)
    }
}

#[derive(Default)]
struct Kinds {
    counts: HashMap<Kind, Count>,
    /// Begin of the hour that leaves are counted in, and how many there were.
    hour: Option<(Instant, u32)>,
}

impl Kinds {
    fn add(&mut self, mut kind: Kind, count: Count) {
        if self.counts.len() >= MAX_KINDS && !self.counts.contains_key(&kind) {
            OTHERS.clone_into(&mut kind.1);
        }
        match self.counts.get_mut(&kind) {
            Some(known) => known.add(count),
            None => _ = self.counts.insert(kind, count),
        }
    }

    /// What may be written now. It counts against the hour once it is written.
    fn take(&mut self, now: Instant) -> Vec<(Kind, Count)> {
        let (began, written) = self.hour.filter(|(began, _)| now - *began < HOUR).unwrap_or((now, 0));
        let room = LEAVES_AN_HOUR.saturating_sub(written) as usize;
        let taken: Vec<(Kind, Count)> = if self.counts.len() <= room {
            self.counts.drain().collect()
        } else {
            let kinds: Vec<Kind> = self.counts.keys().take(room).cloned().collect();
            kinds.into_iter().filter_map(|kind| self.counts.remove_entry(&kind)).collect()
        };
        if !taken.is_empty() {
            self.hour = Some((began, written));
        }
        taken
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.counts.is_empty() && self.hour.is_none_or(|(began, _)| now - began >= HOUR)
    }
}

/// One port's connections that ended before their handshake.
struct Flood {
    began: Instant,
    by_end: BTreeMap<String, u64>,
    addresses: BTreeSet<String>,
    /// When the last leaf was written.
    told: Option<Instant>,
}

#[derive(Default)]
struct Counts {
    accounts: HashMap<Account, Kinds>,
    floods: HashMap<&'static str, Flood>,
}

type Taken = Vec<(Account, Kind, Count)>;

impl Counts {
    fn add(&mut self, account: Account, kind: Kind, count: Count) {
        let is_new = !self.accounts.contains_key(&account);
        let account = match account {
            Account::Caller(role, _) if is_new && self.accounts.len() >= MAX_CALLERS => {
                Account::Caller(role, String::new())
            }
            account => account,
        };
        self.accounts.entry(account).or_default().add(kind, count);
    }

    fn written(&mut self, account: &Account) {
        if let Some((_, written)) = self.accounts.get_mut(account).and_then(|kinds| kinds.hour.as_mut()) {
            *written += 1;
        }
    }

    fn lost(&mut self, port: &'static str, address: IpAddr, lost: Lost, now: Instant) {
        let flood = self.floods.entry(port).or_insert_with(|| Flood {
            began: now,
            by_end: BTreeMap::new(),
            addresses: BTreeSet::new(),
            told: None,
        });
        *flood.by_end.entry(lost.to_string()).or_default() += 1;
        if flood.addresses.len() <= ADDRESSES {
            flood.addresses.insert(address.to_string());
        }
    }

    /// Floods become refusals: at once when one begins, then once an hour with what came in between.
    fn judge_floods(&mut self, now: Instant) {
        let mut told = Vec::new();
        for (port, flood) in &mut self.floods {
            let number: u64 = flood.by_end.values().sum();
            let goes_on = flood.told.is_some_and(|told| now - told < HOUR);
            if number >= FLOOD && !goes_on {
                let ends: Vec<String> = flood.by_end.iter().map(|(end, n)| format!("{n} {end}")).collect();
                let reason = format!("connections that end before their handshake: {}", ends.join(", "));
                tracing::warn!(port, "{number} {reason}");
                let addresses = std::mem::take(&mut flood.addresses);
                let address = addresses.first().cloned().unwrap_or_default();
                told.push((*port, reason, Count { number, actor: nobody(&address), addresses }));
                flood.by_end.clear();
                flood.told = Some(now);
                flood.began = now;
            } else if !goes_on && now - flood.began >= FLOOD_PERIOD {
                flood.by_end.clear();
                flood.addresses.clear();
                flood.began = now;
            }
        }
        for (port, reason, count) in told {
            self.add(Account::Strangers(port), (port, reason), count);
        }
    }

    /// What may be written now: of callers, and of strangers.
    fn take(&mut self, now: Instant) -> (Taken, Taken) {
        self.judge_floods(now);
        let (mut callers, mut strangers) = (Vec::new(), Vec::new());
        for (account, kinds) in &mut self.accounts {
            let list = if matches!(account, Account::Strangers(_)) { &mut strangers } else { &mut callers };
            list.extend(kinds.take(now).into_iter().map(|(kind, count)| (account.clone(), kind, count)));
        }
        self.accounts.retain(|_, kinds| !kinds.is_idle(now));
        (callers, strangers)
    }
}

/// Counts of refusals since they were last written.
#[derive(Default)]
pub struct Refusals {
    counts: Mutex<Counts>,
}

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refused caller without an identity. The reason must not hold what the caller chose.
    pub fn count(&self, action: &'static str, address: IpAddr, reason: &str) {
        let address = address.to_string();
        let count =
            Count { number: 1, actor: nobody(&address), addresses: std::iter::once(address).collect() };
        let kind = (action, reason.chars().take(200).collect());
        self.lock().add(Account::Strangers(action), kind, count);
    }

    /// Counts a refused caller.
    pub fn count_actor(&self, action: &'static str, actor: Actor, reason: &str) {
        let account = Account::Caller(actor.role.clone(), actor.id.clone());
        let addresses = std::iter::once(actor.address.clone()).collect();
        let kind = (action, reason.chars().take(200).collect());
        self.lock().add(account, kind, Count { number: 1, actor, addresses });
    }

    /// Counts a connection that ended before its handshake, on [`MAIN`] or [`ENROLMENT`].
    pub fn count_lost(&self, port: &'static str, address: IpAddr, lost: Lost) {
        self.lock().lost(port, address, lost, Instant::now());
    }

    /// Writes the counts until told to stop, and once more then.
    pub async fn write(self: Arc<Self>, context: Arc<Context>, stop: CancellationToken) {
        loop {
            let stopped = tokio::time::timeout(WRITE_EVERY, stop.cancelled()).await.is_ok();
            self.write_once(&context.storage, Instant::now()).await;
            if stopped {
                return;
            }
        }
    }

    async fn write_once(&self, storage: &Storage, now: Instant) {
        let (callers, strangers) = self.lock().take(now);
        let chunks = |taken: Taken| taken.chunks(LEAVES_A_COMMIT).map(<[_]>::to_vec).collect::<Vec<_>>();
        let callers =
            chunks(callers).into_iter().map(|chunk| (chunk, storage.audited.batch().using_reserve()));
        let strangers = chunks(strangers).into_iter().map(|chunk| (chunk, storage.audited.batch()));
        for (taken, batch) in callers.chain(strangers) {
            let leaves = taken.iter().map(|(_, kind, count)| count.clone().leaf(kind)).collect();
            let outcome = storage.audited.commit(batch, leaves).await;
            if let Err(error) = &outcome {
                tracing::error!("refusals could not be written to the audit log, and are kept: {error}");
            }
            let mut counts = self.lock();
            for (account, kind, count) in taken {
                match outcome {
                    Ok(_) => counts.written(&account),
                    Err(_) => counts.add(account, kind, count),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fleet_types::audit::AuditRecord;

    use super::*;
    use crate::testing::{StagedStore, TestContext, agent};

    fn address(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    async fn leaves(context: &Context) -> Vec<AuditRecord> {
        let bytes = crate::service::audit::bytes(&context.storage, 0, 1000).await.unwrap();
        let records = bytes.iter().map(|(_, bytes)| fleet_types::canonical::from_slice(bytes).unwrap());
        records.filter(|record: &AuditRecord| record.action == "refused").collect()
    }

    #[tokio::test]
    async fn a_forgery_is_in_the_log_by_name_whatever_strangers_do_meanwhile() {
        let test = TestContext::new().await;
        let refusals = Refusals::default();
        for n in 0..2_000_u32 {
            let from = address(u8::try_from(n % 200).unwrap());
            refusals.count("call", from, &format!("guess {n}"));
            refusals.count("handshake", from, "no authority of this fleet");
        }
        for n in 0..6 {
            refusals.count_actor("session", agent(n).actor(), "speaks for another node");
        }
        let now = Instant::now();
        refusals.write_once(&test.context.storage, now).await;
        let written = leaves(&test.context).await;
        let named = written.iter().filter(|leaf| leaf.actor.role == "agent").count();
        assert_eq!(named, 6);
        let of_strangers = written.len() - named;
        assert_eq!(of_strangers, MAX_KINDS + 1 + 1, "30 kinds, the others together, the handshakes");
        for minute in 0..59_u32 {
            refusals.count("call", address(1), &format!("guess {minute}"));
            refusals.write_once(&test.context.storage, now + Duration::from_mins(minute.into())).await;
        }
        let calls = |leaves: &[AuditRecord]| leaves.iter().filter(|l| l.object.starts_with("call/")).count();
        assert_eq!(calls(&leaves(&test.context).await), LEAVES_AN_HOUR as usize, "in an hour");
        refusals.write_once(&test.context.storage, now + HOUR).await;
        let written = leaves(&test.context).await;
        let sum: u64 = written
            .iter()
            .filter_map(|leaf| leaf.object.strip_prefix("call/"))
            .map(|n| n.parse::<u64>().unwrap())
            .sum();
        assert_eq!(sum, 2_000 + 59, "nothing is lost");
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_kept_and_strangers_take_nothing_from_the_reserve() {
        let store = Arc::new(StagedStore::default());
        let test = TestContext::over(store.clone()).await;
        let refusals = Refusals::default();
        store.run_short();
        refusals.count("enrol", address(1), "this token is unknown");
        refusals.count("enrol", address(2), "this token is unknown");
        refusals.count_actor("call", agent(1).actor(), "not allowed");
        let now = Instant::now();
        refusals.write_once(&test.context.storage, now).await;
        let written = leaves(&test.context).await;
        assert_eq!(written.len(), 1);
        assert_eq!(written[0].actor.role, "agent");
        store.has_space_again();
        refusals.write_once(&test.context.storage, now).await;
        let written = leaves(&test.context).await;
        assert_eq!(written[1].object, "enrol/2");
        assert_eq!(written[1].reason, "this token is unknown (from 10.0.0.1, 10.0.0.2)");
        assert_eq!((written[1].actor.address.as_str(), written.len()), ("", 2));
    }

    #[tokio::test]
    async fn refusals_of_many_callers_are_written_however_many_they_are() {
        let store = Arc::new(StagedStore::default());
        let test = TestContext::over(store.clone()).await;
        let refusals = Refusals::default();
        let log = crate::repo::audited::log().unwrap();
        let before = test.context.storage.repo.store().log_len(&log).await.unwrap();
        for (caller, kind) in (0..40).flat_map(|caller| (0..30).map(move |kind| (caller, kind))) {
            refusals.count_actor("call", agent(caller).actor(), &format!("reason {kind}"));
            refusals.count("call", address(1), &format!("guess {kind}"));
        }
        // Tries that fail cost nothing of the hour.
        store.run_short();
        let now = Instant::now();
        for _ in 0..5 {
            refusals.write_once(&test.context.storage, now).await;
        }
        let callers = test.context.storage.repo.store().log_len(&log).await.unwrap() - before;
        assert_eq!(callers, 40 * 30);
        store.has_space_again();
        refusals.write_once(&test.context.storage, now).await;
        let all = test.context.storage.repo.store().log_len(&log).await.unwrap() - before;
        assert_eq!(all, callers + 30);
        // Who has been quiet for an hour is forgotten, and gives room to others.
        refusals.write_once(&test.context.storage, now + HOUR).await;
        assert_eq!(refusals.lock().accounts.len(), 0);
    }

    #[test]
    fn a_flood_is_told_as_it_begins_and_then_once_an_hour_and_a_scanner_never() {
        let mut counts = Counts::default();
        let began = Instant::now();
        let mut told = Vec::new();
        for second in 0..7_200_u64 {
            let now = began + Duration::from_secs(second);
            for n in 0..26 {
                counts.lost(MAIN, address(n), Lost::Silent, now);
            }
            counts.lost(ENROLMENT, address(1), Lost::Stalled, now);
            let (callers, strangers) = counts.take(now);
            assert!(callers.is_empty());
            told.extend(strangers.into_iter().map(|(_, kind, count)| (second, kind, count.number)));
        }
        let (ports, times): (Vec<_>, Vec<_>) = told.iter().map(|(second, kind, _)| (kind.0, *second)).unzip();
        assert_eq!((ports, times), (vec![MAIN, MAIN], vec![3, 3603]));
        assert_eq!((told[0].2, told[1].2), (104, 3600 * 26));
        assert_eq!(told[0].1.1, "connections that end before their handshake: 104 sent no hello");
    }
}
