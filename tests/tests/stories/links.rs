//! Fencing, numbering, reconcile and silence: what a link may and may not do.

use std::time::Duration;

use anyhow::Result;
use fleet_proto::pb;
use fleet_proto::pb::agent_message::Body;
use fleet_tests::audit_check::wait_for_refusal;
use fleet_tests::fake_agent::link::Raw;
use fleet_tests::fake_agent::{Script, Work};
use fleet_tests::test_fleet::TestFleet;
use fleet_tests::wait::{PATIENCE, wait_for};
use fleet_types::id::RunId;
use fleet_types::run::RunState;
use fleet_types::view::Presence;
use tonic::Code;

fn beat() -> Body {
    Body::Heartbeat(pb::Heartbeat { time_ms: 0, jobs_open: 0 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_out_of_line_ends_the_link_is_audited_and_the_node_comes_back() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let agent = &fleet.agents[0];
    let update = |run: &str, state: &[u8]| {
        Body::Job(pb::JobUpdate {
            run: run.to_owned(),
            attempt: 1,
            state: state.to_vec(),
            ..Default::default()
        })
    };
    let page = |count: usize| {
        let one = pb::JobUpdate { run: RunId::from_number(1).to_string(), ..Default::default() };
        Body::Reconcile(pb::ReconcilePage { jobs: vec![one; count], last: true })
    };
    let faults = [
        (Raw::WithEpoch(-1, beat()), "another link"),
        (Raw::WithEpoch(1, beat()), "another link"),
        (Raw::WithSeq(1, beat()), " after "),
        (Raw::WithSeq(-1, beat()), " after "),
        (Raw::Body(Body::Hello(pb::Hello::default())), "second hello"),
        (Raw::Body(update("no run", b"{}")), "run id"),
        (Raw::Body(update(&RunId::from_number(1).to_string(), b"{\"state\":7}")), "job.state"),
        (Raw::Body(update(&RunId::from_number(1).to_string(), &[b' '; 5000])), "larger than 4 KiB"),
        (Raw::Body(page(257)), "too many pages"),
    ];
    for (raw, reason) in &faults {
        agent.online().await?;
        let ends = agent.links().ends.len();
        agent.send(raw.clone()).await?;
        let (code, why) = agent.link_end(ends).await?;
        assert_eq!(code, Some(Code::InvalidArgument), "{raw:?}: {why}");
        assert!(why.contains(reason), "{raw:?}: {why}");
    }
    for (_, reason) in &faults {
        wait_for_refusal(&fleet.operator, reason).await?;
    }
    agent.online().await?;
    let ends = agent.links().ends.len();
    // A state of a newer node is no fault.
    let newer = update(&RunId::from_number(1).to_string(), b"{\"state\":\"dreaming\"}");
    agent.send(Raw::Body(newer)).await?;
    let run = fleet.start_run(fleet.look, 1).await?;
    agent.acknowledged(run).await?;
    fleet.operator.wait_run(run).await?;
    assert_eq!(agent.links().ends.len(), ends, "the link stays");
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_breaks_after_each_message_in_turn_loses_nothing() -> Result<()> {
    let fleet = TestFleet::start(2).await?;
    for n in 1..=10 {
        // Broken in mid-run, at message n of the controller on some link.
        fleet.script(|script| {
            script.work = Work::For(Duration::from_millis(20));
            script.disconnect_after = Some(n);
            script.pause = Duration::from_millis(20);
        });
        let run = fleet.start_run(fleet.look, 2).await?;
        assert_eq!(fleet.operator.wait_run(run).await?.item.state, RunState::Succeeded);
    }
    for agent in &fleet.agents {
        assert!(agent.links().ends.len() >= 5, "links broke: {:?}", agent.links().ends);
    }
    assert_eq!(fleet.finish().await?.reports, 20);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_link_of_a_node_counts_and_an_old_image_is_held() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let first = &fleet.agents[0];
    let credentials = first.credentials().clone();
    first.script(|script| script.pause = PATIENCE);
    let second = fleet.agent(credentials.clone(), Script::default())?;
    second.online().await?;
    first.link_end(0).await?;
    // The node works, then a copy of its disk from before comes up: its journal ends earlier.
    let run = fleet.start_run(fleet.look, 1).await?;
    second.acknowledged(run).await?;
    // Its next link says how far its journal is; being online is asked for only once the present link is gone.
    let ends = second.links().ends.len();
    second.break_link().await?;
    second.link_end(ends).await?;
    second.online().await?;
    drop(second);
    let image = fleet.agent(credentials, Script::default())?;
    let (code, why) = image.link_end(0).await?;
    assert_eq!(code, Some(Code::FailedPrecondition), "{why}");
    assert!(why.contains("restored from an image"), "{why}");
    wait_for_refusal(&fleet.operator, "restored from an image").await?;
    drop(image);
    fleet.operator.wait_run(run).await?;
    fleet_without_its_agents(fleet).finish().await?;
    Ok(())
}

/// The first handle did nothing: the report of the run is the second one's.
fn fleet_without_its_agents(mut fleet: TestFleet) -> TestFleet {
    fleet.agents.clear();
    fleet
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_seen_a_newer_store_does_not_work_for_an_older_one() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let agent = &fleet.agents[0];
    agent.journal(|journal| journal.seen.0.0 = 9);
    agent.break_link().await?;
    let (code, why) = agent.link_end(1).await?;
    assert_eq!(code, Some(Code::PermissionDenied), "{why}");
    assert!(why.contains("store generation 9"), "{why}");
    wait_for_refusal(&fleet.operator, "store generation 9").await?;
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_stale_then_its_link_is_closed_and_its_job_is_kept() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let agent = &fleet.agents[0];
    agent.script(|script| script.work = Work::Hold);
    let run = fleet.start_run(fleet.look, 1).await?;
    agent.started(run).await?;
    agent.script(|script| script.heartbeats = false);
    let presence = async |wanted: Presence| {
        wait_for(&format!("the node to be {}", wanted.as_str()), PATIENCE, async || {
            Ok((fleet.operator.node(agent.name()).await?.item.presence == wanted).then_some(()))
        })
        .await
    };
    presence(Presence::Stale).await?;
    agent.script(|script| script.pause = Duration::from_secs(2));
    agent.link_end(0).await?;
    presence(Presence::Offline).await?;
    assert!(fleet.operator.jobs(run).await?[0].disconnected);
    agent.script(|script| {
        script.heartbeats = true;
        script.pause = Duration::from_millis(50);
    });
    presence(Presence::Online).await?;
    agent.release(run);
    assert_eq!(fleet.operator.wait_run(run).await?.item.state, RunState::Succeeded);
    fleet.finish().await?;
    Ok(())
}
