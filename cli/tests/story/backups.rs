//! Archives compared: by the listings that nodes printed, and never by half of one.

use fleet_types::digest::Digest;
use fleet_types::id::RunId;
use fleet_types::listing::{self, Entry, EntryKind};
use fleet_types::report::{Artifact, StepReport};
use fleet_types::time::Timestamp;
use fleet_types::view::{BackupItem, CopyItem};

use crate::fixtures::{self, HOSTILE, is_harmless};
use crate::world::World;

const OLDER: &[u8] = b"older";
const NEWER: &[u8] = b"newer";
/// A day in milliseconds.
const DAY: i64 = 86_400_000;
/// The 25th of November 2026.
const FIRST: i64 = 1_795_564_800_000;

fn file(path: &str, mode: &str, content: &str) -> Entry {
    Entry {
        kind: EntryKind::File,
        mode: Some(mode.into()),
        owner: Some("0:0".into()),
        size: content.len() as u64,
        sha256: Some(Digest::of(content.as_bytes())),
        path: path.into(),
        target: None,
    }
}

#[allow(clippy::ptr_arg, reason = "as the script wants it")]
fn name_archives(steps: &mut Vec<StepReport>) {
    for (id, archive) in [("older", OLDER), ("newer", NEWER)] {
        if let Some(step) = steps.iter_mut().find(|step| step.id == id) {
            step.body.artifacts = vec![Artifact {
                kind: "backup".into(),
                name: "config".into(),
                path: "/var/backups/x.tar.gz".into(),
                size: 1,
                sha256: Digest::of(archive),
                made: Timestamp::clamped(0),
                tag: String::new(),
                verified: true,
                copy: None,
            }];
        }
    }
}

/// Two archives of fw-1, a day apart, and one of fw-2 that is as its newer one; each listed in a step.
fn world() -> World {
    let world = World::signed_in();
    let older = [
        file("/etc/gone", "0640", "x"),
        file("/etc/mode", "0644", "m"),
        file("/etc/same", "0644", "s"),
        file("/etc/text", "0644", "before"),
    ];
    let newer = [
        file(&format!("/etc/new {HOSTILE}"), "0600", "n"),
        file("/etc/mode", "0600", "m"),
        file("/etc/same", "0644", "s"),
        file("/etc/text", "0644", "after!"),
    ];
    world.state(|state| {
        let of = |node: usize, archive: &[u8], made| BackupItem {
            sha256: Digest::of(archive),
            made: Timestamp::clamped(FIRST + made),
            ..fixtures::backups().remove(node)
        };
        state.backups = vec![of(0, NEWER, 3 * DAY), of(0, OLDER, 2 * DAY), of(1, NEWER, 3 * DAY)];
        let listed = |archive, entries: &[Entry]| listing::write(Digest::of(archive), entries).into_bytes();
        state.output = vec![("older".into(), listed(OLDER, &older)), ("newer".into(), listed(NEWER, &newer))];
        state.edit_report = name_archives;
    });
    world
}

#[test]
fn an_archive_is_compared_with_the_one_before_it() {
    let world = world();
    let ended = world.run(&["backup", "diff", "fw-1/config"]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{}", ended.err);
    assert!(is_harmless(&ended.out), "{}", ended.out);
    for line in [
        "from fw-1/config, 2026-11-27 00:00:00",
        "to   fw-1/config, 2026-11-28 00:00:00",
        "  - /etc/gone (file, 1 B, 0640, 0:0)",
        "  ~ /etc/mode: mode 0644 -> 0600\n",
        "  + /etc/new ",
        "  ~ /etc/text: content ",
        "1 added, 1 gone, 2 changed; 1 entry is the same",
    ] {
        assert!(ended.out.contains(line), "{line}: {}", ended.out);
    }
    let json = world.run(&["backup", "diff", "fw-1/config", "-o", "json", "--detailed-exitcode"]);
    assert_eq!(json.code, 20, "{}", json.err);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(value["schema"], "fleet/v1/backup-diff");
    let counts: Vec<_> = ["added", "gone", "changed", "same"].map(|key| value[key].as_u64().unwrap()).into();
    assert_eq!(counts, [1, 1, 2, 1]);
    let text = value["items"].as_array().unwrap().iter().find(|item| item["path"] == "/etc/text").unwrap();
    assert_eq!((&text["action"], &text["differs"]), (&"changed".into(), &serde_json::json!(["content"])));
    assert_eq!(text["before"]["sha256"], Digest::of(b"before").to_string());
}

#[test]
fn archives_of_two_nodes_and_of_two_days_are_compared() {
    let world = world();
    let args = ["backup", "diff", "fw-1/config", "fw-2/config", "--detailed-exitcode"];
    let same = world.run(&args);
    assert_eq!(same.code, 0, "{}", same.err);
    assert!(same.out.ends_with("no difference; 4 entries are the same\n"), "{}", same.out);
    let digest = Digest::of(NEWER).to_string();
    for newer in ["fw-1/config@2026-11-28", "fw-2/config@20261128", &format!("fw-1/config@{}", &digest[..12])]
    {
        let ended = world.run(&["backup", "diff", newer, "fw-1/config@2026-11-27", "-o", "name"]);
        assert_eq!(ended.code, 0, "{newer}: {}", ended.err);
        assert!(ended.out.contains("/etc/gone\n/etc/mode\n/etc/new"), "{newer}: {}", ended.out);
    }
}

#[test]
fn what_cannot_be_compared_says_why_and_what_to_do() {
    let world = world();
    for (args, code, word) in [
        (&["fw-1"][..], 2, "names no archive"),
        (&["fw-9/config"], 4, "no archive of \"fw-9/config\" is known"),
        (&["fw-1/database"], 4, "there are: fw-1/config"),
        (&["fw-1/config@2026-11-29"], 4, "there is no archive \"fw-1/config@2026-11-29\""),
        (&["fw-2/config"], 4, "no archive before it"),
    ] {
        let ended = world.run(&[&["backup", "diff"], args].concat());
        assert_eq!((ended.code, ended.out.as_str()), (code, ""), "{args:?}: {}", ended.err);
        assert!(ended.err.contains(word), "{args:?}: {}", ended.err);
    }
    let anew = "fleetctl run task backup.verify --node fw-1 --with backups=config --with date=20261127 \
                --with listing=true";
    let refused = |code, word: &str| {
        let ended = world.run(&["backup", "diff", "fw-1/config"]);
        assert_eq!((ended.code, ended.out.as_str()), (code, ""), "{}", ended.err);
        assert!(ended.err.contains(word) && ended.err.contains(anew), "{}", ended.err);
    };
    // It is another text than the node has signed.
    world.state(|state| {
        state.edit_report = |steps| {
            name_archives(steps);
            steps
                .iter_mut()
                .filter(|step| step.id == "older")
                .for_each(|step| step.output = Some(Digest::of(b"")));
        };
    });
    refused(12, "does not match the report");
    // The node said in time that it is too long; or an agent of before listed nothing.
    let many = vec![file("/etc/a", "0644", "a"); 20_000];
    world.state(|state| {
        state.edit_report = name_archives;
        state.output[0].1 = listing::write(Digest::of(OLDER), &many).into_bytes();
    });
    refused(4, "too long to be kept: it has 20000 entries");
    world.state(|state| state.output.retain(|(step, _)| step != "older"));
    refused(4, &format!("{} did not list it", RunId::from_number(5)));
}

#[test]
fn z04_a_copy_is_fetched_whole_or_not_at_all() {
    const COPY: &[u8] = b"age-encryption.org/v1 and what follows";
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fw-1.age");
    let to = file.to_str().unwrap();
    let fetch = || world.run(&["backup", "fetch", "fw-1/config", "--to", to]);
    let with = |copy: Option<CopyItem>, bytes: &[u8]| {
        world.state(|state| {
            state.backups[0].copy = copy;
            state.copies = [(Digest::of(NEWER).as_bytes().to_vec(), bytes.to_vec())].into();
        });
    };
    let copy = CopyItem {
        size: COPY.len() as u64,
        sha256: Digest::of(COPY),
        stored: Some(Timestamp::clamped(0)),
        gone: None,
    };
    for (copy, why) in [
        (None, "declares none"),
        (Some(CopyItem { stored: None, ..copy.clone() }), "waits on its node"),
        (Some(CopyItem { gone: copy.stored, ..copy.clone() }), "given up by the retention"),
    ] {
        with(copy, COPY);
        let ended = fetch();
        assert_eq!((ended.code, ended.err.contains(why)), (4, true), "{}", ended.err);
    }
    // Damaged where it lies, or longer than it says.
    for bytes in [&b"age-encryption.org/v1 and what is wrong"[..], &[COPY, b"x"].concat(), &COPY[1..]] {
        with(Some(copy.clone()), bytes);
        let ended = fetch();
        assert_eq!((ended.code, ended.err.contains("is damaged")), (12, true), "{}", ended.err);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing stays");
    }
    with(Some(copy), COPY);
    let ended = fetch();
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{}", ended.err);
    assert!(ended.out.contains(&format!("age --decrypt -i KEY -o ARCHIVE {to}")), "{}", ended.out);
    assert_eq!(std::fs::read(&file).unwrap(), COPY);
    let again = fetch();
    assert_eq!((again.code, again.err.contains("is there already")), (2, true), "{}", again.err);
    let wide = world.run(&["backup", "list", "-o", "wide"]);
    assert!(wide.out.contains("stored"), "{}", wide.out);
}
