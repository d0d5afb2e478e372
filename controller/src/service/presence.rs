//! Which nodes were there, across stops and kills of the controller: when a link ends, and how long the controller
//! itself was up. No durable write a heartbeat (security-and-delivery §2.13).

use std::sync::Arc;
use std::time::Duration;

use fleet_types::id::NodeId;
use fleet_types::time::Timestamp;
use fleet_types::view::Presence;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::inventory;
use crate::context::{Context, Memory, Storage};
use crate::error::{Kind, Result};
use crate::repo::fleet::{self, AliveRecord};
use crate::repo::nodes::{self, SeenRecord};
use crate::repo::reader::BatchExt as _;
use crate::settings::Settings;

/// Stores what is known of a node whose link has ended, unless it has a newer one. One write a transition.
pub async fn note_end_of_link(storage: &Storage, memory: &Memory, node: NodeId, by_stop: bool) -> Result<()> {
    let Some(known) = memory.node_cache.get(node) else { return Ok(()) };
    let key = nodes::seen(node)?;
    let Some(seen) = storage.repo.get::<SeenRecord>(&key).await? else { return Ok(()) };
    let record = SeenRecord {
        last_seen: known.last_seen.unwrap_or(seen.record.last_seen),
        journal_sequence: known.journal_sequence.unwrap_or(0).max(seen.record.journal_sequence),
        linked: by_stop,
        ..seen.record
    };
    let batch = storage.audited.batch().using_reserve().replace_record(key, seen.write_id, &record)?;
    match storage.audited.commit(batch, vec![]).await {
        // It has connected again meanwhile, or it was released and begins anew.
        Err(error) if error.kind == Kind::Conflict => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// When a controller over this store was last known to be up.
pub async fn last_alive(storage: &Storage) -> Result<Option<Timestamp>> {
    Ok(storage.repo.get::<AliveRecord>(&fleet::alive()?).await?.map(|stored| stored.record.at))
}

/// How long nodes that were there before have to come back, before they are told to be offline: as long as their
/// first tries are spread, and two heartbeats for a machine that is slow to notice.
fn patience(settings: &Settings, nodes: usize) -> Duration {
    settings.reconnect_spread(nodes) + 2 * settings.heartbeat
}

/// Says every heartbeat that this controller is up, one write whatever the size of the fleet, and once, after its
/// start, who has not come back.
pub async fn keep(context: Arc<Context>, stop: CancellationToken) {
    let mut give_up = Some(Instant::now() + patience(&context.settings, away(&context.memory).len()));
    while timeout(context.settings.heartbeat, stop.cancelled()).await.is_err() {
        if let Err(error) = beat(&context.storage, &context.memory, &mut give_up, Instant::now()).await {
            tracing::warn!("that the controller is up is not stored: {error}");
        }
    }
}

/// Nodes that were there at the last start and have not come back.
fn away(memory: &Memory) -> Vec<NodeId> {
    memory.node_cache.ids(|known| known.presence == Presence::Reconnecting)
}

/// As long as nodes are awaited the store says how long the controller before this one was up: that is when they were
/// there last, should this one end, too, before they come.
async fn beat(storage: &Storage, memory: &Memory, give_up: &mut Option<Instant>, now: Instant) -> Result<()> {
    let awaited = away(memory);
    if give_up.is_some_and(|until| now < until) && !awaited.is_empty() {
        return Ok(());
    }
    if give_up.take().is_some() {
        for node in awaited {
            inventory::disconnected(storage, memory, node, false).await;
        }
    }
    let record = AliveRecord { at: storage.clock.now() };
    let batch = storage.audited.batch().using_reserve().put_record(fleet::alive()?, &record)?;
    storage.audited.commit(batch, vec![]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use fleet_types::digest::Digest;
    use fleet_types::facts::NodeFacts;
    use fleet_types::view::Health;

    use super::*;
    use crate::repo::nodes::HealthRecord;
    use crate::service::inventory::{HelloFacts, connect, fill};
    use crate::testing::{TestContext, enrolled};

    fn hello() -> HelloFacts {
        HelloFacts {
            agent_version: "0.1.0".to_owned(),
            actions: vec![],
            policy_mode: "enforce".to_owned(),
            journal_sequence: 1,
            safe_mode: String::new(),
            start: Digest::of(b"a"),
            facts: NodeFacts::default(),
        }
    }

    /// What a controller that starts over this store knows.
    async fn known_anew(context: &Context, node: NodeId) -> (Presence, Option<Timestamp>) {
        fill(context).await.unwrap();
        let known = context.memory.node_cache.get(node).unwrap();
        (known.presence, known.last_seen)
    }

    #[tokio::test]
    async fn since_when_a_node_is_away_is_true_after_a_restart_of_the_controller() {
        let test = TestContext::new().await;
        let context = &test.context;
        let node = enrolled(context, 1).await.node;
        connect(context, &crate::testing::agent(1), &hello()).await.unwrap();
        let connected = context.storage.clock.now();
        let minutes = |n: u64| connected.plus(Duration::from_mins(n));

        // It was heard of for 10 minutes, then its link ended.
        context.memory.node_cache.touch(node, minutes(10));
        inventory::disconnected(&context.storage, &context.memory, node, false).await;
        assert_eq!(known_anew(context, node).await, (Presence::Offline, Some(minutes(10))));
        // It was there when the controller stopped.
        connect(context, &crate::testing::agent(1), &hello()).await.unwrap();
        context.memory.node_cache.touch(node, minutes(20));
        inventory::disconnected(&context.storage, &context.memory, node, true).await;
        assert_eq!(known_anew(context, node).await, (Presence::Reconnecting, Some(minutes(20))));
        // The controller was killed: the node was there as long as the controller was.
        let alive = AliveRecord { at: minutes(30) };
        let batch = context.storage.audited.batch().put_record(fleet::alive().unwrap(), &alive).unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        assert_eq!(known_anew(context, node).await, (Presence::Reconnecting, Some(minutes(30))));
        let site = &context.memory.node_cache.sites(context.storage.clock.now())[0];
        assert_eq!((site.offline, site.unknown), (0, 1), "no alarm for a node that is on its way");
        assert!(context.memory.node_cache.attention(9).is_empty());
        // It does not come: that is known once, and after the next start, too.
        inventory::disconnected(&context.storage, &context.memory, node, false).await;
        assert_eq!(known_anew(context, node).await, (Presence::Offline, Some(minutes(30))));
    }

    #[tokio::test]
    async fn a_controller_that_ends_before_its_nodes_came_back_does_not_say_that_they_were_there() {
        let test = TestContext::new().await;
        let context = &test.context;
        let node = enrolled(context, 1).await.node;
        connect(context, &crate::testing::agent(1), &hello()).await.unwrap();
        let then = context.storage.clock.now().plus(Duration::from_mins(30));
        let batch =
            context.storage.audited.batch().put_record(fleet::alive().unwrap(), &AliveRecord { at: then });
        context.storage.audited.commit(batch.unwrap(), vec![]).await.unwrap();
        // Two starts, and the first of them did not last.
        let now = Instant::now();
        for _ in 0..2 {
            assert_eq!(known_anew(context, node).await, (Presence::Reconnecting, Some(then)));
            let mut give_up = Some(now + Duration::from_mins(1));
            beat(&context.storage, &context.memory, &mut give_up, now).await.unwrap();
            assert_eq!(last_alive(&context.storage).await.unwrap(), Some(then));
        }
        beat(&context.storage, &context.memory, &mut Some(now), now).await.unwrap();
        assert_eq!(known_anew(context, node).await, (Presence::Offline, Some(then)));
        assert!(last_alive(&context.storage).await.unwrap() < Some(then), "it says of itself that it is up");
    }

    #[tokio::test]
    async fn the_newest_health_is_kept_however_many_jobs_came_after_it() {
        let test = TestContext::new().await;
        let context = &test.context;
        let node = enrolled(context, 1).await.node;
        let health = Health {
            score: 70,
            problems: 2,
            worst: "disk".to_owned(),
            unknown: 0,
            at: context.storage.clock.now(),
            fresh_until: None,
        };
        let record = HealthRecord { health: health.clone() };
        let batch =
            context.storage.audited.batch().put_record(nodes::health(node).unwrap(), &record).unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        fill(context).await.unwrap();
        assert_eq!(context.memory.node_cache.get(node).unwrap().health, Some(health));
    }
}
