//! Output travels beside the session, as fast as its stream takes it, and the executor is told what is stored.

use fleet_proto::pb;
use fleet_proto::pb::{agent_message, core_message, executor_message};

use crate::session::{linked, run};
use crate::wait::within;

fn chunk(offset: u64, data: Vec<u8>) -> executor_message::Body {
    executor_message::Body::Output(pb::OutputChunk {
        run: run(1),
        attempt: 1,
        step: "s".to_owned(),
        offset,
        data,
        last: false,
    })
}

fn stored(offset: u64) -> pb::OutputStored {
    pb::OutputStored { run: run(1), attempt: 1, step: "s".to_owned(), offset }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_nobody_takes_holds_up_nothing_and_what_is_stored_is_told() {
    let (mut controller, mut session, mut agent, _fleet) = linked(7).await;
    // More than the stream's window and all queues hold.
    for number in 0..40 {
        agent.executor.send(chunk(number * 32_768, vec![7; 32_768])).await;
    }
    let mut call = controller.output().await;
    let report = pb::SealedReport { run: run(1), attempt: 1, payload: b"{}".to_vec(), signature: vec![] };
    agent.executor.send(executor_message::Body::Report(report.clone())).await;
    assert_eq!(session.next().await, agent_message::Body::Report(report));
    let mut got = 0;
    while got < 40 * 32_768 {
        let piece = within("output arrives", call.chunks.message()).await.unwrap().unwrap();
        assert_eq!(piece.offset, got);
        got += piece.data.len() as u64;
    }
    call.answers.send(Ok(stored(got))).await.unwrap();
    assert_eq!(agent.executor.next().await, core_message::Body::OutputStored(stored(got)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_executor_hears_of_a_stream_that_ended_and_a_new_one_takes_what_it_sends_again() {
    for refused in [false, true] {
        let (mut controller, _session, mut agent, _fleet) = linked(7).await;
        agent.executor.send(chunk(0, vec![1; 10_000])).await;
        let mut call = controller.output().await;
        within("output arrives", call.chunks.message()).await.unwrap().unwrap();
        if refused {
            call.answers.send(Err(tonic::Status::permission_denied("not yours"))).await.unwrap();
        }
        drop(call);
        let lost = core_message::Body::OutputLost(pb::OutputLost { refused });
        assert_eq!(agent.executor.next().await, lost);
        agent.executor.send(chunk(4_000, vec![1; 6_000])).await;
        let mut call = controller.output().await;
        let again = within("the rest is sent again", call.chunks.message()).await.unwrap().unwrap();
        assert_eq!((again.offset, again.data.len()), (4_000, 6_000));
    }
}
