//! Applying documents: checked, shown, confirmed, signed, stored.

use crate::world::World;

pub const PROFILE: &str = "schema = \"fleet/v1\"\nkind = \"profile\"\nname = \"edge\"\nversion = 1\n\n[check.load]\ntitle = \"Load\"\nkind = \"load\"\nwarn = 4\ncritical = 8\nevery = \"1m\"\n\n[command.set]\nargv = [\"/bin/set\"]\ntimeout = \"1m\"\nchanges = true\n";
pub const PROCEDURE: &str = "schema = \"fleet/v1\"\nkind = \"procedure\"\nname = \"look\"\nversion = 1\nprofile = \"edge\"\nchanges = CHANGES\ntimeout = \"5m\"\n\n[params.depth]\ntype = \"integer\"\ndefault = 1\n\n[[step]]\nid = \"probe\"\nkind = \"gate\"\ntitle = \"Look\"\nuses = \"health.check\"\nwith = { checks = \"all\" }\ntimeout = \"1m\"\n";

/// Applies a profile and a procedure that changes nodes or not.
pub fn applied(world: &World, changes: bool) {
    let profile = world.file("profile.toml", PROFILE);
    let procedure = world.file("look.toml", &PROCEDURE.replace("CHANGES", &changes.to_string()));
    let ended = world.run(&["config", "apply", &profile, &procedure, "--yes", "--reason", "for a test"]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
}

#[test]
fn nothing_is_stored_before_somebody_says_yes() {
    let world = World::signed_in();
    let profile = world.file("profile.toml", PROFILE);
    let stored = |world: &World| world.state(|state| state.documents.len());
    let ended = world.run(&["config", "apply", &profile]);
    assert_eq!((ended.code, ended.out.as_str(), stored(&world)), (5, "", 0), "{}", ended.err);
    assert!(ended.err.contains("created") && ended.err.contains("fix: add --yes"), "{}", ended.err);
    let ended = world.run_typing("n\n", &["config", "apply", &profile]);
    assert_eq!((ended.code, stored(&world)), (5, 0), "{}", ended.err);
    let ended = world.run(&["config", "apply", &profile, "--dry-run"]);
    assert_eq!((ended.code, stored(&world)), (0, 0), "{}", ended.err);
    assert!(ended.out.contains("1 of 1 document would change"), "{}", ended.out);
    let ended = world.run_typing("y\n", &["config", "apply", &profile]);
    assert_eq!((ended.code, stored(&world)), (0, 1), "{}", ended.err);
    assert!(ended.out.contains("1 of 1 document changed"), "{}", ended.out);
    // Again: nothing to do, so nobody is asked.
    let ended = world.run(&["config", "apply", &profile, "-o", "name"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "profile/edge\n"), "{}", ended.err);
    let shown = world.run(&["profile", "show", "edge"]);
    assert!(
        shown.out.starts_with("# profile edge revision 1") && shown.out.contains("[check.load]"),
        "{}",
        shown.out
    );
    assert_eq!(world.run(&["profile", "list", "-o", "jsonpath=.items[*].name"]).out, "edge\n");
    assert_eq!(
        world.run(&["procedure", "list"]).out,
        "no procedure is applied; fleetctl config apply FILES\n"
    );
}

#[test]
fn invalid_documents_and_unlisted_keys_store_nothing() {
    let world = World::new();
    assert_eq!(world.login(&[]).code, 0);
    let profile = world.file("profile.toml", PROFILE);
    let ended = world.run(&["config", "apply", &profile, "--yes"]);
    assert_eq!(ended.code, 12, "{}", ended.err);
    // What this build does not act on is told and needs no reason.
    assert!(ended.err.starts_with("warning: ") && ended.err.contains("check.every"), "{}", ended.err);
    assert!(ended.err.contains("\nerror[signature-refused]"), "{}", ended.err);
    let bad = world.file("bad.toml", &PROFILE.replace("version = 1", "verison = 1\nx = 2"));
    let ended = world.run(&["config", "apply", &bad, "--yes"]);
    assert_eq!(ended.code, 2, "{}", ended.err);
    assert!(ended.err.contains("bad.toml:4:1") && ended.err.contains("bad.toml:5:1"), "{}", ended.err);
    world.state(|state| assert!(state.documents.is_empty()));
}

#[test]
fn a_diff_names_each_value_that_apply_would_change() {
    let world = World::signed_in();
    let profile = world.file("profile.toml", PROFILE);
    let run = |more: &[&str]| world.run(&[&["config", "diff", &profile], more].concat());
    let ended = run(&["--detailed-exitcode"]);
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (20, "created profile edge\n1 of 1 document would change\n")
    );
    assert_eq!(world.run(&["config", "apply", &profile, "--yes"]).code, 0);
    let ended = run(&["--detailed-exitcode"]);
    let unchanged = "unchanged profile edge, revision 1\n0 of 1 document would change\n";
    assert_eq!((ended.code, ended.out.as_str()), (0, unchanged), "{}", ended.err);
    // Comments and layout are not what is signed.
    world.file("profile.toml", &format!("# new\n{}", PROFILE.replace(" = ", "=")));
    assert_eq!(run(&[]).out, unchanged);
    let other = PROFILE.replace("warn = 4\n", "warn = \"cores * 2\"\n").replace("title = \"Load\"\n", "");
    world.file("profile.toml", &other.replace("changes = true", "changes = true\nrun_as = \"edge\""));
    let ended = run(&[]);
    let expected = "updated profile edge, now revision 1\n  - check.load.title: \"Load\"\n  ~ check.load.warn: 4 -> \"cores * 2\"\n  + command.set.run_as: \"edge\"\n1 of 1 document would change\n";
    assert_eq!((ended.code, ended.out.as_str()), (0, expected), "{}", ended.err);
    assert_eq!(
        run(&["-o", "jsonpath=.items[0].changes[*].path"]).out,
        "check.load.title\ncheck.load.warn\ncommand.set.run_as\n"
    );
    assert_eq!(run(&["-o", "name"]).out, "profile/edge\n");
    world.file("profile.toml", &PROFILE.replace("every", "evry"));
    assert_eq!(run(&[]).code, 2);
    world.state(|state| assert_eq!(state.documents.len(), 1));
}
