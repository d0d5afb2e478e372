//! T31-T33: identities that open nothing, node ids that are not one's own, and reports beside their chain
//! (§3.6). The server goes on.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use fleet_certs::ca::Authority;
use fleet_certs::tls::TlsIdentity;
use fleet_certs::{ClientConfig, Role};
use fleet_proto::pb;
use fleet_proto::pb::agent_message::Body;
use fleet_proto::pb::agent_service_client::AgentServiceClient;
use fleet_tests::audit_check::wait_for_refusal;
use fleet_tests::fake_agent::Work;
use fleet_tests::fake_agent::link::Raw;
use fleet_tests::test_fleet::TestFleet;
use fleet_tests::{channel, clock, raw_call};
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, RunId};
use fleet_types::job::Outcome;
use tonic::Code;

use crate::forge;

const OPERATOR_METHODS: [&str; 6] =
    ["WhoAmI", "ListNodes", "CreateJoinToken", "StartRun", "ReadAudit", "PublishTrustBundle"];
const AGENT_METHODS: [&str; 3] = ["Session", "FetchDocument", "Output"];

/// Tries a call with these settings; the code, or none when no connection came about.
async fn call(fleet: &TestFleet, tls: &Arc<ClientConfig>, path: &str) -> Option<Code> {
    let channel = channel::connect(fleet.controller.agent_address(), tls).await.ok()?;
    let status = raw_call::unary(&channel, path, Vec::new()).await.err()?;
    Some(status.code())
}

fn tls(fleet: &TestFleet, identity: TlsIdentity) -> Result<Arc<ClientConfig>> {
    channel::mutual_tls(fleet.operator.fleet, identity, fleet.operator.controllers.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_one_role_opens_no_method_of_another() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let agent = fleet.agents[0].credentials().tls()?;
    for method in OPERATOR_METHODS {
        let path = format!("/fleet.v1.OperatorService/{method}");
        assert_eq!(call(&fleet, &agent, &path).await, Some(Code::PermissionDenied), "{path}");
    }
    for method in AGENT_METHODS {
        let path = format!("/fleet.v1.AgentService/{method}");
        assert_eq!(call(&fleet, fleet.operator.tls(), &path).await, Some(Code::PermissionDenied), "{path}");
    }
    for path in ["/fleet.v1.EnrolService/Enrol", "/fleet.v1.OperatorService/Nothing", "/", "/x/y"] {
        assert_eq!(call(&fleet, &agent, path).await, Some(Code::PermissionDenied), "{path}");
    }
    let record = wait_for_refusal(&fleet.operator, "OperatorService/StartRun").await?;
    assert_eq!(record.actor.role, "agent");
    assert_eq!(record.actor.id, fleet.agents[0].credentials().node.to_string());
    let record = wait_for_refusal(&fleet.operator, "AgentService/Session").await?;
    assert_eq!((record.actor.role.as_str(), record.actor.name.as_str()), ("operator", "ada"));
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_for_another_node() -> Result<()> {
    let fleet = TestFleet::start(2).await?;
    let [a, b] = &fleet.agents[..] else { anyhow::bail!("two agents") };
    fleet.script(|script| script.work = Work::Hold);
    let run = fleet.start_run(fleet.look, 2).await?;
    a.started(run).await?;
    b.started(run).await?;
    let key = (run, Attempt(1));
    let request = a.journal(|journal| journal.job(run).map(|job| job.request)).context("no job")?;
    let report = a.journal(|journal| journal.report(key, request, Outcome::Succeeded, ""));
    let other_node = b.journal(|journal| journal.report(key, request, Outcome::Succeeded, ""));
    let mut other_run = report.clone();
    other_run.job.run = RunId::from_number(5);
    let mut other_attempt = report.clone();
    other_attempt.attempt = Attempt(2);
    let mut flipped = a.journal(|journal| journal.seal(&report))?;
    flipped.signature[0] ^= 1;
    let by_b = b.journal(|journal| journal.seal(&other_node))?;
    let forged = [
        ("b's id under a's signature", a.journal(|journal| journal.seal(&other_node))?),
        ("b's own report sent by a", by_b),
        ("another run inside", a.journal(|journal| journal.seal(&other_run))?),
        ("another attempt inside", a.journal(|journal| journal.seal(&other_attempt))?),
        ("a flipped byte in the signature", flipped),
    ];
    for (what, sealed) in forged {
        a.online().await?;
        let ends = a.links().ends.len();
        a.send(Raw::Body(Body::Report(sealed.message(key)))).await?;
        let (code, why) = a.link_end(ends).await?;
        assert_eq!(code, Some(Code::PermissionDenied), "{what}: {why}");
    }
    wait_for_refusal(&fleet.operator, "the report is refused").await?;
    for job in fleet.operator.jobs(run).await? {
        ensure!(job.state.outcome().is_none(), "a forged report ended the job of {}", job.node_name);
    }

    // Documents and output that belong to none of the node's own jobs.
    let channel = channel::connect(fleet.controller.agent_address(), &a.credentials().tls()?).await?;
    let mut service = AgentServiceClient::new(channel);
    let foreign = pb::FetchDocumentRequest { digest: fleet.change.as_bytes().to_vec() };
    assert_eq!(service.fetch_document(foreign).await.unwrap_err().code(), Code::PermissionDenied);
    let own = pb::FetchDocumentRequest { digest: fleet.look.as_bytes().to_vec() };
    assert!(service.fetch_document(own).await.is_ok(), "the procedure of its own job");
    let chunk = pb::OutputChunk {
        run: RunId::from_number(5).to_string(),
        attempt: 1,
        step: "metrics".to_owned(),
        offset: 0,
        data: vec![1],
        last: true,
    };
    let mut output = service.output(tokio_stream::iter([chunk])).await?.into_inner();
    assert_eq!(output.message().await.unwrap_err().code(), Code::NotFound);

    a.online().await?;
    a.release(run);
    b.release(run);
    fleet.operator.wait_run(run).await?;
    assert_eq!(fleet.finish().await?.reports, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_certificates_get_no_connection_and_the_server_goes_on() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let agents = forge::authority(&fleet, Role::Agent)?;
    let controllers = forge::authority(&fleet, Role::Controller)?;
    let stranger = Authority::create(
        Role::Agent,
        fleet.operator.fleet,
        clock::now(),
        std::time::Duration::from_hours(24),
    )?;
    let node = fleet.agents[0].credentials().node;
    let uri = |role: &str, fleet: &str| format!("fleet://{fleet}/{role}/{node}");
    let own = fleet.operator.fleet.to_string();
    let good = uri("agent", &own);
    let mut honest = forge::params(&[&good])?;
    honest.not_before = forge::second(0)?;
    let mut expired = honest.clone();
    (expired.not_before, expired.not_after) = (forge::day(-3)?, forge::day(-1)?);
    let mut early = honest.clone();
    (early.not_before, early.not_after) = (forge::day(1)?, forge::day(2)?);
    let mut server = honest.clone();
    server.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let mut no_usage = honest.clone();
    no_usage.extended_key_usages.clear();
    let mut with_dns = honest.clone();
    with_dns.subject_alt_names.push(forge::dns("localhost")?);
    let odd = [
        ("expired", forge::sign(&agents, &expired)?),
        ("not yet valid", forge::sign(&agents, &early)?),
        ("of a stranger's authority", forge::sign(&stranger, &honest)?),
        ("of the controllers' authority", forge::sign(&controllers, &honest)?),
        ("without a name", forge::sign(&agents, &forge::params(&[])?)?),
        (
            "with two names",
            forge::sign(
                &agents,
                &forge::params(&[&good, &uri("agent", "0192f0c1-0000-7000-8000-000000000001")])?,
            )?,
        ),
        ("with a host name too", forge::sign(&agents, &with_dns)?),
        (
            "of an operator by the agents' authority",
            forge::sign(&agents, &forge::params(&[&uri("operator", &own)])?)?,
        ),
        ("of a controller", forge::sign(&agents, &forge::params(&[&uri("controller", &own)])?)?),
        (
            "of another fleet",
            forge::sign(&agents, &forge::params(&[&uri("agent", "0192f0c1-0000-7000-8000-000000000001")])?)?,
        ),
        ("of no scheme of ours", forge::sign(&agents, &forge::params(&["https://localhost/"])?)?),
        ("for servers", forge::sign(&agents, &server)?),
        ("for nothing", forge::sign(&agents, &no_usage)?),
    ];
    for (what, identity) in odd {
        let tls = tls(&fleet, identity)?;
        let code = call(&fleet, &tls, "/fleet.v1.AgentService/FetchDocument").await;
        // In TLS 1.3 a client learns of its refusal with its first read: no connection, or a broken one.
        assert!(
            matches!(code, None | Some(Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled)),
            "{what}: {code:?}"
        );
    }
    // An honest certificate of a node that nobody ordered: it connects, and may do nothing.
    let unknown = format!("fleet://{own}/agent/0192f0c1-0000-7000-8000-000000000009");
    let unknown = tls(&fleet, forge::sign(&agents, &forge::params(&[&unknown])?)?)?;
    let path = "/fleet.v1.AgentService/FetchDocument";
    assert_eq!(call(&fleet, &unknown, path).await, Some(Code::PermissionDenied));
    // One that the controller never gave to this node, as old as one that was replaced.
    let never_given = forge::sign(&agents, &forge::params(&[&good])?)?;
    assert_eq!(call(&fleet, &tls(&fleet, never_given)?, path).await, Some(Code::PermissionDenied));
    wait_for_refusal(&fleet.operator, "replaced by a newer one").await?;
    // The forge itself is sound: the same certificate without a fault, newer than anything given, is served.
    let answer = call(&fleet, &tls(&fleet, forge::sign(&agents, &honest)?)?, path).await;
    assert_eq!(answer, Some(Code::InvalidArgument), "an empty digest is looked at");
    let reasons = [
        "certificate ended",
        "certificate starts",
        "no authority of this fleet",
        "not of the form",
        "another purpose",
    ];
    for reason in reasons {
        wait_for_refusal(&fleet.operator, reason).await?;
    }
    let run = fleet.start_run(fleet.look, 1).await?;
    fleet.operator.wait_run(run).await?;
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_enrolment_port_serves_nothing_but_enrolment() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let address = fleet.controller.enrol_address();
    // Certificates are not asked for here: good and bad ones are alike, and open nothing.
    let stranger = Authority::create(
        Role::Agent,
        fleet.operator.fleet,
        clock::now(),
        std::time::Duration::from_hours(24),
    )?;
    let good = format!("fleet://{}/operator/{}", fleet.operator.fleet, fleet.operator.operator);
    let forged = tls(&fleet, forge::sign(&stranger, &forge::params(&[&good])?)?)?;
    for tls in [fleet.operator.tls(), &fleet.agents[0].credentials().tls()?, &forged] {
        let channel = channel::connect(address, tls).await?;
        for path in [
            "/fleet.v1.OperatorService/WhoAmI",
            "/fleet.v1.AgentService/Session",
            "/fleet.v1.AgentService/FetchDocument",
        ] {
            let status = raw_call::unary(&channel, path, Vec::new()).await.unwrap_err();
            assert!(
                matches!(status.code(), Code::PermissionDenied | Code::Unimplemented),
                "{path}: {status}"
            );
        }
    }
    let health = raw_call::unary(
        &channel::connect(address, fleet.operator.tls()).await?,
        "/grpc.health.v1.Health/Check",
        Vec::new(),
    )
    .await?;
    assert_eq!(health, [8, 1], "serving");
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_a_node_are_taken_in_order_and_never_beside_their_chain() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let agent = &fleet.agents[0];
    // Told to stop after its job was given up, it would report at once, and the lie would be a second late report.
    fleet.script(|script| {
        script.work = Work::Hold;
        script.obeys_cancel = false;
    });
    let run = fleet.start_run(fleet.look, 1).await?;
    agent.started(run).await?;
    let key = (run, Attempt(1));
    let request = agent.journal(|journal| journal.job(run).map(|job| job.request)).context("no job")?;
    let report = agent.journal(|journal| journal.report(key, request, Outcome::Succeeded, ""));
    assert_eq!((report.sequence, report.previous), (1, None));

    // The two before it never came: not taken, not acknowledged, and the link stays; once they are known to be lost,
    // four heartbeats later, the node is held.
    let mut early = report.clone();
    (early.sequence, early.previous) = (3, Some(Digest::of(b"the second")));
    let early = agent.journal(|journal| journal.seal(&early))?;
    let ends = agent.links().ends.len();
    for _ in 0..3 {
        agent.send(Raw::Body(Body::Report(early.message(key)))).await?;
    }
    agent.quiet(std::time::Duration::from_millis(2_500)).await;
    assert_eq!(agent.links().ends.len(), ends, "a report that is early ends nothing");
    agent.send(Raw::Body(Body::Report(early.message(key)))).await?;
    let (code, why) = agent.link_end(ends).await?;
    assert_eq!(code, Some(Code::FailedPrecondition), "{why}");
    ensure!(why.contains("report 2 did not"), "{why}");
    let record = wait_for_refusal(&fleet.operator, "report 2 did not").await?;
    assert_eq!((record.action.as_str(), record.actor.role.as_str()), ("node.hold", "agent"));
    fleet.operator.wait_run(run).await?;
    fleet.operator.release(agent.name()).await?;

    // The first one names a report before it: a lie.
    agent.online().await?;
    let ends = agent.links().ends.len();
    let mut liar = report.clone();
    liar.previous = Some(Digest::of(b"nothing"));
    let liar = agent.journal(|journal| journal.seal(&liar))?;
    agent.send(Raw::Body(Body::Report(liar.message(key)))).await?;
    let (code, why) = agent.link_end(ends).await?;
    assert_eq!(code, Some(Code::FailedPrecondition), "{why}");
    fleet.operator.release(agent.name()).await?;

    agent.online().await?;
    agent.release(run);
    let late = agent.acknowledged(run).await?;
    assert_eq!(fleet.operator.job(run, agent.name()).await?.item.late_report, Some(late.digest));
    assert_eq!(fleet.finish().await?.reports, 1);
    Ok(())
}
