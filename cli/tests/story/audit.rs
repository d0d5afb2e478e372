//! The audit log is checked here, not there.

use crate::fixtures::audit_record;
use crate::world::World;

fn grow(world: &World, to: u64) {
    let fleet = world.fake.fleet;
    world.state(|state| {
        for index in state.audit.len() as u64..to {
            state.audit.push(audit_record(fleet, index, "run.start"));
        }
    });
}

#[test]
fn a_whole_log_passes_and_a_rewritten_one_does_not() {
    let world = World::signed_in();
    assert_eq!(world.run(&["audit", "verify"]).code, 0, "an empty log is whole");
    grow(&world, 300);
    let ended = world.run(&["audit", "verify", "-o", "json", "--reports"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((value["size"].as_u64(), value["report_signatures"].as_u64()), (Some(300), Some(0)));
    grow(&world, 600);
    let ended = world.run(&["audit", "verify"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains("seen here before (300 records)"), "{}", ended.out);
    // Every record is well-formed and the head fits: only what was seen before tells.
    let (fleet, kept) = (world.fake.fleet, world.state(|state| state.audit.clone()));
    world.state(|state| state.audit[299] = audit_record(fleet, 299, "run.cancel"));
    let ended = world.run(&["audit", "verify"]);
    assert_eq!(ended.code, 12, "{}", ended.out);
    assert!(ended.err.contains("record 256 or one up to 511 is not what was seen before"), "{}", ended.err);
    world.state(|state| state.audit = kept[..599].to_vec());
    let ended = world.run(&["audit", "verify"]);
    assert_eq!(ended.code, 12, "{}", ended.out);
    assert!(ended.err.contains("record 599 is missing"), "{}", ended.err);
    world.state(|state| {
        state.audit.clone_from(&kept);
        state.audit[5][10] ^= 1;
    });
    assert!(world.run(&["audit", "verify"]).err.contains("record 5"));
    // A failed check keeps the mark, so that the evidence is not lost.
    world.state(|state| state.audit = kept);
    assert_eq!(world.run(&["audit", "verify"]).code, 0);
}

#[test]
fn the_list_is_newest_first() {
    let world = World::signed_in();
    grow(&world, 3);
    let ended = world.run(&["audit", "list", "--limit", "2", "-o", "name"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "2\n1\n"), "{}", ended.err);
}
