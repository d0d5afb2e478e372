//! Output travels beside the session, within credits, and starts again where the controller is.

use fleet_proto::pb;
use fleet_proto::pb::{agent_message, controller_message, core_message, executor_message};

use crate::session::{linked, run};
use crate::wait::within;

fn chunk(offset: u64, data: Vec<u8>, last: bool) -> executor_message::Body {
    executor_message::Body::Output(pb::OutputChunk {
        run: run(1),
        attempt: 1,
        step: "s".to_owned(),
        offset,
        data,
        last,
    })
}

fn credit(offset: u64, credit: u32) -> pb::OutputCredit {
    pb::OutputCredit { run: run(1), attempt: 1, step: "s".to_owned(), offset, credit }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_waits_for_credit_while_control_goes_on() {
    let (mut controller, mut session, mut agent, _fleet) = linked(7).await;
    let text: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    for (index, piece) in text.chunks(50_000).enumerate() {
        agent.executor.send(chunk(index as u64 * 50_000, piece.to_vec(), index == 1)).await;
        let core_message::Body::OutputCredit(granted) = agent.executor.next().await else {
            panic!("no credit")
        };
        assert_eq!(granted.offset, (index as u64 + 1) * 50_000);
    }
    let mut call = controller.output().await;
    let mut got = Vec::new();
    while got.len() < 65_536 {
        let piece = within("output arrives", call.chunks.message()).await.unwrap().unwrap();
        assert_eq!(piece.offset, got.len() as u64);
        got.extend(piece.data);
    }
    // The output has no credit any more; a report passes it by.
    let report = pb::SealedReport { run: run(1), attempt: 1, payload: b"{}".to_vec(), signature: vec![] };
    agent.executor.send(executor_message::Body::Report(report.clone())).await;
    assert_eq!(session.next().await, agent_message::Body::Report(report));
    call.credits.send(Ok(credit(65_536, 65_536))).await.unwrap();
    let mut ended = false;
    while !ended {
        let piece = within("the rest arrives", call.chunks.message()).await.unwrap().unwrap();
        assert_eq!(piece.offset, got.len() as u64);
        got.extend(piece.data);
        ended = piece.last;
    }
    assert_eq!(got, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_stream_starts_at_the_offset_that_the_controller_has_stored() {
    let (mut controller, mut session, mut agent, _fleet) = linked(7).await;
    agent.executor.send(chunk(0, vec![1; 10_000], false)).await;
    let mut call = controller.output().await;
    let first = within("output arrives", call.chunks.message()).await.unwrap().unwrap();
    assert_eq!((first.offset, first.data.len()), (0, 10_000));
    call.credits.send(Ok(credit(4_000, 65_536))).await.unwrap();
    // The credit for the taken piece, then the one that follows from what is stored.
    for room in [252_144, 252_144] {
        let core_message::Body::OutputCredit(granted) = agent.executor.next().await else {
            panic!("no credit")
        };
        assert!(u64::from(granted.credit) <= room + 10_000, "{granted:?}");
    }
    drop(call);
    session.send(controller_message::Body::Goodbye(pb::Goodbye::default())).await;
    session.ended().await;
    let mut session = controller.welcomed(8).await;
    agent.executor.link_up(vec![]).await;
    session.next().await;
    let mut call = controller.output().await;
    let again = within("the rest is sent again", call.chunks.message()).await.unwrap().unwrap();
    assert_eq!((again.offset, again.data.len()), (4_000, 6_000));
}
