//! One turn over all lanes. What is decided is saved in one commit with what it does, and only then is the lane looked at again.
//!
//! A turn that fails in the middle has done what it has done; the next one goes on. Called by the loop, and by tests in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_schedule::{Blackouts, ClockWatch, Decided, JUMP, Running, Skip, decide};
use fleet_types::digest::Digest;
use fleet_types::document::{Document, DocumentKind};
use fleet_types::id::RunId;
use fleet_types::time::Timestamp;
use fleet_types::view::NotFired;

use super::firing;
use crate::clock::Clock;
use crate::context::Context;
use crate::error::Result;
use crate::repo::audited::AuditEntry;
use crate::repo::documents::{self as kept_documents, DocumentRecord};
use crate::repo::reader::Stored;
use crate::repo::runs::{self, RunRecord};
use crate::repo::standing_orders;
use crate::repo::ticks::{self, DecidedTick, Lane, LaneRecord, PauseRecord, Pauses};
use crate::service::documents;
use crate::service::schedules::prepared::{Prepared, PreparedLane};

/// Steps of one lane in one turn; what is left is done in the next, at once.
const STEPS: usize = 32;
/// After a run that could not be made; doubled each time.
const RETRY: Duration = Duration::from_mins(1);
/// No longer than this.
const RETRY_AT_MOST: Duration = Duration::from_mins(15);

/// What the scheduler remembers between two turns.
pub struct Scheduler {
    watch: ClockWatch,
    prepared: BTreeMap<Digest, Prepared>,
    /// Blackouts, with the files that they are of.
    blackouts: (BTreeSet<Digest>, Blackouts),
    /// Runs that have ended: they are not asked for again.
    ended: BTreeMap<Lane, RunId>,
    /// Ticks whose run could not be made.
    failed: BTreeMap<Lane, Failed>,
}

/// A tick whose run could not be made.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The tick.
    pub at: Timestamp,
    /// Why, as an operator would be told.
    pub why: String,
    /// When to try again.
    pub retry_at: Timestamp,
    wait: Duration,
}

/// What a lane is looked at with.
pub struct Look<'a> {
    /// The controller.
    pub context: &'a Context,
    /// The order.
    pub prepared: &'a Prepared,
    /// The schedule in its zone.
    pub lane: &'a PreparedLane,
    /// The lane as it is stored.
    pub stored: Option<Stored<LaneRecord>>,
    /// Blackouts of all files.
    pub blackouts: &'a Blackouts,
    /// Now.
    pub now: Timestamp,
}

impl Look<'_> {
    /// The lane as it will be once every tick up to `decided` is.
    pub fn decided(&self, decided: Timestamp) -> LaneRecord {
        LaneRecord {
            lane: self.lane.lane.clone(),
            decided,
            fired: self.stored.as_ref().and_then(|stored| stored.record.fired),
        }
    }

    /// What became of ticks that are not carried out.
    pub fn not_fired(&self, skip: Skip, because: String) -> DecidedTick {
        DecidedTick {
            lane: self.lane.lane.clone(),
            at: skip.last,
            first: (skip.count > 1).then_some(skip.first),
            count: skip.count,
            decided: self.now,
            not_fired: Some(skip.why),
            because,
            runs: vec![],
        }
    }

    /// Saves that every tick up to this one is decided, without a word about them.
    pub async fn advance(&self, decided: Timestamp) -> Result<()> {
        let audited = &self.context.storage.audited;
        let seen = self.stored.as_ref().map(|stored| stored.write_id);
        audited.commit(ticks::decide(audited.batch(), seen, &self.decided(decided), &[])?, vec![]).await?;
        Ok(())
    }

    /// Saves that ticks are not carried out.
    pub async fn save(&self, ticks: Vec<DecidedTick>) -> Result<()> {
        let Some(decided) = ticks.iter().map(|tick| tick.at).max() else { return Ok(()) };
        let mut new = Vec::with_capacity(ticks.len());
        for tick in ticks {
            // Decided before by a clock that went wrong.
            if ticks::tick(&self.context.storage.repo, &tick.lane, tick.at).await?.is_none() {
                new.push(tick);
            }
        }
        let ticks = new;
        let audited = &self.context.storage.audited;
        let seen = self.stored.as_ref().map(|stored| stored.write_id);
        let batch = ticks::decide(audited.batch(), seen, &self.decided(decided), &ticks)?;
        let leaf = |tick: &DecidedTick| {
            let reason = tick.not_fired.map_or("", NotFired::as_str);
            let object = format!("schedule/{}/{}", tick.lane.file, tick.lane.schedule);
            AuditEntry::new(audited.actor(), "schedule.skip", object)
                .because(reason)
                .detail("tick", tick.at.to_string())
                .detail("zone", tick.lane.zone.clone())
                .detail("count", tick.count.to_string())
                .text(&tick.because)
        };
        audited.commit(batch, ticks.iter().map(leaf).collect()).await?;
        Ok(())
    }
}

impl Scheduler {
    /// Begins now.
    pub fn new(clock: &Clock) -> Self {
        Self {
            watch: ClockWatch::new(clock.now(), clock.since_boot()),
            prepared: BTreeMap::new(),
            blackouts: Default::default(),
            ended: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Looks at every lane; the instant of the next look, if one is known.
    pub async fn turn(&mut self, context: &Context) -> Result<Option<Timestamp>> {
        let now = context.storage.clock.now();
        let repo = &context.storage.repo;
        let lanes = ticks::lanes(repo).await?;
        let mut pauses = ticks::pauses(repo).await?;
        self.watch_clock(context, now, &lanes, &mut pauses).await?;
        if pauses.all.as_ref().is_some_and(|pause| pause.jumped_ms.is_some()) {
            return Ok(None);
        }
        self.prepare(context).await?;
        let blackouts = self.blackouts(context).await?;
        let mut stored: BTreeMap<Lane, Stored<LaneRecord>> =
            lanes.into_iter().map(|stored| (stored.record.lane.clone(), stored)).collect();
        let (mut next, mut waiting) = (None::<Timestamp>, BTreeMap::new());
        let prepared = std::mem::take(&mut self.prepared);
        for order in prepared.values() {
            let is_held = pauses.all.is_some() || pauses.schedules.contains_key(&order.record.schedule());
            for lane in &order.lanes {
                let look = Look {
                    context,
                    prepared: order,
                    lane,
                    stored: stored.remove(&lane.lane),
                    blackouts: &blackouts,
                    now,
                };
                let again = match self.lane(look, is_held, &mut waiting).await {
                    Ok(again) => again,
                    Err(error) => {
                        tracing::error!(lane = %lane.lane, "a schedule cannot be looked at: {error}");
                        waiting.insert(lane.lane.clone(), error.to_string());
                        Some(now.plus(RETRY))
                    }
                };
                next = [next, again].into_iter().flatten().min();
            }
        }
        self.prepared = prepared;
        self.failed.retain(|lane, _| waiting.contains_key(lane));
        context.memory.waiting_ticks.set(waiting);
        Ok(next)
    }

    /// Pauses everything when the wall clock jumped, or stands before what was decided by it.
    async fn watch_clock(
        &mut self,
        context: &Context,
        now: Timestamp,
        lanes: &[Stored<LaneRecord>],
        pauses: &mut Pauses,
    ) -> Result<()> {
        let jumped = self.watch.look(now, context.storage.clock.since_boot());
        let newest = lanes.iter().map(|stored| stored.record.decided).max();
        let behind = newest.map(|newest| newest.since(now)).filter(|behind| *behind > JUMP);
        let behind = behind.map(|behind| -i64::try_from(behind.as_millis()).unwrap_or(i64::MAX));
        let known = pauses.all.as_ref().and_then(|pause| pause.jumped_ms);
        let Some(by) = jumped.or(behind.filter(|_| known.is_none())) else { return Ok(()) };
        let seconds = by / 1000;
        let pause = PauseRecord {
            by: String::new(),
            reason: format!("the clock of the controller jumped by {seconds} s"),
            at: now,
            jumped_ms: Some(by),
        };
        tracing::error!(seconds, "the clock jumped; no schedule fires until an operator resumes");
        let audited = &context.storage.audited;
        let batch = ticks::pause(audited.batch(), None, &pause)?;
        let leaf = AuditEntry::new(audited.actor(), "schedule.pause", "schedule/all").text(&pause.reason);
        audited.commit(batch, vec![leaf]).await?;
        pauses.all = Some(pause);
        Ok(())
    }

    /// Keeps the orders ready that stand and whose file is the newest.
    async fn prepare(&mut self, context: &Context) -> Result<()> {
        let mut before = std::mem::take(&mut self.prepared);
        for stored in standing_orders::all(&context.storage.repo).await? {
            let record = stored.record;
            let head = kept_documents::head(DocumentKind::Schedule.as_str(), record.file.as_str())?;
            let head = context.storage.repo.get::<DocumentRecord>(&head).await?;
            if head.is_none_or(|head| head.record.digest != record.order.file) {
                continue;
            }
            let digest = record.digest;
            let prepared = match before.remove(&digest) {
                Some(prepared) => prepared,
                None => match Prepared::of(&context.storage, record).await {
                    Ok(prepared) => prepared,
                    Err(error) => {
                        tracing::error!(%digest, "a standing order cannot be read: {error}");
                        continue;
                    }
                },
            };
            self.prepared.insert(digest, prepared);
        }
        Ok(())
    }

    /// Blackouts of the newest revision of every file.
    async fn blackouts(&mut self, context: &Context) -> Result<Blackouts> {
        let heads = context
            .storage
            .repo
            .all::<DocumentRecord>(&kept_documents::heads_of(DocumentKind::Schedule.as_str()))
            .await?;
        let files: BTreeSet<Digest> = heads.into_iter().map(|(_, stored)| stored.record.digest).collect();
        if files != self.blackouts.0 {
            let mut blackouts = Blackouts::default();
            for digest in &files {
                if let Document::Schedule(file) = documents::document(&context.storage, *digest).await? {
                    blackouts.add(&file);
                }
            }
            self.blackouts = (files, blackouts);
        }
        Ok(self.blackouts.1.clone())
    }

    /// One lane, step by step until nothing is left to do; when to look again.
    async fn lane(
        &mut self,
        mut look: Look<'_>,
        paused: bool,
        waiting: &mut BTreeMap<Lane, String>,
    ) -> Result<Option<Timestamp>> {
        let lane = look.lane.lane.clone();
        for _ in 0..STEPS {
            let running = self.running(&look).await?;
            let failed = self.failed.get(&lane).cloned();
            let order = &look.prepared.record.order;
            let known = fleet_schedule::Lane {
                times: &look.lane.times,
                rules: &look.lane.rules,
                from: order.not_before,
                end: order.not_after,
                decided: look.stored.as_ref().map(|stored| stored.record.decided),
                running,
                paused,
                retry_at: failed.as_ref().map(|failed| failed.retry_at),
            };
            let decided = decide(&known, look.now);
            if self.act(&look, &decided, failed.as_ref()).await? {
                look.stored = ticks::lane(&look.context.storage.repo, &lane).await?;
                continue;
            }
            if let Some(wait) = decided.wait {
                let why = failed.map_or_else(|| wait.why.to_string(), |failed| failed.why);
                waiting.insert(lane, format!("the tick of {} waits until {}: {why}", wait.at, wait.until));
                return Ok(decided.look_again);
            }
            if let Some(failed) = self.failed.get(&lane) {
                waiting.insert(lane, format!("the tick of {} waits: {}", failed.at, failed.why));
                return Ok([decided.look_again, Some(failed.retry_at)].into_iter().flatten().min());
            }
            let round = if running.is_some() || paused { None } else { firing::round(&look).await? };
            if round == Some(firing::Rounded::Fired) {
                look.stored = ticks::lane(&look.context.storage.repo, &lane).await?;
                continue;
            }
            let then = round.and_then(firing::Rounded::then);
            return Ok([decided.look_again, then].into_iter().flatten().min());
        }
        Ok(Some(look.now))
    }

    /// Carries out what is decided; whether something was, so that the lane is to be looked at anew.
    async fn act(&mut self, look: &Look<'_>, decided: &Decided, failed: Option<&Failed>) -> Result<bool> {
        let lane = &look.lane.lane;
        // A site's zone in which no node lives has nothing to miss.
        let nodes = if decided.skip.is_empty() && decided.fire.is_none() {
            vec![]
        } else {
            look.prepared.nodes(look.context, lane)
        };
        if nodes.is_empty() && look.prepared.by_site {
            let newest =
                decided.skip.iter().map(|skip| skip.last).chain(decided.fire.map(|fire| fire.at)).max();
            let Some(newest) = newest else { return Ok(false) };
            look.advance(newest).await?;
            return Ok(true);
        }
        if !decided.skip.is_empty() {
            let tick = |skip: &Skip| match failed {
                Some(failed) if failed.at == skip.last && skip.why == NotFired::Missed => {
                    look.not_fired(Skip { why: NotFired::Refused, ..*skip }, failed.why.clone())
                }
                _ => look.not_fired(*skip, String::new()),
            };
            look.save(decided.skip.iter().map(tick).collect()).await?;
            self.failed.remove(lane);
            return Ok(true);
        }
        if let Some(run) = decided.cancel {
            firing::cancel(look, run).await?;
        }
        let Some(fire) = decided.fire else { return Ok(false) };
        if ticks::tick(&look.context.storage.repo, lane, fire.at).await?.is_some() {
            // Decided before by a clock that went wrong: no tick fires twice.
            look.advance(fire.at).await?;
            return Ok(true);
        }
        match firing::fire(look, fire, &nodes).await {
            Ok(()) => {
                self.failed.remove(lane);
                Ok(true)
            }
            Err(error) => {
                let why = error.to_string();
                tracing::warn!(%lane, tick = %fire.at, "a tick cannot be fired: {why}");
                let wait = failed.map_or(RETRY, |failed| (failed.wait * 2).min(RETRY_AT_MOST));
                let retry_at = look.now.plus(wait);
                self.failed.insert(lane.clone(), Failed { at: fire.at, why, retry_at, wait });
                Ok(false)
            }
        }
    }

    /// The run of the lane's newest tick, as long as it goes.
    async fn running(&mut self, look: &Look<'_>) -> Result<Option<Running>> {
        let fired = look.stored.as_ref().and_then(|stored| stored.record.fired);
        let Some(fired) = fired.filter(|fired| self.ended.get(&look.lane.lane) != Some(&fired.run)) else {
            return Ok(None);
        };
        let record = look.context.storage.repo.get::<RunRecord>(&runs::key(fired.run)?).await?;
        if record.is_some_and(|stored| !stored.record.state.is_terminal()) {
            return Ok(Some(Running { run: fired.run, caught_up: fired.caught_up }));
        }
        self.ended.insert(look.lane.lane.clone(), fired.run);
        Ok(None)
    }
}
