//! Crowds on a port: connections that say nothing, that stall, or that one certificate opens by the dozen keep
//! nobody out. Real sockets from several addresses of the loopback network.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet_certs::token::{Token, TokenKind};
use fleet_proto::pb;
use fleet_proto::pb::operator_service_client::OperatorServiceClient;
use fleet_tests::audit_check::wait_for_refusal;
use fleet_tests::fake_agent::enrol::{self, NewKeys};
use fleet_tests::test_fleet::{TestFleet, labels};
use fleet_tests::wait::{pass, wait_until};
use fleet_tests::{channel, raw_call};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// Two seconds are promised; a debug build on two busy cores gets more. A queue behind the crowd takes ten and up.
const IN_TIME: Duration = Duration::from_secs(5);
/// Addresses that the crowd comes from.
const ADDRESSES: u8 = 20;

async fn dial(n: usize, address: SocketAddr) -> Result<TcpStream> {
    let source = IpAddr::from([127, 0, 1, u8::try_from(n % usize::from(ADDRESSES))? + 1]);
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source, 0))?;
    Ok(socket.connect(address).await?)
}

/// Connections that say nothing, and a hundred more a second, of which every other one begins a `ClientHello`.
async fn crowd(address: SocketAddr, silent: usize) -> Result<AbortOnDropHandle<()>> {
    let mut held = Vec::with_capacity(silent);
    for n in 0..silent {
        held.push(dial(n, address).await.context("a silent connection")?);
    }
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        for n in 0.. {
            pass(Duration::from_millis(10)).await;
            let Ok(mut socket) = dial(n, address).await else { continue };
            if n % 2 == 0 {
                // The head of a record of 512 bytes that never come.
                let _ = socket.write_all(&[0x16, 3, 1, 2, 0, 1]).await;
            }
            held.push(socket);
        }
    })))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_silent_connections_and_a_hundred_a_second_keep_nobody_out() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let agent = &fleet.agents[0];
    let address = fleet.controller.agent_address();
    let crowd = crowd(address, 2_000).await?;
    for _ in 0..5 {
        timeout(IN_TIME, async {
            let own = channel::connect(address, fleet.operator.tls()).await?;
            OperatorServiceClient::new(own).get_status(pb::StatusRequest {}).await?;
            anyhow::Ok(())
        })
        .await
        .context("the status behind a crowd")??;
    }
    let welcomed = agent.links().welcomed;
    agent.break_link().await?;
    wait_until("the agent's return", IN_TIME, || agent.links().welcomed > welcomed).await?;
    wait_for_refusal(&fleet.operator, "connections that end before their handshake").await?;
    drop(crowd);
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_on_the_enrolment_port_delays_no_enrolment() -> Result<()> {
    let fleet = TestFleet::start(0).await?;
    let view = fleet.operator.join_token("fw-x", &labels(0)).await?;
    let token = Token::parse(TokenKind::Node, &view.token)?;
    let address = fleet.controller.enrol_address();
    let crowd = crowd(address, 1_500).await?;
    let keys = NewKeys::generate()?;
    timeout(IN_TIME, enrol::redeem(address, None, &token, &keys)).await.context("an enrolment")???;
    drop(crowd);
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_certificate_keeps_a_few_connections_and_loses_the_eldest() -> Result<()> {
    let fleet = TestFleet::start(2).await?;
    let address = fleet.controller.agent_address();
    let tls = fleet.agents[0].credentials().tls()?;
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(raw_call::silent(address, &tls).await?);
    }
    for eldest in &mut held[..7] {
        let mut said = Vec::new();
        // The close may come as a reset: both are an end.
        let _ = timeout(IN_TIME, eldest.read_to_end(&mut said)).await.context("an end of the eldest")?;
    }
    wait_for_refusal(&fleet.operator, "too many connections at once").await?;
    assert_eq!(fleet.agents[1].links().welcomed, 1, "nobody else's connection was closed");
    drop(held);
    fleet.agents[0].online().await?;
    fleet.finish().await?;
    Ok(())
}
