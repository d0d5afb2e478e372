//! Whose output of steps the controller takes, and that streams of one node do not mix.

use anyhow::{Context as _, Result};
use fleet_proto::pb;
use fleet_proto::pb::agent_service_client::AgentServiceClient;
use fleet_tests::audit_check::wait_for_refusal;
use fleet_tests::channel;
use fleet_tests::fake_agent::{FakeAgent, Work};
use fleet_tests::operator_client::order;
use fleet_tests::orders::PROFILE;
use fleet_tests::test_fleet::TestFleet;
use fleet_types::id::RunId;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A procedure with a way back and a last entry.
const WHOLE: &str = r#"schema = "fleet/v1"
kind = "procedure"
name = "whole"
version = 1
description = "Has every kind of entry"
profile = "scripted"
changes = true
timeout = "15m"

[[step]]
id = "prune"
title = "Prune metrics"
kind = "task"
uses = "metrics.prune"
on_failure = "rollback"

[[rollback]]
id = "way-back"
uses = "metrics.collect"
undoes = ["prune"]

[[finally]]
id = "at-last"
uses = "metrics.collect"
"#;

async fn service(fleet: &TestFleet, agent: &FakeAgent) -> Result<AgentServiceClient<Channel>> {
    let tls = agent.credentials().tls()?;
    Ok(AgentServiceClient::new(channel::connect(fleet.controller.agent_address(), &tls).await?))
}

fn chunk(run: RunId, attempt: u32, step: &str, offset: u64, data: &[u8]) -> pb::OutputChunk {
    pb::OutputChunk {
        run: run.to_string(),
        attempt,
        step: step.to_owned(),
        offset,
        data: data.to_vec(),
        last: false,
    }
}

/// Sends chunks over a stream of their own; up to where each was stored, or why not.
async fn send(
    service: &AgentServiceClient<Channel>,
    chunks: Vec<pb::OutputChunk>,
) -> Result<Vec<u64>, Status> {
    let mut answers = service.clone().output(tokio_stream::iter(chunks)).await?.into_inner();
    let mut stored = Vec::new();
    while let Some(answer) = answers.message().await? {
        stored.push(answer.offset);
    }
    Ok(stored)
}

async fn read(fleet: &TestFleet, run: RunId, node: &str, step: &str) -> Result<Vec<u8>> {
    let request = pb::ReadOutputRequest {
        run: run.to_string(),
        node: node.to_owned(),
        step: step.to_owned(),
        offset: 0,
        follow: false,
    };
    let mut parts = fleet.operator.raw().read_output(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.message().await? {
        bytes.extend(part.data);
    }
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_output_of_own_attempts_and_known_steps_is_taken_and_streams_do_not_mix() -> Result<()> {
    // Of two pairs: two changing runs over one pair would wait for each other.
    let fleet = TestFleet::start(3).await?;
    let [a, _, b] = &fleet.agents[..] else { anyhow::bail!("three agents") };
    fleet.script(|script| script.work = Work::Hold);
    let whole = fleet.operator.apply(&[("profile.toml", PROFILE), ("whole.toml", WHOLE)]).await?;
    let one = |node| order(whole[1], fleet.profile, vec![node], 1);
    let own = fleet.operator.sign(&one(a.credentials().node))?;
    let run = fleet.operator.start(&own).await?.item.run;
    a.started(run).await?;
    let other = fleet.operator.sign(&one(b.credentials().node))?;
    let other = fleet.operator.start(&other).await?.item.run;
    b.started(other).await?;

    let service = service(&fleet, a).await?;
    // Steps, the way back and the last entries are the procedure's; one stream carries them all.
    let good = ["prune", "way-back", "at-last"].map(|step| chunk(run, 1, step, 0, step.as_bytes()));
    assert_eq!(send(&service, good.to_vec()).await?, [5, 8, 7]);
    let bad = [
        ("a step of nobody", chunk(run, 1, "made-up", 0, b"x"), Code::PermissionDenied),
        ("a path", chunk(run, 1, "../../x", 0, b"x"), Code::PermissionDenied),
        ("the next attempt", chunk(run, 2, "prune", 0, b"x"), Code::PermissionDenied),
        ("no attempt", chunk(run, 0, "prune", 0, b"x"), Code::PermissionDenied),
        ("another node's run", chunk(other, 1, "prune", 0, b"x"), Code::NotFound),
        ("no run", chunk(RunId::from_number(5), 1, "prune", 0, b"x"), Code::NotFound),
    ];
    for (what, bad, code) in bad {
        // Behind a good one of the same stream: what was looked up before lets nothing else in.
        let status = send(&service, vec![chunk(run, 1, "prune", 0, b"prune"), bad]).await.unwrap_err();
        assert_eq!(status.code(), code, "{what}: {status}");
    }
    let record = wait_for_refusal(&fleet.operator, "no step of this name").await?;
    assert_eq!((record.actor.role.as_str(), record.actor.id), ("agent", a.credentials().node.to_string()));

    // Two streams that send the same output: each byte is kept once and in its place.
    let text: Vec<u8> = (0..200_000_u32).map(|at| (at / 251 + at % 251).to_le_bytes()[0]).collect();
    let chunks: Vec<_> = (0_u64..)
        .zip(text.chunks(2_000))
        .map(|(n, data)| chunk(run, 1, "at-last", n * 2_000, data))
        .collect();
    let mut from_start = chunks.clone();
    from_start[0].data[..7].copy_from_slice(b"at-last");
    let (first, second) =
        tokio::join!(send(&service, from_start.clone()), send(&service, from_start.clone()));
    assert_eq!((first?.last(), second?.last()), (Some(&200_000), Some(&200_000)));
    let stored = read(&fleet, run, a.name(), "at-last").await?;
    let sent: Vec<u8> = from_start.into_iter().flat_map(|chunk| chunk.data).collect();
    assert!(stored == sent, "{} bytes of {} are as they were sent", stored.len(), sent.len());

    let kept = fleet.controller.data_directory().join("output").join(run.to_string());
    let kept = kept.join(a.credentials().node.to_string());
    let attempts = std::fs::read_dir(&kept)?.count();
    let steps = std::fs::read_dir(kept.join("1")).context("the attempt's folder")?.count();
    assert_eq!((attempts, steps), (1, 3), "nothing else was made on the disk");
    a.release(run);
    b.release(other);
    fleet.operator.wait_run(run).await?;
    fleet.operator.wait_run(other).await?;
    fleet.finish().await?;
    Ok(())
}
