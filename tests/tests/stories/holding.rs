//! How long streams, calls and idle connections may be held: not past the caller's certificate, not past a stop,
//! and on the port of strangers not for nothing.

use anyhow::{Context as _, Result};
use fleet_certs::Role;
use fleet_certs::token::{Token, TokenKind};
use fleet_proto::pb;
use fleet_proto::pb::agent_service_client::AgentServiceClient;
use fleet_proto::pb::operator_service_client::OperatorServiceClient;
use fleet_tests::audit_check::wait_for_refusal;
use fleet_tests::fake_agent::Work;
use fleet_tests::fake_agent::enrol::{self, NewKeys};
use fleet_tests::test_fleet::{TestFleet, labels};
use fleet_tests::wait::PATIENCE;
use fleet_tests::{channel, raw_call};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use crate::forge;

#[tokio::test(flavor = "multi_thread")]
async fn no_stream_and_no_call_outlives_the_certificate_of_its_caller() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let agent = &fleet.agents[0];
    agent.script(|script| script.work = Work::Hold);
    let run = fleet.start_run(fleet.look, 1).await?;
    agent.started(run).await?;

    // The operator's own name, in a certificate for a few seconds.
    let name = format!("fleet://{}/operator/{}", fleet.operator.fleet, fleet.operator.operator);
    let mut params = forge::params(&[&name])?;
    // Newer than the one that the operator has, or it would be one that was replaced.
    params.not_before = forge::second(0)?;
    params.not_after = forge::second(4)?;
    let identity = forge::sign(&forge::authority(&fleet, Role::Operator)?, &params)?;
    let tls = channel::mutual_tls(fleet.operator.fleet, identity, fleet.operator.controllers.clone())?;
    let mut service =
        OperatorServiceClient::new(channel::connect(fleet.controller.agent_address(), &tls).await?);
    let request = pb::RunRequest { run: run.to_string() };
    let mut watch = service.watch_run(request.clone()).await?.into_inner();
    watch.message().await?.context("the run as it is")?;
    let end = async {
        loop {
            match watch.message().await {
                Ok(Some(_)) => {}
                Ok(None) => anyhow::bail!("the stream ended without a reason"),
                Err(status) => return Ok(status),
            }
        }
    };
    let status = timeout(PATIENCE, end).await.context("the stream to end with the certificate")??;
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    // The connection is still there, and opens nothing.
    assert_eq!(service.get_run(request.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(service.watch_run(request).await.unwrap_err().code(), Code::PermissionDenied);
    wait_for_refusal(&fleet.operator, "the certificate has ended").await?;

    agent.release(run);
    fleet.operator.wait_run(run).await?;
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_nobody_who_says_and_takes_nothing() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let agent = &fleet.agents[0];
    // One connection with a call whose message never comes: nothing in the controller could answer it.
    let silent = channel::connect(fleet.controller.agent_address(), fleet.operator.tls()).await?;
    let calling = silent.clone();
    let _call = AbortOnDropHandle::new(tokio::spawn(async move {
        raw_call::endless(&calling, "/fleet.v1.OperatorService/GetRun").await
    }));
    // Streams that nobody reads, and one of output on which nothing is sent.
    let mut service = OperatorServiceClient::new(silent);
    let run = fleet.start_run(fleet.look, 1).await?;
    fleet.operator.wait_run(run).await?;
    let _watch = service.watch_run(pb::RunRequest { run: run.to_string() }).await?;
    let _audit = service.read_audit(pb::ReadAuditRequest { from: 0, to: 5 }).await?;
    let tls = agent.credentials().tls()?;
    let mut output = AgentServiceClient::new(channel::connect(fleet.controller.agent_address(), &tls).await?);
    let _output = output.output(tokio_stream::pending()).await?;
    // Stops the controller, with success and within its limit.
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_strangers_who_say_nothing_are_closed_and_those_of_the_fleet_are_not() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let view = fleet.operator.join_token("fw-x", &labels(0)).await?;
    let token = Token::parse(TokenKind::Node, &view.token)?;
    let own = channel::connect(fleet.controller.agent_address(), fleet.operator.tls()).await?;
    let mut quiet = raw_call::silent(fleet.controller.agent_address(), fleet.operator.tls()).await?;
    // It has begun HTTP/2, with its preface and empty settings (RFC 9113 §3.4), and says no more.
    quiet.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let tls = channel::enrolment_tls(&token)?;
    let mut strangers = Vec::new();
    for _ in 0..20 {
        strangers.push(raw_call::silent(fleet.controller.enrol_address(), &tls).await?);
    }
    for stranger in &mut strangers {
        let mut said = Vec::new();
        // The close may come as a reset: both are an end.
        let _ = timeout(PATIENCE, stranger.read_to_end(&mut said)).await.context("an end by itself")?;
    }
    // Whoever comes to enrol is served, and the other port has closed nothing meanwhile.
    enrol::redeem(fleet.controller.enrol_address(), None, &token, &NewKeys::generate()?).await??;
    let mut byte = [0];
    let still = timeout(std::time::Duration::from_millis(1), quiet.read(&mut byte)).await;
    assert!(!matches!(still, Ok(Ok(0) | Err(_))), "an idle connection of the fleet was closed: {still:?}");
    OperatorServiceClient::new(own).who_am_i(pb::WhoAmIRequest {}).await?;
    assert_eq!(fleet.agents[0].links().welcomed, 1, "the agent's link was not touched");
    fleet.finish().await?;
    Ok(())
}
