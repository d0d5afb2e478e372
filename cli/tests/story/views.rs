//! What is looked at: fits into 80 columns, harmless whatever nodes say, the same in every format.

use fleet_types::seal::SigningKey;
use unicode_width::UnicodeWidthStr as _;

use crate::fixtures::is_harmless;
use crate::world::World;

const LOOKS: [&[&str]; 10] = [
    &["status"],
    &["status", "fw-1"],
    &["node", "list"],
    &["node", "show", "fw-2"],
    &["cert", "list"],
    &["backup", "list"],
    &["run", "list"],
    &["run", "show", "r-0000000005/fw-1"],
    &["audit", "list"],
    &["procedure", "list"],
];

#[test]
fn every_view_in_every_format_is_harmless() {
    let world = World::signed_in();
    for look in LOOKS {
        for format in ["table", "wide", "json", "jsonl", "yaml", "name", "jsonpath=.*"] {
            let args: Vec<&str> = look.iter().copied().chain(["-o", format]).collect();
            let ended = world.run(&args);
            assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{args:?}: {}", ended.err);
            assert!(is_harmless(&ended.out), "{args:?}: {:?}", ended.out);
            // A line that a node made up would begin like one of ours.
            assert!(
                !ended.out.lines().any(|line| line.starts_with("error[fake]")),
                "{args:?}: {}",
                ended.out
            );
            if format == "json" {
                let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
                assert!(value["schema"].as_str().unwrap().starts_with("fleet/v1/"), "{args:?}");
            }
        }
    }
}

#[test]
fn tables_fit_into_80_columns() {
    let world = World::signed_in();
    for look in [&["node", "list"][..], &["cert", "list"], &["backup", "list"], &["status"]] {
        let ended = world.run_at_terminal(look);
        for line in ended.out.lines().filter(|line| !line.starts_with("  ")) {
            assert!(line.width() <= 80, "{look:?}: {line}");
        }
    }
}

#[test]
fn nothing_is_cut_in_a_pipe() {
    let world = World::signed_in();
    let cut = world.run_at_terminal(&["backup", "list"]);
    assert!(cut.out.contains('…') && !cut.out.contains("archive-1.tar.gz"), "{}", cut.out);
    let whole = world.run(&["backup", "list"]);
    assert!(whole.out.contains("archive-1.tar.gz") && !whole.out.contains("SHA256"), "{}", whole.out);
}

#[test]
fn lists_are_paged_and_narrowed() {
    let world = World::signed_in();
    assert_eq!(world.run(&["node", "list", "-o", "name"]).out, "fw-1\nfw-2\n");
    assert_eq!(world.run(&["node", "list", "--site", "ams2", "-o", "name"]).out, "fw-2\n");
    assert_eq!(world.run(&["node", "list", "--node", "fw-1,fw-2", "-o", "name"]).out, "fw-1\nfw-2\n");
    let nodes = world.run(&["backup", "list", "-l", "site=ams2", "-o", "jsonpath=.items[*].node"]);
    assert_eq!(nodes.out, "fw-2\n", "{}", nodes.err);
    let missing = world.run(&["node", "show", "fw-9"]);
    assert_eq!((missing.code, missing.out.as_str()), (4, ""));
    assert!(missing.err.contains("node \"fw-9\" does not exist"), "{}", missing.err);
}

#[test]
fn a_holder_is_shut_out_by_name_and_with_a_reason_only() {
    let world = World::signed_in();
    let revoke = |more: &[&str]| world.run(&[&["cert", "revoke"], more].concat());
    assert_eq!(revoke(&["fw-1", "--confirm", "fw-1", "--reason", "lost"]).code, 2);
    for more in [&[][..], &["--confirm", "fw-1"], &["--confirm", "fw-2", "--reason", "lost"], &["--yes"]] {
        assert_eq!(revoke(&[&["node/fw-1"], more].concat()).code, 5, "{more:?}");
    }
    assert_eq!(revoke(&["node/fw-1", "--dry-run"]).code, 0);
    world.state(|state| assert!(state.orders.is_empty(), "{:?}", state.orders));
    let ended = revoke(&["node/fw-1", "--confirm", "fw-1", "--reason", "lost"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "node/fw-1 is revoked\n"), "{}", ended.err);
    world.state(|state| assert_eq!(state.orders, ["node/fw-1 is revoked: lost"]));
}

#[test]
fn a_join_token_is_data_and_how_to_use_it_is_talk() {
    let world = World::signed_in();
    let ended = world.run(&["join-token", "create", "fw-3", "--label", "site=fra1", "--valid-for", "30m"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "ft1.made-up\n"), "{}", ended.err);
    assert!(ended.err.contains("it is not shown again"), "{}", ended.err);
    assert_eq!(world.run(&["join-token", "create", "fw-3", "--valid-for", "25h"]).code, 2);
    world.state(|state| assert_eq!(state.keys.len(), 1));
}

#[test]
fn what_is_decided_about_a_node_wants_a_reason_and_a_removal_its_name() {
    let world = World::signed_in();
    for verb in ["hold", "release"] {
        let ended = world.run(&["node", verb, "fw-1"]);
        assert_eq!((ended.code, ended.out.as_str()), (2, ""));
        assert!(ended.err.contains("wants a reason; nothing was done"), "{}", ended.err);
    }
    let unnamed = world.run(&["node", "remove", "fw-1", "--reason", "scrapped", "--yes"]);
    assert_eq!(unnamed.code, 5, "{}", unnamed.err);
    let unknown = world.run(&["node", "remove", "fw-9", "--confirm", "fw-9", "--reason", "scrapped"]);
    assert_eq!(unknown.code, 4, "{}", unknown.err);
    world.state(|state| assert!(state.orders.is_empty(), "{:?}", state.orders));
    let held = world.run(&["node", "hold", "fw-1", "--reason", "disk is swapped"]);
    assert_eq!((held.code, held.out.as_str()), (0, "fw-1 is held\n"), "{}", held.err);
    let released = world.run(&["node", "release", "fw-1", "--reason", "done", "--yes", "-o", "name"]);
    assert_eq!((released.code, released.out.as_str()), (0, "fw-1\n"), "{}", released.err);
    let args =
        ["node", "remove", "fw-1", "--confirm", "fw-1", "--reason", "scrapped", "-o", "jsonpath=.message"];
    assert_eq!(world.run(&args).out, "fw-1 is removed\n");
    let orders = ["fw-1 is held: disk is swapped", "fw-1 is released: done", "fw-1 is removed: scrapped"];
    world.state(|state| assert_eq!(state.orders, orders));
}

#[test]
fn a_fence_is_reset_by_a_root_key_and_by_nobody_else() {
    let world = World::signed_in();
    let root = world.root_key();
    let reset = |key: &str, more: &[&str]| {
        let args = ["node", "reset-fence", "fw-1", "--root-key", key, "--reason", "a stolen controller"];
        world.run(&[&args[..], more].concat())
    };
    let root = root.to_str().unwrap();
    assert_eq!(reset(root, &["--yes"]).code, 5, "it is severe");
    let other = world.path().join("other.key");
    let pem = SigningKey::pkcs8_to_pem(&SigningKey::generate().unwrap().1);
    fleet_certs::files::write_secret(&other, &pem).unwrap();
    let refused = reset(other.to_str().unwrap(), &["--confirm", "fw-1"]);
    assert_eq!(refused.code, 12, "{}", refused.err);
    world.state(|state| assert!(state.bundle.fence_resets.is_empty()));
    for times in 1..3 {
        let done = reset(root, &["--confirm", "fw-1"]);
        assert_eq!(done.code, 0, "{}", done.err);
        world.state(|state| {
            let resets = &state.bundle.fence_resets;
            assert_eq!(
                (resets.len(), resets[0].version),
                (1, state.bundle.version),
                "{times}: the newest counts"
            );
            assert_eq!(state.bundle.content_keys.len(), 1, "all else stays");
        });
    }
}

/// Reads `wanted` answers and goes away.
struct Reader {
    answers: Vec<String>,
    wanted: usize,
}

impl std::io::Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.answers.len() == self.wanted {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        self.answers.push(String::from_utf8(bytes.to_vec()).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_watch_prints_what_changed_and_ends_when_nobody_reads() {
    let world = World::signed_in();
    let (mut out, mut err) = (Reader { answers: Vec::new(), wanted: 2 }, Vec::new());
    let args = ["fleetctl", "node", "list", "--watch", "-o", "json"];
    // The times of the scripted nodes move, so that each look differs from the one before.
    let code = fleetctl::app::run(args, &mut out, &mut err, &world.environment());
    assert_eq!((code, out.answers.len(), err.len()), (0, 2, 0));
    assert_ne!(out.answers[0], out.answers[1]);
}
