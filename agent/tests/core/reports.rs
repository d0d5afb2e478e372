//! T06 and its neighbours: a report is sent until its own acknowledgement comes, and not once more.

use fleet_proto::pb;
use fleet_proto::pb::{agent_message, controller_message, core_message, executor_message};
use fleet_types::digest::Digest;

use crate::session::{linked, run};

fn report(payload: &[u8]) -> pb::SealedReport {
    pb::SealedReport { run: run(1), attempt: 1, payload: payload.to_vec(), signature: vec![9; 64] }
}

fn ack(payload: &[u8]) -> controller_message::Body {
    let digest = Digest::of(payload).as_bytes().to_vec();
    controller_message::Body::ReportAck(pb::ReportAck { run: run(1), attempt: 1, digest })
}

#[tokio::test(flavor = "multi_thread")]
async fn t06_five_lost_acknowledgements_cost_five_resends_and_nothing_else() {
    let (_controller, mut session, mut agent, _fleet) = linked(7).await;
    agent.executor.send(executor_message::Body::Report(report(b"{}"))).await;
    for _ in 0..6 {
        assert_eq!(session.next().await, agent_message::Body::Report(report(b"{}")));
    }
    session.send(ack(b"{}")).await;
    assert!(matches!(agent.executor.next().await, core_message::Body::ReportAck(_)));
    // Time for five more resends passes, told by heartbeats, and no report comes.
    let mut beats = 0;
    while beats < 3 {
        let message = session.from_agent.recv().await.unwrap();
        match message.body.unwrap() {
            agent_message::Body::Heartbeat(_) => {
                beats += 1;
                session.send(controller_message::Body::Heartbeat(pb::HeartbeatReply::default())).await;
            }
            other => panic!("{other:?} after the acknowledgement"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_of_another_report_changes_nothing() {
    let (_controller, mut session, mut agent, _fleet) = linked(7).await;
    agent.executor.send(executor_message::Body::Report(report(b"{}"))).await;
    session.next().await;
    session.send(ack(b"[]")).await;
    assert_eq!(session.next().await, agent_message::Body::Report(report(b"{}")));
    session.send(ack(b"{}")).await;
    let core_message::Body::ReportAck(passed) = agent.executor.next().await else { panic!("no ack") };
    assert_eq!(passed.digest, Digest::of(b"{}").as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_survives_the_link_it_was_sent_over() {
    let (mut controller, mut session, mut agent, _fleet) = linked(7).await;
    agent.executor.send(executor_message::Body::Report(report(b"{}"))).await;
    session.next().await;
    drop(session);
    let mut session = controller.welcomed(8).await;
    agent.executor.link_up(vec![]).await;
    assert!(matches!(session.next().await, agent_message::Body::Reconcile(_)));
    assert_eq!(session.next().await, agent_message::Body::Report(report(b"{}")));
}
