//! Limits of a site and of the fleet over several runs, and whose turn it is when a place becomes free.

use fleet_rollout::Scope;
use fleet_types::view::Presence as Link;

use super::*;
use crate::error::Kind;
use crate::runner::run_loop::{Runs, round};
use crate::testing::enrolled;

fn site(number: u32) -> Place {
    Place { scope: Scope::Site("-".to_owned()), number }
}

impl World {
    async fn held(&self) -> Vec<(Place, String)> {
        let held = holds::holds(&self.context().storage.repo).await.unwrap();
        held.into_iter().map(|(place, holder)| (place, holder.name)).collect()
    }

    fn why(&self, active: &Active, n: u128) -> Vec<String> {
        let reasons =
            active.open.read().rollout().blocked(agent(n).node, self.context().storage.clock.moment());
        reasons.iter().map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn two_runs_never_change_more_nodes_of_a_site_than_it_allows() {
    let mut world = World::configured("[limits]\nmax_changing_per_site = 2").await;
    let first = world.run_of(1, &[1], 9, None).await;
    let second = world.run_of(2, &[2, 3], 9, None).await;
    let one = world.load(first).await;
    world.pass(&one, &[]).await;
    // The other run, read before it heard of that, is stopped by the commit itself.
    let two = world.load(second).await;
    let free = fleet_rollout::Event::Held { place: site(0), holder: None };
    two.open.write().apply(world.context().storage.clock.moment(), &free).unwrap();
    let (mut nothing, mut retries) = (Holds::default(), CancelRetries::default());
    let error = pass::settle(&world.test.context, &two, &mut nothing, &mut retries).await.unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);
    assert_eq!(world.held().await, [(site(0), "fw-1".to_owned())]);
    // Read anew, it takes what is left and no more, and says for whom it waits.
    let two = world.load(second).await;
    world.pass(&two, &[]).await;
    assert_eq!(world.held().await, [(site(0), "fw-1".to_owned()), (site(1), "fw-2".to_owned())]);
    assert_eq!(world.state(second, 3).await, JobState::Queued);
    assert_eq!(world.why(&two, 3), ["site -: 2 of 2 nodes are in change: fw-1, fw-2"]);
    let shown = run_views::jobs_page(&world.context().storage, &world.context().memory, second, "", 10)
        .await
        .unwrap();
    assert!(shown.items.iter().all(|job| job.blocked.is_empty()), "no engine of it is shown yet");
    world.context().memory.open_runs.publish(second, Arc::clone(&two.open));
    let shown = run_views::jobs_page(&world.context().storage, &world.context().memory, second, "", 10)
        .await
        .unwrap();
    assert_eq!(shown.items[1].blocked, ["site -: 2 of 2 nodes are in change: fw-1, fw-2"]);
    // The end gives the place back in its own commit.
    world.end(first, 1, Outcome::Succeeded).await;
    assert_eq!(world.held().await, [(site(1), "fw-2".to_owned())]);
    assert!(world.pass(&one, &[1]).await);
    pass::tell_hold(&world.test.context.storage, &two, &world.holds, &site(0)).unwrap();
    world.pass(&two, &[]).await;
    assert_eq!(world.held().await, [(site(0), "fw-3".to_owned()), (site(1), "fw-2".to_owned())]);
}

#[tokio::test]
async fn a_lost_job_keeps_its_places_until_an_operator_releases_its_node() {
    let mut world =
        World::configured("[limits]\nmax_changing_per_site = 9\nmax_changing_per_fleet = 1").await;
    let run = world.run(1, &[1, 2]).await;
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    let fleet = Place { scope: Scope::Fleet, number: 0 };
    let all = [Place::pair(PAIR.to_owned()), site(0), fleet].map(|place| (place, "fw-1".to_owned()));
    world.end(run, 1, Outcome::Lost).await;
    world.pass(&active, &[1]).await;
    assert_eq!(world.held().await, all);
    assert_eq!(world.state(run, 2).await, JobState::Queued);
    let repo = &world.test.context.storage.repo;
    let batch = world.test.context.storage.audited.batch();
    let (batch, runs) = jobs::free_holds_of(repo, batch, agent(1).node).await.unwrap();
    world.test.context.storage.audited.commit(batch, vec![]).await.unwrap();
    assert_eq!((world.held().await, runs.len()), (vec![], 1));
    // A late answer takes nothing away that another has by now.
    let active = world.load(run).await;
    world.pass(&active, &[]).await;
    let lost =
        world.context().storage.repo.get::<JobRecord>(&jobs::key(run, agent(1).node).unwrap()).await.unwrap();
    let batch = world.test.context.storage.audited.batch();
    let batch = jobs::settle(&world.test.context.storage.repo, batch, &lost.unwrap().record).await.unwrap();
    world.test.context.storage.audited.commit(batch, vec![]).await.unwrap();
    assert_eq!(world.held().await.len(), 3);
    assert!(world.held().await.iter().all(|(_, name)| name == "fw-2"));
}

#[tokio::test]
async fn what_becomes_free_goes_to_the_run_that_has_waited_longest() {
    let mut world = World::configured("[limits]\nmax_changing_per_fleet = 1").await;
    let context = Arc::clone(&world.test.context);
    for n in 1..=4 {
        let agent = enrolled(&context, n).await;
        context.memory.node_cache.update(agent.node, |known| known.presence = Link::Online);
    }
    // Ids follow the operators' clocks, and say nothing of who was first.
    let old = world.run_of(9, &[1, 2], 9, None).await;
    world.advance(Duration::from_secs(1));
    let young = world.run_of(1, &[3, 4], 9, None).await;
    let mut runs = Runs::default();
    context.memory.notifier.run_changed(young);
    round(&context, &mut runs).await;
    context.memory.notifier.run_changed(old);
    round(&context, &mut runs).await;
    assert_eq!(world.held().await.len(), 1);
    assert_eq!(
        (world.state(young, 3).await, world.state(old, 1).await),
        (JobState::Offered, JobState::Queued)
    );
    for (n, run, next) in [(3, young, (old, 1)), (1, old, (old, 2)), (2, old, (young, 4))] {
        world.end(run, n, Outcome::Succeeded).await;
        context.memory.notifier.job_changed(run, agent(n).node);
        round(&context, &mut runs).await;
        assert_eq!(world.state(next.0, next.1).await, JobState::Offered, "after fw-{n}");
        assert_eq!(world.held().await.len(), 1);
    }
}

#[tokio::test]
async fn who_waits_at_a_full_site_is_told_of_when_it_fills_and_empties() {
    let mut world = World::configured("[limits]\nmax_changing_per_site = 1").await;
    let run = world.run_of(1, &[1, 2], 9, None).await;
    let other = world.run_of(2, &[3], 9, None).await;
    let active = world.load(other).await;
    world.pass(&active, &[]).await;
    let waits = world.load(run).await;
    let (_, seen) = news(&world, &waits, 0);
    // Another node in the same place: that site is full still, and nobody here is told.
    let mut tell = |n: Option<u128>| {
        let holder = n.map(|n| fleet_rollout::Holder {
            run: other,
            node: agent(n).node,
            name: format!("fw-{n}"),
            attempt: Attempt(1),
        });
        world.holds.set(&site(0), holder);
        pass::tell_hold(&world.test.context.storage, &waits, &world.holds, &site(0)).unwrap();
    };
    tell(None);
    tell(Some(7));
    assert_eq!(news(&world, &waits, seen), (vec![], seen));
    let mut tell = |holder| {
        world.holds.set(&site(0), holder);
        pass::tell_hold(&world.test.context.storage, &waits, &world.holds, &site(0)).unwrap();
    };
    tell(None);
    assert_eq!(news(&world, &waits, seen).0.len(), 2);
}
