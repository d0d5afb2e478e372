//! T06 and T07 with the real agent: binary, journal, supervisor and a program that counts its starts.

use fleet_proto::convert::JobUpdate;
use fleet_proto::pb::{self, agent_message, controller_message};
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::job::{JobState, Outcome};
use fleet_types::report::{Report, StepState};

use crate::controller::Session;
use crate::fleet::Fleet;
use crate::node::{ENFORCE, Node, enrolled_with, linked, linked_beating, terminate};
use crate::order::Order;
use crate::wait::within;

/// What the agent has said of the one job.
#[derive(Default)]
struct Said {
    updates: Vec<JobUpdate>,
    reports: Vec<pb::SealedReport>,
}

/// Takes the next word about the one job; true when it is the answer to a question instead.
async fn hear(session: &mut Session, order: &Order, said: &mut Said) -> bool {
    match session.next().await {
        agent_message::Body::Job(update) if Order::answers(&update) => return true,
        agent_message::Body::Job(update) => {
            let update = JobUpdate::try_from(&update).unwrap();
            assert_eq!((update.run, update.request), (order.run, Some(order.request)));
            said.updates.push(update);
        }
        agent_message::Body::Report(report) => {
            assert_eq!(report.run, order.run.to_string());
            said.reports.push(report);
        }
        other => panic!("{other:?} about a job"),
    }
    false
}

/// Everything that is said until all that was sent is answered. The core tells the newest state of a job
/// once and not a hundred times: so many answers may arrive as one.
async fn answered(session: &mut Session, order: &Order, fleet: &Fleet) -> Said {
    let mut said = Said::default();
    session.send(order.question(fleet, session)).await;
    while !hear(session, order, &mut said).await {}
    said
}

/// The next report.
async fn reported(session: &mut Session, order: &Order) -> pb::SealedReport {
    let mut said = Said::default();
    while said.reports.is_empty() {
        assert!(!hear(session, order, &mut said).await);
    }
    said.reports.remove(0)
}

async fn acknowledge(session: &mut Session, report: &pb::SealedReport) {
    let digest = Digest::of(&report.payload).as_bytes().to_vec();
    let ack = pb::ReportAck { run: report.run.clone(), attempt: report.attempt, digest };
    session.send(controller_message::Body::ReportAck(ack)).await;
}

/// The node's first and only report: one step that was carried out once.
fn succeeded_once(report: &pb::SealedReport) {
    let report: Report = canonical::from_slice(&report.payload).unwrap();
    assert_eq!((report.outcome, report.sequence, report.previous), (Outcome::Succeeded, 1, None));
    let steps: Vec<_> = report.steps.iter().map(|step| (step.state, step.tries)).collect();
    assert_eq!(steps, [(StepState::Succeeded, 1)]);
}

/// What the node keeps: one job that was accepted, finished and acknowledged once, and one start.
async fn happened_once(node: &Node, report: &pb::SealedReport) {
    assert_eq!(node.starts(), 1);
    let jobs = node.jobs().await;
    let [job] = jobs.as_slice() else { panic!("{jobs:?}") };
    let digest = Digest::of(&report.payload).to_string();
    assert_eq!((&job["acknowledged"], &job["report"]), (&true.into(), &digest.into()), "{job}");
    for name in ["accepted", "finished", "acked"] {
        assert_eq!(node.entries(name), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t07_a_hundred_duplicates_and_twenty_more_after_a_kill_start_a_real_step_once() {
    let (node, mut controller, fleet, _token) = enrolled_with(ENFORCE).await;
    node.hold();
    let order = Order::publish(&fleet, node.id(), &controller);
    let mut child = node.start();
    let (_, _, mut session) = linked(&mut controller, &fleet, 5).await;
    let assign = order.assign(&fleet, &session);
    for _ in 0..100 {
        session.send(assign.clone()).await;
    }
    let mut said = Said::default();
    while said.updates.is_empty() {
        hear(&mut session, &order, &mut said).await;
    }
    said.updates.extend(answered(&mut session, &order, &fleet).await.updates);
    node.started().await;
    session.send(assign).await;
    let again = answered(&mut session, &order, &fleet).await;
    assert!(!again.updates.is_empty());
    said.updates.extend(again.updates);
    assert!(said.updates.iter().all(|update| update.state.outcome().is_none()), "{:?}", said.updates);

    within("the agent dies", child.kill()).await.unwrap();
    session.ended().await;
    let child = node.start();
    let (_, listed, mut session) = linked(&mut controller, &fleet, 6).await;
    let listed: Vec<_> = listed.iter().map(|job| JobUpdate::try_from(job).unwrap()).collect();
    assert_eq!(
        listed.iter().map(|job| (job.run, job.request)).collect::<Vec<_>>(),
        [(order.run, Some(order.request))]
    );
    // One after another, so that each of them shows its own answer.
    for _ in 0..20 {
        session.send(order.assign(&fleet, &session)).await;
        let said = answered(&mut session, &order, &fleet).await;
        let state = &said.updates.last().unwrap().state;
        assert!(matches!(state, JobState::Running { .. }), "{state:?}");
        assert_eq!(said.reports, []);
    }
    node.release();
    let report = reported(&mut session, &order).await;
    succeeded_once(&report);
    // A question about a finished job is answered with the stored report, acknowledged or not.
    session.send(order.assign(&fleet, &session)).await;
    answered(&mut session, &order, &fleet).await;
    assert_eq!(reported(&mut session, &order).await, report);
    for _ in 0..3 {
        acknowledge(&mut session, &report).await;
        session.send(order.assign(&fleet, &session)).await;
        let said = answered(&mut session, &order, &fleet).await;
        assert!(!said.reports.is_empty() && said.reports.iter().all(|again| *again == report));
        assert!(said.updates.is_empty());
    }
    acknowledge(&mut session, &report).await;
    answered(&mut session, &order, &fleet).await;
    happened_once(&node, &report).await;
    assert_eq!(terminate(child).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn t06_five_acknowledgements_lost_over_links_and_kills_cost_a_real_node_nothing_but_resends() {
    let (node, mut controller, fleet, _token) = enrolled_with(ENFORCE).await;
    let order = Order::publish(&fleet, node.id(), &controller);
    let mut child = node.start();
    let (_, _, mut session) = linked(&mut controller, &fleet, 5).await;
    session.send(order.assign(&fleet, &session)).await;
    let report = reported(&mut session, &order).await;
    succeeded_once(&report);
    let digest = Digest::of(&report.payload);
    // The first acknowledgement is lost with this link; four more follow, two of them with the agent.
    for epoch in 6..=9 {
        if epoch % 2 == 0 {
            within("the agent dies", child.kill()).await.unwrap();
            session.ended().await;
            child = node.start();
        } else {
            drop(session);
        }
        let (_, listed, next) = linked(&mut controller, &fleet, epoch).await;
        session = next;
        let listed: Vec<_> = listed.iter().map(|job| JobUpdate::try_from(job).unwrap().report).collect();
        assert_eq!(listed, [Some(digest)]);
        // The second time by its timer.
        for _ in 0..2 {
            assert_eq!(reported(&mut session, &order).await, report);
        }
    }
    drop(session);
    let (_, _, mut session) = linked_beating(&mut controller, &fleet, 10, 500).await;
    assert_eq!(reported(&mut session, &order).await, report);
    // The executor hands its reports over anew for each link. Its copy has reached the core when a question
    // is answered; one that came behind the acknowledgement would be sent and want another.
    answered(&mut session, &order, &fleet).await;
    acknowledge(&mut session, &report).await;
    // One that was under way already may still come; none comes once the acknowledgement was taken.
    let said = answered(&mut session, &order, &fleet).await;
    assert!(said.updates.is_empty() && said.reports.iter().all(|again| *again == report));
    // Time for ten more resends passes, told by heartbeats.
    let mut beats = 0;
    while beats < 3 {
        let message = within("a heartbeat", session.from_agent.recv()).await.unwrap();
        match message.body.unwrap() {
            agent_message::Body::Heartbeat(_) => {
                beats += 1;
                session.send(controller_message::Body::Heartbeat(pb::HeartbeatReply::default())).await;
            }
            other => panic!("{other:?} after the acknowledgement"),
        }
    }
    let (exit, ()) = tokio::join!(terminate(child), session.left());
    assert_eq!(exit, Some(0));

    let child = node.start();
    let (_, listed, mut session) = linked(&mut controller, &fleet, 11).await;
    assert_eq!(listed, []);
    let said = answered(&mut session, &order, &fleet).await;
    assert!(said.updates.is_empty() && said.reports.is_empty());
    happened_once(&node, &report).await;
    assert_eq!(terminate(child).await, Some(0));
}
