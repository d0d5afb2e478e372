//! T29, T30, T38: bytes and texts that no honest client sends. Refused at limits, that connection only.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet_proto::pb::agent_message::Body;
use fleet_proto::{MAX_CONTROL_BYTES, MAX_MESSAGE_BYTES, pb};
use fleet_tests::fake_agent::enrol::{self, NewKeys};
use fleet_tests::fake_agent::link::Raw;
use fleet_tests::operator_client::key;
use fleet_tests::test_fleet::TestFleet;
use fleet_tests::{channel, raw_call};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tonic::Code;

/// Growth of the controller that is still flat: allocators keep what they had once, a message of 4 MiB is held
/// a few times over while it is read, and both cores may do so at once.
const FLAT_BYTES: u64 = 64 * 1024 * 1024;

fn join(name: &str, labels: impl IntoIterator<Item = (String, String)>) -> pb::CreateJoinTokenRequest {
    pb::CreateJoinTokenRequest {
        node_name: name.to_owned(),
        labels: labels.into_iter().collect::<HashMap<_, _>>(),
        lifetime_seconds: 60,
        idempotency_key: key(),
        replace_labels: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_names_are_taken_by_their_pattern_only() -> Result<()> {
    let fleet = TestFleet::start(0).await?;
    let mut service = fleet.operator.raw();
    let hostile = [
        "$(x)",
        ";x",
        "{{7*7}}",
        "-x",
        "a b",
        "a\nb",
        "a\0b",
        "\u{202e}x",
        "\u{1b}[2J",
        "../up",
        "ä",
        "`id`",
        "a'b",
        "<b>",
        "%00",
        "\u{200b}",
    ];
    for text in hostile {
        let as_value = service.create_join_token(join("fw-a", [("site".to_owned(), text.to_owned())])).await;
        assert_eq!(as_value.unwrap_err().code(), Code::InvalidArgument, "value {text:?}");
        let as_key = service.create_join_token(join("fw-a", [(text.to_owned(), "x".to_owned())])).await;
        // The key of a path may hold dots and slashes; it starts with a letter or digit.
        assert_eq!(as_key.unwrap_err().code(), Code::InvalidArgument, "key {text:?}");
        let as_name = service.create_join_token(join(text, [])).await.unwrap_err();
        assert_eq!(as_name.code(), Code::InvalidArgument, "name {text:?}");
        assert!(as_name.message().chars().all(|c| !c.is_control()), "{as_name}");
        let selector = pb::ResolveTargetsRequest { selector: format!("site={text}"), names: vec![] };
        assert_eq!(
            service.resolve_targets(selector).await.unwrap_err().code(),
            Code::InvalidArgument,
            "{text:?}"
        );
    }
    let many = |count: usize| (0..count).map(|n| (format!("k{n}"), "v".to_owned()));
    for count in [65, 10_000] {
        let status = service.create_join_token(join("fw-a", many(count))).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{count} labels: {status}");
        assert!(status.message().contains("at most 64"), "{status}");
    }
    let long = service.create_join_token(join("fw-a", [("site".to_owned(), "x".repeat(1 << 20))])).await;
    assert_eq!(long.unwrap_err().code(), Code::InvalidArgument, "a label of 1 MiB");
    assert!(fleet.operator.nodes().await?.is_empty(), "nothing of it was kept");
    service.create_join_token(join("fw-a", many(64))).await.context("64 labels are allowed")?;
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages_end_their_own_call_only() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let agent = &fleet.agents[0];
    let operators = channel::connect(fleet.controller.agent_address(), fleet.operator.tls()).await?;
    let agents = channel::connect(fleet.controller.agent_address(), &agent.credentials().tls()?).await?;
    // A tag without an end, a length past the end, wire type 7, groups without an end, invalid UTF-8.
    let frames: [&[u8]; 6] =
        [&[0x80], &[0x0a, 0xff, 1], &[0x0f], &[0x0b; 300], &[0x0a, 2, 0xff, 0xfe], &[0xff; 4096]];
    for frame in frames {
        for method in
            ["CreateJoinToken", "StartRun", "ApplyDocuments", "GetRun", "ListNodes", "PublishTrustBundle"]
        {
            let path = format!("/fleet.v1.OperatorService/{method}");
            let status = raw_call::unary(&operators, &path, frame.to_vec()).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{method} {frame:?}: {status}");
        }
        for method in ["Session", "Output"] {
            let path = format!("/fleet.v1.AgentService/{method}");
            raw_call::streaming(&agents, &path, vec![frame.to_vec()]).await.expect_err(method);
        }
    }
    // JSON inside: nested, with a key twice, cut.
    let mut service = fleet.operator.raw();
    let deep = [b"[".repeat(200), b"]".repeat(200)].concat();
    for request in
        [deep, b"{\"payload\":\"\",\"payload\":\"\"}".to_vec(), b"{\"payload".to_vec(), vec![0xff; 100]]
    {
        let start = pb::StartRunRequest {
            request: request.clone(),
            nodes: vec![],
            idempotency_key: key(),
            procedure: vec![],
        };
        assert_eq!(service.start_run(start).await.unwrap_err().code(), Code::InvalidArgument);
        let publish = pb::PublishTrustBundleRequest {
            trust_bundle: request,
            reason: String::new(),
            idempotency_key: key(),
        };
        assert_eq!(service.publish_trust_bundle(publish).await.unwrap_err().code(), Code::InvalidArgument);
    }
    // No HTTP/2, no TLS, and connections that say nothing hold nobody up.
    for tls in [fleet.operator.tls(), &agent.credentials().tls()?] {
        raw_call::garbage(fleet.controller.agent_address(), tls, &[0u8; 10_000]).await?;
        raw_call::garbage(fleet.controller.agent_address(), tls, b"GET / HTTP/1.1\r\n\r\n").await?;
    }
    let mut silent = Vec::new();
    for address in [fleet.controller.agent_address(), fleet.controller.enrol_address()] {
        for _ in 0..50 {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"\x16\x03\x01").await?;
            silent.push(stream);
        }
    }
    let run = fleet.start_run(fleet.look, 1).await?;
    fleet.operator.wait_run(run).await?;
    drop(silent);
    assert_eq!(agent.links().welcomed, 1, "the honest link was not touched");
    fleet.finish().await?;
    Ok(())
}

/// Proportional set size of a process in bytes, from the kernel's own sum.
fn memory(pid: u32) -> Result<u64> {
    fleet_tests::sim::memory::pss_bytes(pid)
}

#[tokio::test(flavor = "multi_thread")]
async fn oversize_messages_are_refused_at_their_limits_and_memory_stays_flat() -> Result<()> {
    let mut fleet = TestFleet::start(1).await?;
    let pid = fleet.controller.pid()?;
    let before = memory(pid)?;
    let operators = channel::connect(fleet.controller.agent_address(), fleet.operator.tls()).await?;
    for size in [MAX_MESSAGE_BYTES + 1, 64 * 1024 * 1024] {
        let status = raw_call::unary(&operators, "/fleet.v1.OperatorService/StartRun", vec![0; size]).await;
        let code = status.unwrap_err().code();
        // The limit is found in the frame's head: the call ends before the rest was sent.
        assert!(
            matches!(code, Code::OutOfRange | Code::ResourceExhausted | Code::Cancelled),
            "{size}: {code:?}"
        );
    }
    let token = fleet.operator.join_token("fw-x", &fleet_tests::test_fleet::labels(3)).await?.token;
    let token = fleet_certs::token::Token::parse(fleet_certs::token::TokenKind::Node, &token)?;
    let enrolment =
        channel::connect(fleet.controller.enrol_address(), &channel::enrolment_tls(&token)?).await?;
    let status =
        raw_call::unary(&enrolment, "/fleet.v1.EnrolService/Enrol", vec![0; MAX_CONTROL_BYTES + 1]).await;
    assert!(matches!(status.unwrap_err().code(), Code::OutOfRange | Code::ResourceExhausted));
    // A session's message over the general limit, and a report over its own.
    let agent = &fleet.agents[0];
    for bytes in [5 * 1024 * 1024, 600 * 1024] {
        agent.online().await?;
        let ends = agent.links().ends.len();
        let report = pb::SealedReport {
            run: fleet_types::id::RunId::from_number(1).to_string(),
            attempt: 1,
            payload: vec![b'x'; bytes],
            signature: vec![0; 64],
        };
        agent.send(Raw::Body(Body::Report(report))).await?;
        let (_, why) = agent.link_end(ends).await?;
        assert!(!why.is_empty());
    }
    agent.online().await?;
    let run = fleet.start_run(fleet.look, 1).await?;
    fleet.operator.wait_run(run).await?;
    fleet.agents[0].quiet(Duration::from_millis(200)).await;
    let grown = memory(pid)?.saturating_sub(before);
    assert!(grown < FLAT_BYTES, "the controller grew by {grown} bytes");
    assert!(fleet.controller.is_running());
    // The join token was not spent by the oversize request.
    enrol::redeem(fleet.controller.enrol_address(), None, &token, &NewKeys::generate()?).await??;
    fleet.finish().await?;
    Ok(())
}
