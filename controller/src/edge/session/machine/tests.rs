//! The machine tried alone: inputs on a clock of the test, acts in short words.

use fleet_types::id::{Generation, JobId};

use super::*;

const HEARTBEAT: Duration = Duration::from_secs(10);
const OFFER: Duration = Duration::from_secs(30);
const EPOCH: LinkEpoch = LinkEpoch(7);

fn wall() -> Timestamp {
    Timestamp::clamped(1_800_000_000_000)
}

fn machine(now: Instant) -> Machine {
    Machine::new(Timers { heartbeat: HEARTBEAT, offer: OFFER }, EPOCH, false, now)
}

fn run(number: u64) -> RunId {
    RunId::from_number(number)
}

fn offer(number: u64) -> (Assignment, WaveProof) {
    let assignment = Assignment {
        job: JobId::first(run(number), crate::testing::agent(1).node),
        attempt: Attempt(1),
        authority: fleet_types::authority::Authority::Request(Digest::of(b"request")),
        node_index: 0,
        node_path: vec![],
        generation: Generation(1),
        link_epoch: EPOCH,
    };
    let proof = WaveProof { index: 0, size: 1, path: vec![], signature: vec![] };
    (assignment, proof)
}

fn message(seq: u64, body: impl Into<Option<AgentBody>>) -> Input {
    let body = body.into();
    Input::Message(Box::new(pb::AgentMessage { link_epoch: EPOCH.0, seq, body }), wall())
}

fn heartbeat() -> AgentBody {
    AgentBody::Heartbeat(pb::Heartbeat::default())
}

/// The acts in short words.
fn words(acts: &[Act]) -> Vec<String> {
    let word = |act: &Act| match act {
        Act::Send(ControllerBody::Assign(_)) => "assign".to_owned(),
        Act::Send(ControllerBody::Cancel(cancel)) => format!("cancel: {}", cancel.reason),
        Act::Send(ControllerBody::Heartbeat(_)) => "heartbeat".to_owned(),
        Act::Send(ControllerBody::ReportAck(_)) => "ack".to_owned(),
        Act::Send(ControllerBody::Reconcile(_)) => "decisions".to_owned(),
        Act::Send(_) => "other".to_owned(),
        Act::Show(presence) => presence.as_str().to_owned(),
        Act::Touch(_) => "touch".to_owned(),
        Act::RaiseSequence(sequence) => format!("sequence {sequence}"),
        Act::Note(_) => "note".to_owned(),
        Act::Store(_) => "store".to_owned(),
        Act::Decide { .. } => "decide".to_owned(),
        Act::LookIntoInbox => "inbox".to_owned(),
        Act::IsStillOffered(_) => "still offered?".to_owned(),
        Act::TakeMissed => "missed?".to_owned(),
        Act::NotUnderstood(what) => format!("not understood: {what}"),
        Act::NotStored(..) => "not stored".to_owned(),
        Act::ShutOut(_) => "shut out".to_owned(),
    };
    acts.iter().map(word).collect()
}

fn on(machine: &mut Machine, now: Instant, input: Input) -> Vec<String> {
    words(&machine.on(now, input).unwrap())
}

fn refused(machine: &mut Machine, now: Instant, input: Input) -> String {
    machine.on(now, input).err().expect("the link ends").to_string()
}

#[test]
fn messages_of_another_link_or_out_of_order_end_it() {
    let now = Instant::now();
    let mut session = machine(now);
    assert_eq!(on(&mut session, now, message(2, heartbeat())), ["touch", "online", "heartbeat"]);
    for seq in [1, 2, 4] {
        let why = refused(&mut session, now, message(seq, heartbeat()));
        assert_eq!(why, format!("seq: {seq} after 2"));
    }
    let other = pb::AgentMessage { link_epoch: 6, seq: 3, body: Some(heartbeat()) };
    assert!(refused(&mut session, now, Input::Message(Box::new(other), wall())).contains("another link"));
    let hello = Some(AgentBody::Hello(pb::Hello::default()));
    assert_eq!(refused(&mut session, now, message(3, hello)), "hello: a second hello");
}

#[test]
fn what_is_not_understood_is_told_once_and_the_link_stays() {
    let now = Instant::now();
    let mut session = machine(now);
    let first = on(&mut session, now, message(2, None));
    assert_eq!(first, ["touch", "online", "not understood: a message"]);
    assert_eq!(on(&mut session, now, message(3, None)), ["touch", "online"]);
    assert_eq!(session.not_understood(), 2);
}

#[test]
fn a_silent_node_is_stale_and_then_gone() {
    let start = Instant::now();
    let mut session = machine(start);
    let stale = start + HEARTBEAT * STALE_AFTER;
    assert!(session.next_timer(start) <= start + DENY_PERIOD, "who is shut out ends soon");
    assert!(on(&mut session, stale - Duration::from_millis(1), Input::Timer).is_empty());
    assert_eq!(on(&mut session, stale, Input::Timer), ["stale"]);
    let gone = start + HEARTBEAT * CLOSE_AFTER;
    assert_eq!(refused(&mut session, gone, Input::Timer), "the node has been silent for too long");
    on(&mut session, gone, message(2, heartbeat()));
    assert!(on(&mut session, gone, Input::Timer).is_empty(), "it was heard");
}

#[test]
fn an_offer_is_made_again_until_it_is_answered_and_never_what_has_ended() {
    let start = Instant::now();
    let mut session = machine(start);
    assert_eq!(on(&mut session, start, Input::ToNode(ToNode::Assign(Box::new(offer(1))))), ["assign"]);
    let again = start + OFFER;
    assert!(session.next_timer(again - Duration::from_millis(5)) <= again);
    on(&mut session, again, message(2, heartbeat()));
    assert_eq!(on(&mut session, again, Input::Timer), ["still offered?"]);
    let still = |offered, stop| Input::StillOffered { run: run(1), offered, stop };
    assert_eq!(on(&mut session, again, still(true, None)), ["assign"]);
    assert!(on(&mut session, again, Input::Timer).is_empty(), "its time begins anew");
    // Its run is ending: the word to stop comes first.
    let stop = on(&mut session, again, still(true, Some("enough".to_owned())));
    assert_eq!(stop, ["cancel: enough", "assign"]);
    assert!(on(&mut session, again, still(false, None)).is_empty(), "it is in the inbox no more");
    on(&mut session, again + OFFER, message(3, heartbeat()));
    assert!(on(&mut session, again + OFFER, Input::Timer).is_empty(), "and is forgotten");
}

#[test]
fn an_offer_of_the_link_before_is_signed_anew() {
    let now = Instant::now();
    let mut session = machine(now);
    let stale = || {
        let (assignment, proof) = offer(1);
        Input::ToNode(ToNode::Assign(Box::new((
            Assignment { link_epoch: LinkEpoch(6), ..assignment },
            proof,
        ))))
    };
    assert!(on(&mut session, now, stale()).is_empty(), "the inbox is sent after the reconcile anyway");
    let page = pb::ReconcilePage { jobs: vec![], last: true };
    assert_eq!(on(&mut session, now, message(2, Some(AgentBody::Reconcile(page.clone()))))[2..], ["decide"]);
    let decided = Input::Decided { decided: vec![], last: true };
    assert_eq!(on(&mut session, now, decided), ["decisions", "inbox"]);
    assert_eq!(on(&mut session, now, stale()), ["inbox"]);
    let again = refused(&mut session, now, message(3, Some(AgentBody::Reconcile(page))));
    assert_eq!(again, "reconcile: too many pages, or one too large");
}

#[test]
fn the_inbox_gives_what_the_node_did_not_list_and_every_word_to_stop() {
    let now = Instant::now();
    let mut session = machine(now);
    let decided = vec![(run(1), Attempt(1), Decision::Continue)];
    on(&mut session, now, Input::Decided { decided, last: true });
    let cancels = vec![(run(1), Attempt(1), "enough".to_owned())];
    let inbox = Inbox { offers: vec![offer(1), offer(2)], cancels };
    let acts = session.on(now, Input::Inbox(inbox)).unwrap();
    assert_eq!(words(&acts), ["cancel: enough", "assign"]);
    let Act::Send(ControllerBody::Assign(assign)) = &acts[1] else { panic!("no assignment") };
    let assignment: Assignment = serde_json::from_slice(&assign.assignment).unwrap();
    assert_eq!(assignment.job.run, run(2));
}

#[test]
fn a_report_that_stays_away_shuts_the_node_out() {
    let start = Instant::now();
    let mut session = machine(start);
    let stored = |stored| Input::Stored { run: run(1), attempt: Attempt(1), stored };
    let gap = || ControllerError::new(Kind::Unavailable, reports::GAP, "report 3 is missing");
    let short = || ControllerError::new(Kind::Exhausted, "no-space", "the disk is full");
    let limit = HEARTBEAT * GAP_HEARTBEATS;
    assert_eq!(on(&mut session, start, stored(Err(gap()))), ["not stored"]);
    // Something else in between is no gap: its time begins anew.
    assert_eq!(on(&mut session, start + limit, stored(Err(short()))), ["not stored"]);
    assert_eq!(on(&mut session, start + limit, stored(Err(gap()))), ["not stored"]);
    assert_eq!(on(&mut session, start + limit * 2, stored(Err(gap()))), ["shut out"]);
    assert_eq!(on(&mut session, start, stored(Ok(Digest::of(b"report")))), ["ack"]);
    let foreign = ControllerError::new(Kind::Refused, "foreign", "signed by somebody else");
    assert!(refused(&mut session, start, stored(Err(foreign))).contains("somebody else"));
}
