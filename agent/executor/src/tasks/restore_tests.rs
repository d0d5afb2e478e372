//! Tests of restores over real files: what comes back, what is left alone, what is refused, and every way back.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use fleet_types::digest::Digest;
use fleet_types::id::RunId;

use super::archive::{Label, Manifest, Member};
use super::restore_stage::STAGE;
use super::testing::{Bench, With};
use super::{TaskError, restore_stage};
use crate::host::scripted::Answer;
use crate::host::{Exit, FileProblem, Host};

const PROFILE: &str = r#"
    [backup.config]
    kind = "files"
    sources = ["/etc/edgefw", "/opt/fw*.conf"]
    exclude = ["/etc/edgefw/cache/**"]
    directory = "/var/backups"
    file_name = "config-{timestamp}.tar.gz"
    keep = { days = 30 }
"#;
const LATEST: &str = r#"{"backup":"config","date":"latest"}"#;

#[test]
fn a_file_with_holes_costs_what_its_data_costs() {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    let mut bench = Bench::new(PROFILE);
    bench.file("/etc/edgefw/state.db", b"head");
    let path = bench.at("/etc/edgefw/state.db");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"middle", 40 << 20).unwrap();
    file.set_len(64 << 20).unwrap();
    let content = Digest::of(&std::fs::read(&path).unwrap());
    let with = bench.with(r#"{"backup":"config"}"#);
    let plan = bench.plan("backup.run", &with).unwrap();
    assert!(plan.summary.contains("of them holes"), "{}", plan.summary);
    // Far less room than its length: for the archive, and for the file when it comes back.
    bench.host.script().space = Some(crate::host::Space { total: 1 << 30, available: 1 << 20, used: 0 });
    bench.apply("backup.run", &with).unwrap();
    bench.step.run = RunId::from_number(8);
    std::fs::write(&path, b"gone").unwrap();
    bench.apply("backup.restore", &bench.with(LATEST)).unwrap();
    let back = std::fs::metadata(&path).unwrap();
    assert_eq!(Digest::of(&std::fs::read(&path).unwrap()), content);
    assert!(
        back.len() == 64 << 20 && back.blocks() * 512 < 1 << 20,
        "{} bytes on the disk",
        back.blocks() * 512
    );
}

/// A node with a backup, of which much has changed since.
fn changed() -> (Bench, Tree) {
    let mut bench = Bench::new(PROFILE);
    bench.file("/etc/edgefw/firewall.json", b"good");
    bench.file("/etc/edgefw/rules/a.rule", b"a");
    bench.file("/etc/edgefw/rules/b.rule", b"b");
    bench.file("/etc/edgefw/cache/c", b"cache");
    bench.file("/opt/fw1.conf", b"one");
    symlink("firewall.json", bench.at("/etc/edgefw/current")).unwrap();
    mode(&bench, "/etc/edgefw/firewall.json", 0o640);
    let with = bench.with(r#"{"backup":"config"}"#);
    bench.apply("backup.run", &with).unwrap();
    bench.step.run = RunId::from_number(8);
    let archived = tree(&bench);
    bench.file("/etc/edgefw/firewall.json", b"bad");
    mode(&bench, "/etc/edgefw/firewall.json", 0o600);
    std::fs::remove_dir_all(bench.at("/etc/edgefw/rules")).unwrap();
    bench.file("/etc/edgefw/extra/deep/x", b"extra");
    bench.file("/etc/edgefw/cache/d", b"later");
    std::fs::remove_file(bench.at("/opt/fw1.conf")).unwrap();
    bench.file("/opt/fw2.conf", b"two");
    bench.file("/opt/other", b"other");
    (bench, archived)
}

fn mode(bench: &Bench, path: &str, mode: u32) {
    std::fs::set_permissions(bench.at(path), std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Every path below the two folders with mode and content; what restores set aside only where it is asked for.
type Tree = BTreeMap<PathBuf, (u32, String)>;

fn tree(bench: &Bench) -> Tree {
    fn go(folder: &std::path::Path, tree: &mut Tree) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with(STAGE) {
                continue;
            }
            let stat = std::fs::symlink_metadata(&path).unwrap();
            let content =
                if stat.is_file() { std::fs::read_to_string(&path).unwrap() } else { String::new() };
            tree.insert(path.clone(), (stat.permissions().mode() & 0o7777, content));
            if stat.is_dir() {
                go(&path, tree);
            }
        }
    }
    let mut tree = Tree::new();
    go(&bench.at("/etc"), &mut tree);
    go(&bench.at("/opt"), &mut tree);
    tree
}

fn stages(bench: &Bench) -> Vec<String> {
    let both = [bench.names("/etc"), bench.names("/opt")].concat();
    both.into_iter().filter(|name| name.starts_with(STAGE)).collect()
}

#[test]
fn what_was_archived_is_there_again_and_the_rest_is_left_alone() {
    let (bench, archived) = changed();
    let with = bench.with(LATEST);
    let before = tree(&bench);
    let plan = bench.plan("backup.restore", &with).unwrap();
    assert_eq!(tree(&bench), before, "a plan only reads");
    assert!(stages(&bench).is_empty());
    let undo = bench.undo("backup.restore", &with).unwrap();
    let report = bench.apply("backup.restore", &with).unwrap();
    assert_eq!(report.changes, plan.changes, "what the plan said");
    let after = tree(&bench);
    for (path, was) in &archived {
        assert_eq!(after.get(path), Some(was), "{}", path.display());
    }
    for left in ["/etc/edgefw/extra/deep/x", "/opt/fw2.conf", "/opt/other", "/etc/edgefw/cache/d"] {
        assert_eq!(after.get(&bench.at(left)), before.get(&bench.at(left)), "{left}");
    }
    // The same once more changes nothing, under another name of the step.
    let mut bench = bench;
    bench.step.step = "again".to_owned();
    let report = bench.apply("backup.restore", &with).unwrap();
    assert!(report.changes.is_empty() && report.summary.ends_with("all is as it was archived"), "{report:?}");
    // And back, twice.
    for _ in 0..2 {
        bench.revert("backup.restore", &with, &undo).unwrap();
        assert_eq!(tree(&bench), before);
    }
}

#[test]
fn recreate_leaves_what_was_archived_and_what_no_backup_holds() {
    let (bench, archived) = changed();
    let with = bench.with(r#"{"backup":"config","date":"latest","mode":"recreate"}"#);
    let before = tree(&bench);
    let undo = bench.undo("backup.restore", &with).unwrap();
    bench.apply("backup.restore", &with).unwrap();
    let mut expected = archived;
    for kept in ["/opt/other", "/etc/edgefw/cache/d"] {
        expected.insert(bench.at(kept), before[&bench.at(kept)].clone());
    }
    assert_eq!(tree(&bench), expected);
    bench.revert("backup.restore", &with, &undo).unwrap();
    assert_eq!(tree(&bench), before);
}

#[test]
fn w05_what_is_not_valid_is_never_put_in_place() {
    let (mut bench, archived) = changed();
    bench.profile = toml::from_str(&format!(
        "schema = \"fleet/v1\"\nname = \"edge\"\nversion = 1\n{PROFILE}{}",
        r#"
        [validator.main]
        kind = "json"
        path = "/etc/edgefw/firewall.json"
        [validator.rules]
        kind = "toml"
        paths = ["/etc/edgefw/rules/*.rule"]
        [validator.others]
        kind = "json"
        paths = ["/etc/edgefw/cache/*", "/opt/other"]
        [command.check]
        argv = ["edgefw-cli", "--file", "/etc/edgefw/firewall.json"]
        timeout = "5s"
        changes = false
        [validator.product]
        kind = "command"
        command = "check"
        path = "/etc/edgefw/firewall.json"
        [validator.there]
        kind = "file_exists"
        path = "/etc/edgefw/firewall.json"
        "#
    ))
    .unwrap();
    let with = |ids: &str| bench.with(&LATEST.replace('}', &format!(r#","validators":[{ids}]}}"#)));
    let before = tree(&bench);
    let (message, report) = bench.failure("backup.restore", &with(r#""main","rules""#));
    assert!(message.contains("not valid by main, rules; nothing was put in place"), "{message}");
    let subjects: Vec<_> = report.problems.iter().map(|p| p.subject.as_str()).collect();
    assert_eq!(
        subjects,
        ["/etc/edgefw/firewall.json:1", "/etc/edgefw/rules/a.rule:1", "/etc/edgefw/rules/b.rule:1"],
        "where they were to be"
    );
    assert_eq!(tree(&bench), before);
    assert!(stages(&bench).is_empty());
    // The product's own checker is shown the file that is yet to be put in place.
    bench.host.answer(
        "edgefw-cli",
        [Answer::Ends(Exit::Status(1), "rule 7".into()), Answer::Ends(Exit::Status(0), String::new())],
    );
    let (_, report) = bench.failure("backup.restore", &with(r#""product""#));
    assert_eq!(report.problems[0].evidence, "rule 7");
    let shown = bench.host.script().started[0][2].clone();
    assert!(shown.starts_with("/etc/.fleet-restore-") && shown.contains("/new-"), "{shown}");
    assert_eq!(tree(&bench), before);
    let error = bench.apply("backup.restore", &with(r#""there""#)).unwrap_err();
    assert!(error.to_string().contains("looks at what is in place"), "{error}");
    // What is put nowhere is nobody's candidate.
    bench.apply("backup.restore", &with(r#""product","others""#)).unwrap();
    let after = tree(&bench);
    assert!(archived.iter().all(|(path, was)| after.get(path) == Some(was)));
}

#[test]
fn a_part_alone_is_restored_and_one_that_is_none_is_refused() {
    let (bench, archived) = changed();
    let before = tree(&bench);
    let with = bench.with(r#"{"backup":"config","date":"latest","only":["edgefw/rules"]}"#);
    bench.apply("backup.restore", &with).unwrap();
    let after = tree(&bench);
    assert_eq!(after[&bench.at("/etc/edgefw/rules/a.rule")], archived[&bench.at("/etc/edgefw/rules/a.rule")]);
    assert_eq!(after[&bench.at("/etc/edgefw/firewall.json")], before[&bench.at("/etc/edgefw/firewall.json")]);
    for (only, why) in
        [("/etc/passwd", "is no source of backup config"), ("edgefw/none", "holds nothing of what")]
    {
        let with = bench.with(&format!(r#"{{"backup":"config","date":"latest","only":["{only}"]}}"#));
        let (mut bench, _) = changed();
        bench.step.step = "other".to_owned();
        let error = bench.apply("backup.restore", &with).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn a_restore_that_breaks_anywhere_leaves_what_was_there() {
    let paths =
        ["/etc/edgefw/firewall.json", "/etc/edgefw/rules/b.rule", "/opt/fw1.conf", "/etc/edgefw/rules"];
    for operation in ["rename", "dress"] {
        for path in paths {
            let (bench, _) = changed();
            let before = tree(&bench);
            let with = bench.with(LATEST);
            bench.host.fail(operation, path, FileProblem::Other);
            let outcome = bench.apply("backup.restore", &with);
            if operation == "rename" || path.ends_with("rules") {
                assert!(outcome.is_err(), "{operation} {path}");
                // What is in the way of a way back as well is told; healed, the way back of the job does the rest.
                bench.host.heal();
                let undo = bench.undo("backup.restore", &with).unwrap();
                bench.revert("backup.restore", &with, &undo).unwrap();
                assert_eq!(tree(&bench), before, "{operation} {path}");
                assert!(stages(&bench).is_empty(), "{operation} {path}");
            }
        }
    }
    // A disk that is full while it unpacks.
    let (bench, _) = changed();
    let before = tree(&bench);
    bench.host.script().disk_left = Some(3);
    let (message, _) = bench.failure("backup.restore", &bench.with(LATEST));
    assert!(message.contains("write"), "{message}");
    assert_eq!(tree(&bench), before);
    assert!(stages(&bench).is_empty());
}

#[test]
fn a_restore_that_died_after_any_move_is_carried_on_or_taken_back() {
    let with = |bench: &Bench| bench.with(r#"{"backup":"config","date":"latest","mode":"recreate"}"#);
    let count = {
        let (bench, _) = changed();
        bench.plan("backup.restore", &with(&bench)).unwrap().changes.len()
    };
    assert!(count > 6, "{count}");
    let whole = {
        let (bench, _) = changed();
        bench.apply("backup.restore", &with(&bench)).unwrap();
        tree(&bench).into_values().collect::<Vec<_>>()
    };
    for carry_on in [true, false] {
        for moves in 0..=count {
            let (bench, _) = changed();
            let before = tree(&bench);
            let with = with(&bench);
            let undo = bench.undo("backup.restore", &with).unwrap();
            let context = bench.context(&with);
            let steps = super::backup_restore::staged_for_tests(&context);
            assert_eq!(steps.len(), count);
            restore_stage::carry_out(bench.host.files(), &steps[..moves]).unwrap();
            if carry_on {
                bench.apply("backup.restore", &with).unwrap();
                assert_eq!(tree(&bench).into_values().collect::<Vec<_>>(), whole, "after {moves}");
            }
            bench.revert("backup.restore", &with, &undo).unwrap();
            assert_eq!(tree(&bench), before, "after {moves}");
            assert!(stages(&bench).is_empty());
        }
    }
}

/// An archive of our own making whose manifest fits it, with one member of this name, kind and mode after a good one.
fn hostile(bench: &Bench, name: &[u8], kind: tar::EntryType, mode: u32) {
    let step = &bench.step;
    let label = Label::new("config", "t", step.run, step.node, step.job_started);
    let mut tar = tar::Builder::new(Vec::new());
    let mut members = Vec::new();
    for (name, kind, mode) in
        [(b"etc/edgefw/good".as_slice(), tar::EntryType::Regular, 0o600), (name, kind, mode)]
    {
        let content = if kind.is_file() { b"evil".as_slice() } else { b"" };
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        if kind.is_symlink() || kind.is_hard_link() {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        tar.append(&header, content).unwrap();
        members.push(Member {
            path: format!("/{}", String::from_utf8_lossy(name).trim_end_matches('/')),
            raw_path: None,
            kind: if kind.is_file() { "file" } else { "directory" }.to_owned(),
            size: content.len() as u64,
            mode,
            uid: 0,
            gid: 0,
            sha256: kind.is_file().then(|| Digest::of(content)),
            target: None,
            attributes: Vec::new(),
            same_as: None,
        });
    }
    let manifest =
        serde_json::to_vec(&Manifest { label: label.clone(), members, left_out: Vec::new() }).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(manifest.len() as u64);
    header.set_mode(0o600);
    header.set_cksum();
    tar.append_data(&mut header, "manifest.json", manifest.as_slice()).unwrap();
    let comment = serde_json::to_vec(&label).unwrap();
    let mut gzip = flate2::GzBuilder::new().comment(comment).write(Vec::new(), flate2::Compression::new(1));
    gzip.write_all(&tar.into_inner().unwrap()).unwrap();
    bench.file("/var/backups/config-20251122T140211Z.tar.gz", &gzip.finish().unwrap());
}

#[test]
fn t37_a_hostile_archive_writes_nothing() {
    use tar::EntryType as T;
    let cases: [(&[u8], T, u32, &str); 11] = [
        (b"../etc/passwd", T::Regular, 0o600, "no plain path"),
        (b"etc/edgefw/../../root/x", T::Regular, 0o600, "no plain path"),
        (b"/etc/edgefw/x", T::Regular, 0o600, "no plain path"),
        (b"etc/passwd", T::Regular, 0o600, "outside of the declared sources"),
        (b"etc/edgefw/link", T::Symlink, 0o777, "no regular file and no folder"),
        (b"etc/edgefw/hard", T::Link, 0o600, "no regular file and no folder"),
        (b"etc/edgefw/device", T::Block, 0o600, "no regular file and no folder"),
        (b"etc/edgefw/pipe", T::Fifo, 0o600, "no regular file and no folder"),
        (b"etc/edgefw/suid", T::Regular, 0o4755, "setuid"),
        (b"etc/edgefw/good", T::Regular, 0o600, "twice"),
        (b"etc/edgefw/good/below", T::Regular, 0o600, "below a file"),
    ];
    for (name, kind, mode, why) in cases {
        let bench = Bench::new(PROFILE);
        bench.file("/etc/passwd", b"root");
        bench.file("/etc/edgefw/x", b"there");
        std::fs::create_dir_all(bench.at("/opt")).unwrap();
        hostile(&bench, name, kind, mode);
        let before = tree(&bench);
        let (message, report) = bench.failure("backup.restore", &bench.with(LATEST));
        assert!(message.contains(why), "{}: {message}", String::from_utf8_lossy(name));
        assert_eq!(report.problems[0].code, "damaged_backup");
        assert_eq!(tree(&bench), before);
        assert!(stages(&bench).is_empty());
        assert!(bench.plan("backup.restore", &bench.with(LATEST)).is_err(), "the plan says so already");
    }
}

#[test]
fn no_link_leads_a_restore_away() {
    let (bench, _) = changed();
    std::fs::create_dir_all(bench.at("/srv/keys")).unwrap();
    symlink(bench.at("/srv/keys"), bench.at("/etc/edgefw/rules")).unwrap();
    let with: With = bench.with(LATEST);
    let before = tree(&bench);
    let error = bench.apply("backup.restore", &with).unwrap_err();
    assert!(matches!(&error, TaskError::Failed { message, .. } if message.contains("link")), "{error}");
    assert!(bench.names("/srv/keys").is_empty());
    assert_eq!(tree(&bench), before);
    // A link in a file's own place is set aside as it is, and what it points at is left alone.
    std::fs::remove_file(bench.at("/etc/edgefw/rules")).unwrap();
    std::fs::remove_file(bench.at("/etc/edgefw/firewall.json")).unwrap();
    bench.file("/srv/secret", b"secret");
    symlink(bench.at("/srv/secret"), bench.at("/etc/edgefw/firewall.json")).unwrap();
    bench.apply("backup.restore", &with).unwrap();
    assert_eq!(std::fs::read(bench.at("/srv/secret")).unwrap(), b"secret");
    assert_eq!(std::fs::read(bench.at("/etc/edgefw/firewall.json")).unwrap(), b"good");
}
