//! Imports as mirrors have them: real advisories, archives, and everything that can be wrong with a file.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::collections::BTreeMap;
use std::io::{Cursor, Write as _};
use std::path::PathBuf;

use fleet_advisories::advisory::{Distribution, End};
use fleet_advisories::import::{Imported, Importer, Limits};
use zip::write::SimpleFileOptions;

/// The shared test data lie beside the workspace, or where the variable says; they may be missing.
fn shared(path: &str) -> Option<PathBuf> {
    let data = std::env::var_os("FLEET_SHARED_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
        PathBuf::from,
    );
    let path = data.join(path);
    if path.exists() {
        return Some(path);
    }
    eprintln!("NOT TESTED: {} is not there; set FLEET_SHARED_DATA", path.display());
    None
}

fn import(files: &[(&str, &[u8])]) -> Result<Imported, Vec<String>> {
    let mut importer = Importer::default();
    for (name, bytes) in files {
        importer.file(name, bytes);
    }
    importer
        .finish()
        .map_err(|refused| refused.0.iter().map(|one| format!("{}: {}", one.file, one.reason)).collect())
}

fn document(id: &str, modified: &str, fixed: &str) -> Vec<u8> {
    format!(
        r#"{{"id":"{id}","modified":"{modified}","aliases":["CVE-2024-0001"],"affected":[{{"package":{{
        "ecosystem":"Debian:12","name":"nginx"}},"ranges":[{{"type":"ECOSYSTEM","events":[{{"introduced":"0"}},
        {{"fixed":"{fixed}"}}]}}]}}]}}"#
    )
    .into_bytes()
}

fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for (name, bytes) in files {
        archive.start_file(*name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

const DAY: &str = "2024-10-24T00:00:00Z";

#[test]
fn every_real_document_is_read_and_scored_as_the_index_says() {
    let Some(folder) = shared("advisories") else { return };
    let mut importer = Importer::default();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.join("osv")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        importer.file(&name, &std::fs::read(&path).unwrap());
        names.push(name);
    }
    for name in ["cve_scores.jsonl", "kev_subset.json"] {
        importer.file(name, &std::fs::read(folder.join(name)).unwrap());
    }
    let Imported { set, files, skipped } = importer.finish().unwrap();
    assert_eq!((files, set.advisories.len(), set.exploited.len()), (306, 304, 236));
    let by_file: BTreeMap<&str, _> =
        set.advisories.values().map(|advisory| (advisory.file.as_str(), advisory)).collect();
    let mut index = BTreeMap::new();
    for row in std::fs::read_to_string(folder.join("index.csv")).unwrap().lines().skip(1) {
        let fields: Vec<&str> = row.split(',').collect();
        let advisory = by_file[fields[0]];
        assert_eq!(advisory.cves.len().to_string(), fields[3], "{row}");
        let score = set.score_of(advisory).map(|(_, scored)| scored);
        assert_eq!(score.map(|scored| scored.score.to_string()).unwrap_or_default(), fields[4], "{row}");
        let band = score.map_or("unknown", |scored| scored.band().as_str());
        assert_eq!(band, fields[5].to_lowercase(), "{row}");
        assert_eq!(set.exploited_of(advisory).is_some(), fields[7] == "yes", "{row}");
        *index.entry(band).or_insert(0) += 1;
    }
    assert_eq!(index.values().sum::<i32>(), 304);
    // What was not used is said: those for no package manager, and the three whose assigner states another number.
    let count = |part: &str| {
        skipped.iter().filter(|one| one.reason.contains(part)).map(|one| one.count).sum::<usize>()
    };
    assert_eq!(count("packages of Bitnami"), 95, "{skipped:#?}");
    assert_eq!(count("the stated number is not the vector's"), 3, "{skipped:#?}");
    assert_eq!(skipped.iter().map(|one| one.count).sum::<usize>(), 98, "{skipped:#?}");
}

#[test]
fn an_archive_and_a_folder_give_the_same() {
    let (a, b) = (document("A-1", DAY, "1.0-1"), document("B-1", DAY, "2.0-1"));
    let folder = import(&[("a.json", &a), ("b.json", &b)]).unwrap();
    let archive = import(&[("all.zip", &zip(&[("a.json", &a), ("b.json", &b)]))]).unwrap();
    assert_eq!((folder.files, archive.files), (2, 3));
    let without_files = |imported: Imported| {
        imported.set.advisories.into_values().map(|one| (one.id, one.affected)).collect::<Vec<_>>()
    };
    let folder = without_files(folder);
    assert_eq!(folder, without_files(archive));
    assert_eq!(folder[0].1[0].distribution, Distribution::of_node("debian", "12"));
    assert_eq!(folder[0].1[0].ranges[0].end, End::Fixed("1.0-1".to_owned()));
}

#[test]
fn an_import_is_whole_or_nothing() {
    let good = document("A-1", DAY, "1.0-1");
    let truncated = &good[..good.len() - 7];
    for (name, bytes, told) in [
        ("cut.json", truncated.to_vec(), "EOF while parsing"),
        ("empty.json", Vec::new(), "the file is empty"),
        ("text.json", b"<html>".to_vec(), "it is none of"),
        (
            "id.json",
            br#"{"id":"A\n1","modified":"2024-10-24T00:00:00Z"}"#.to_vec(),
            "id holds the character '\\n'",
        ),
        (
            "twice.json",
            br#"{"id":"A-2","id":"A-3","modified":"2024-10-24T00:00:00Z"}"#.to_vec(),
            "duplicate field `id`",
        ),
        (
            "time.json",
            br#"{"id":"A-2","modified":"yesterday"}"#.to_vec(),
            "modified: \"yesterday\" is not a time",
        ),
        ("never.json", br#"{"id":"A-2"}"#.to_vec(), "missing field `modified`"),
        ("deep.json", [b"{\"id\":".to_vec(), b"[".repeat(100_000)].concat(), "EOF while parsing"),
        ("cut.zip", zip(&[("a.json", &good)])[..60].to_vec(), "not a whole zip"),
        ("zip.zip", zip(&[("in.zip", &zip(&[("a.json", &good)]))]), "an archive within an archive"),
        ("bad.zip", zip(&[("a.json", b"{}x")]), "at line 1 column 3"),
        (
            "kev.json",
            br#"{"catalogVersion":"1","count":2,"vulnerabilities":[]}"#.to_vec(),
            "says that it has 2 entries",
        ),
    ] {
        let refused = import(&[("good.json", &good), (name, &bytes)]).unwrap_err();
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].starts_with(name) && refused[0].contains(told), "{refused:?}");
    }
    assert_eq!(import(&[]).unwrap_err(), [": there is no file to import"]);
}

#[test]
fn a_bomb_is_refused_before_it_fills_the_memory() {
    let zeroes = vec![b' '; 3 << 20];
    let limits = Limits { file_bytes: 1 << 20, ..Limits::default() };
    for bomb in [zip(&[("a.json", &zeroes)]), gzip(&zeroes)] {
        assert!(bomb.len() < 8192);
        let mut importer = Importer::new(limits);
        importer.file("bomb", &bomb);
        let refused = importer.finish().unwrap_err();
        assert!(refused.0[0].reason.contains("more than the 1048576 bytes"), "{refused:?}");
    }
    // Many small ones are one large one.
    let mut importer = Importer::new(Limits { total_bytes: 2 << 20, ..Limits::default() });
    importer.file(
        "bomb.zip",
        &zip(&[("a", &zeroes[..1 << 20]), ("b", &zeroes[..1 << 20]), ("c", &zeroes[..1 << 20])]),
    );
    let refused = importer.finish().unwrap_err();
    assert!(refused.0.iter().any(|one| one.reason.contains("that are left to read")), "{refused:?}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn of_two_forms_the_later_counts_and_a_contradiction_is_refused() {
    let (older, newer) = (document("A-1", DAY, "1.0-1"), document("A-1", "2024-11-01T00:00:00Z", "1.0-2"));
    for files in [[("old", older.as_slice()), ("new", &newer)], [("new", newer.as_slice()), ("old", &older)]]
    {
        let imported = import(&files).unwrap();
        assert_eq!(imported.set.advisories["A-1"].affected[0].ranges[0].fixed(), Some("1.0-2"));
        assert_eq!(imported.skipped[0].reason, "a later form of the same advisory is there");
    }
    let twice = import(&[("a", &older), ("b", &older)]).unwrap();
    assert_eq!((twice.set.advisories.len(), twice.skipped[0].count), (1, 1));
    let other = document("A-1", DAY, "9.0-1");
    let refused = import(&[("a", &older), ("b", &other)]).unwrap_err();
    assert_eq!(refused, ["b: A-1 contradicts a: both were modified at the same time, and they differ"]);
}

#[test]
fn a_list_twice_is_one_list_and_two_that_differ_are_refused() {
    let list = |day: &str| {
        format!(
            r#"{{"catalogVersion":"1","count":1,"vulnerabilities":[{{"cveID":"CVE-2024-3094","dateAdded":"{day}",
            "knownRansomwareCampaignUse":"Known"}}]}}"#
        )
    };
    let (one, other) = (list("2024-04-01"), list("2024-04-02"));
    let twice = import(&[("a", one.as_bytes()), ("b", one.as_bytes())]).unwrap();
    assert!(twice.set.exploited.values().all(|listed| listed.ransomware) && twice.set.exploited.len() == 1);
    let refused = import(&[("a", one.as_bytes()), ("b", other.as_bytes())]).unwrap_err();
    assert_eq!(refused, ["b: CVE-2024-3094 is there twice, and the two differ"]);
}

#[test]
fn what_cannot_be_used_is_said_with_its_place_and_the_rest_counts() {
    let document = br#"{"id":"X-1","modified":"2024-10-24T00:00:00Z","severity":[{"type":"CVSS_V3","score":"9.8"}],"affected":[
        {"package":{"ecosystem":"Gentoo","name":"a"},"ranges":[]},
        {"package":{"ecosystem":"Debian:12","name":"b"},"ranges":[{"type":"GIT","events":[{"introduced":"0"}]}]},
        {"package":{"ecosystem":"Debian:12","name":"c"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"x1"}]}]},
        {"package":{"ecosystem":"Debian:12","name":"d"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"2"},{"fixed":"1"}]}]},
        {"package":{"ecosystem":"Debian:12","name":"e"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"}]}]}]}"#;
    let imported = import(&[("x.json", document)]).unwrap();
    let advisory = &imported.set.advisories["X-1"];
    assert_eq!(advisory.affected.iter().map(|one| one.package.as_str()).collect::<Vec<_>>(), ["e"]);
    assert_eq!(imported.set.score_of(advisory), None, "9.8 is no vector, so the score is unknown");
    let told: BTreeMap<_, _> =
        imported.skipped.iter().map(|one| (one.place.as_str(), one.reason.as_str())).collect();
    for (place, reason) in [
        ("severity[0].score", "not a CVSS vector: at character 1"),
        ("affected[0]", "ecosystem \"Gentoo\" is not known"),
        ("affected[1].ranges[0]", "a range of commits says nothing about packages"),
        ("affected[2].ranges[0]", "version \"x1\": the version does not start with a digit"),
        ("affected[3].ranges[0]", "\"1\" ends a range that nothing before it begins"),
    ] {
        assert!(told[place].starts_with(reason), "{told:#?}");
    }
}

#[test]
fn the_tracker_of_debian_gives_an_advisory_for_each_cve() {
    let tracker = br#"{"openssl":{"CVE-2024-0001":{"description":"a hole","releases":{
        "bookworm":{"status":"resolved","repositories":{"bookworm":"3.0.15-1"},"fixed_version":"3.0.15-1~deb12u1","urgency":"not yet assigned"},
        "bullseye":{"status":"open","repositories":{"bullseye":"1.1.1w-0"},"urgency":"low"},
        "trixie":{"status":"resolved","fixed_version":"0","urgency":"low"},
        "buster":{"status":"undetermined","urgency":"low"},
        "potato":{"status":"open","urgency":"low"}}},
        "TEMP-0000000-123456":{"releases":{"bookworm":{"status":"open","urgency":"low"}}}},
        "edk2":{"CVE-2024-0001":{"releases":{"bookworm":{"status":"open","urgency":"low"}}}}}"#;
    let imported = import(&[("tracker.json", tracker)]).unwrap();
    let advisory = &imported.set.advisories["DEBIAN-TRACKER-CVE-2024-0001"];
    let affected: Vec<String> = advisory
        .affected
        .iter()
        .map(|one| format!("{} {} {:?}", one.distribution, one.package, one.ranges[0].fixed()))
        .collect();
    assert_eq!(
        affected,
        ["debian 12 openssl Some(\"3.0.15-1~deb12u1\")", "debian 11 openssl None", "debian 12 edk2 None"]
    );
    let reasons: Vec<&str> = imported.skipped.iter().map(|one| one.reason.as_str()).collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    let twice = br#"{"a":{"CVE-2024-0001":{"releases":{}},"CVE-2024-0001":{"releases":{}}}}"#;
    assert!(import(&[("t", twice)]).unwrap_err()[0].contains("is there twice"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

    /// One byte changed, added or lost, or the end cut off: it is read or refused with the file's name, and a score that it
    /// then has is that of a vector that stands in it.
    #[test]
    fn t40_a_mutated_file_is_read_or_refused(
        file in 0..3_usize,
        at in proptest::prelude::any::<proptest::sample::Index>(),
        byte in proptest::prelude::any::<u8>(),
        kind in 0..4,
    ) {
        let osv = br#"{"id":"A-1","modified":"2024-10-24T00:00:00Z","severity":[{"type":"CVSS_V3","score":
            "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],"affected":[{"package":{"ecosystem":"Debian:12","name":"a"},
            "ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"1.0-1"}]}]}]}"#.to_vec();
        let mut bytes = [
            osv.clone(),
            zip(&[("a.json", &osv)]),
            br#"{"openssl":{"CVE-2024-0001":{"releases":{"bookworm":{"status":"open"}}}}}"#.to_vec(),
        ][file].clone();
        let at = at.index(bytes.len());
        match kind {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => { bytes.remove(at); }
            _ => bytes.truncate(at),
        }
        match import(&[("x", &bytes)]) {
            Ok(imported) => for advisory in imported.set.advisories.values() {
                if let Some((given, scored)) = imported.set.score_of(advisory) {
                    proptest::prop_assert_eq!(fleet_advisories::cvss::score(&given.vector), Ok(scored));
                }
            },
            Err(refused) => proptest::prop_assert!(refused.iter().all(|one| one.starts_with('x')), "{:?}", refused),
        }
    }
}
