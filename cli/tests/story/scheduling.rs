//! Schedules that may start work: what the controller that is played takes, and what operators see of it.

use std::time::Duration;

use fleet_proto::{convert, pb};
use fleet_types::canonical;
use fleet_types::seal::{Envelope, Kind};
use fleet_types::standing_order::StandingOrder;
use fleet_types::view::{AuthoriseItem, AuthoriseView, Authorised};
use tonic::Code;

use crate::answers::{Reply, refusal, view};
use crate::documents::{PROCEDURE, applied};
use crate::fake::Fake;
use crate::world::World;

/// Takes orders as the real one does: signed with the caller's key, of their own kind, one for a schedule.
pub fn authorise(fake: &Fake, call: &pb::AuthoriseSchedulesRequest) -> Reply {
    let mut state = fake.state.lock().unwrap();
    let key = state.content_key.unwrap();
    let mut answer = AuthoriseView::new(call.file.parse().unwrap());
    for order in &call.orders {
        let envelope: Envelope = convert::json("orders", order).unwrap();
        if let Err(error) = envelope.verify(Kind::StandingOrder, fake.fleet, &key) {
            return Err(refusal(Code::FailedPrecondition, "signature-refused", &error.to_string(), ""));
        }
        let order: StandingOrder = canonical::from_signed(&envelope.payload).unwrap();
        assert_eq!(order.check(fake.fleet), Ok(()));
        let (schedule, until) = (order.schedule.clone(), Some(order.not_after));
        state.authorised.retain(|known| known.schedule != schedule);
        state.authorised.push(order);
        answer.items.push(AuthoriseItem { schedule, what: Authorised::Authorised, until, why: vec![] });
    }
    view(&answer)
}

const FILE: &str = "schema = \"fleet/v1\"\nkind = \"schedule\"\nname = \"edge\"\n\n[[schedule]]\nid = \"hourly\"\nprocedure = \"look\"\nselector = \"site=fra1\"\ncron = \"0 * * * *\"\nparams = { depth = 3 }\n\n[[schedule]]\nid = \"off\"\nprocedure = \"look\"\nselector = \"site=fra1\"\ncron = \"0 1 * * *\"\nenabled = false\n";
/// One more, whose procedure changes nodes without a rollout policy.
const CHANGING: &str = "\n[[schedule]]\nid = \"change\"\nprocedure = \"change\"\nselector = \"site=fra1\"\ncron = \"0 2 * * *\"\n";

fn authorised(world: &World) -> Vec<StandingOrder> {
    world.state(|state| state.authorised.clone())
}

#[test]
fn nothing_is_signed_for_before_somebody_says_yes() {
    let world = World::signed_in();
    applied(&world, false);
    let file = world.file("schedules.toml", FILE);
    let ended = world.run(&["schedule", "apply", &file]);
    assert_eq!((ended.code, authorised(&world).len()), (5, 0), "{}", ended.err);
    assert!(ended.err.contains("created schedule edge") && ended.err.contains("hourly"), "{}", ended.err);
    assert!(
        ended.err.contains("apply the changed file and let 1 schedule start work until "),
        "{}",
        ended.err
    );
    let ended = world.run(&["schedule", "apply", &file, "--dry-run", "-o", "json"]);
    let preview: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((ended.code, preview["wanted"][0]["selector"].as_str()), (0, Some("site=fra1")), "{preview}");
    assert_eq!(world.state(|state| state.documents.len()), 2, "the file is not stored either");
    let ended = world.run_typing("y\n", &["schedule", "apply", &file, "--for", "30d", "--max-failures", "2"]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    assert!(ended.out.contains("edge/hourly") && ended.out.contains("authorised"), "{}", ended.out);
    let orders = authorised(&world);
    let [order] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!((order.schedule.as_str(), order.file_revision, order.procedure_revision), ("hourly", 1, 1));
    assert_eq!((order.selector.as_str(), order.max_failures), ("site=fra1", Some(2)));
    assert_eq!(order.not_after.since(order.not_before), Duration::from_hours(30 * 24));
    // Once more without a change: signed anew, for longer.
    let ended = world.run(&["schedule", "apply", &file, "--yes"]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    assert!(authorised(&world)[0].not_after > order.not_after);
}

#[test]
fn what_cannot_be_signed_for_is_left_out_by_name_and_the_others_go_on() {
    let world = World::signed_in();
    applied(&world, false);
    let change = PROCEDURE.replace("CHANGES", "true").replace("name = \"look\"", "name = \"change\"");
    let change = world.file("change.toml", &change);
    assert_eq!(world.run(&["config", "apply", &change, "--yes"]).code, 0);
    let file = world.file("schedules.toml", &format!("{FILE}{CHANGING}"));
    let ended = world.run(&["schedule", "apply", &file, "--yes", "-o", "json"]);
    assert_eq!(ended.code, 3, "{}{}", ended.out, ended.err);
    let view: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    let said = |item: &serde_json::Value| format!("{} {}", item["schedule"], item["what"]);
    let words: Vec<_> = view["items"].as_array().unwrap().iter().map(said).collect();
    assert_eq!(words, ["\"hourly\" \"authorised\"", "\"change\" \"refused\""]);
    let why = view["items"][1]["why"][0].as_str().unwrap();
    assert!(why.contains("no rollout policy is named"), "{why}");
    assert_eq!(authorised(&world).len(), 1);
    let ended = world.run(&["schedule", "apply", &change, "--yes"]);
    assert_eq!(ended.code, 2, "{}", ended.err);
    assert!(ended.err.contains("is a procedure"), "{}", ended.err);
    let ended = world.run(&["schedule", "apply", &file, "--for", "401d", "--yes"]);
    assert_eq!(ended.code, 2, "{}", ended.err);
}

#[test]
fn a_schedule_is_started_by_hand_as_any_run() {
    let world = World::signed_in();
    applied(&world, false);
    let file = world.file("schedules.toml", FILE);
    assert_eq!(world.run(&["schedule", "apply", &file, "--yes"]).code, 0);
    let ended = world.run(&["schedule", "trigger", "edge/hourly"]);
    assert_eq!(ended.code, 5, "{}", ended.err);
    let ended = world.run(&["schedule", "trigger", "edge/hourly", "--yes"]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    world.state(|state| {
        let request = &state.started[0];
        assert_eq!((request.selector.as_str(), &request.params["depth"]), ("site=fra1", &3.into()));
        assert_eq!((request.tick, request.procedure_revision), (None, Some(1)));
    });
    for (name, code, word) in [
        ("edge/none", 4, "has no schedule \"none\""),
        ("none/hourly", 4, "does not exist"),
        ("hourly", 2, "expected FILE/ID"),
    ] {
        let ended = world.run(&["schedule", "trigger", name, "--yes"]);
        assert_eq!(ended.code, code, "{name}: {}", ended.err);
        assert!(ended.err.contains(word), "{name}: {}", ended.err);
    }
}
