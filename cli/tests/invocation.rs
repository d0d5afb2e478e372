//! Whole invocations that need no controller: errors, formats, exit codes, confirmation, pipes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use fleet_types::time::Timestamp;
use fleetctl::app;
use fleetctl::environment::Environment;

fn now() -> Timestamp {
    Timestamp::clamped(1_795_000_000_000)
}

struct Ended {
    code: u8,
    out: String,
    err: String,
}

fn run_in(variables: &[(&str, &str)], args: &[&str]) -> Ended {
    let environment = Environment::fixed(variables, now);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = app::run(["fleetctl"].iter().chain(args), &mut out, &mut err, &environment);
    Ended { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn run(args: &[&str]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    run_in(&[("FLEET_CONFIG_DIR", folder.path().to_str().unwrap())], args)
}

#[test]
fn version_in_every_format() {
    let mut all = String::new();
    for format in ["table", "wide", "json", "jsonl", "yaml", "name", "jsonpath=.fleetctl"] {
        let ended = run(&["version", "-o", format]);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{format}");
        let _ = write!(all, "--- {format}\n{}", ended.out);
    }
    insta::assert_snapshot!(all.replace(env!("CARGO_PKG_VERSION"), "<version>"));
}

#[test]
fn mistakes_on_the_line_are_told_and_exit_with_2() {
    let mut all = String::new();
    for args in [
        &["run", "strat", "x"][..],
        &["run", "start"],
        &["version", "-o", "xml"],
        &["version", "-o", "jsonpath=.a["],
        &["run", "show", "r-1"],
        &["run", "start", "p", "--param", "x"],
        &["run", "start", "p", "--max-parallel", "0"],
        &["run", "start", "p", "--max-failures", "-1"],
        &["run", "start", "p", "--valid-for", "0s"],
        &["completion", "nosh"],
        &["node", "show", "-V\u{202e}"],
        &["node", "show", "--", "-V\u{202e}"],
        &["join-token", "create", "fw-1", "--label", "site=$(x)"],
        &["login", "ft1.x"],
        &["audit", "list", "--node", "fw-1"],
        &["audit", "list", "--since", "1h"],
        &["run", "logs", "r-0000000000", "--watch"],
        &["node"],
        &["run"],
        &[],
    ] {
        let ended = run(args);
        assert_eq!((ended.code, ended.out.as_str()), (2, ""), "{args:?}: {}", ended.err);
        assert!(!ended.err.contains('\u{202e}'), "{args:?}");
        let line = args.join(" ").replace('\u{202e}', "<bidi>");
        let _ = write!(all, "$ fleetctl {line}\n{}\n", ended.err);
    }
    insta::assert_snapshot!(all);
}

#[test]
fn errors_are_json_where_json_was_asked_for() {
    for args in [
        &["-o", "json", "run", "strat"][..],
        &["run", "strat", "--output=json"],
        &["run", "strat", "-ojsonl"],
        &["status", "-o", "json"],
        &["explain", "no.such", "-o", "json"],
    ] {
        let ended = run(args);
        let error: serde_json::Value = serde_json::from_str(&ended.err).unwrap();
        assert_eq!(error["schema"], "fleet/v1/error", "{args:?}");
        assert_eq!(error["exit"].as_u64(), Some(u64::from(ended.code)), "{args:?}");
        assert!(!error["message"].as_str().unwrap().is_empty() && ended.out.is_empty(), "{args:?}");
    }
    let ended = run_in(&[("FLEET_OUTPUT", "json")], &["run", "strat"]);
    assert!(ended.err.starts_with('{') && ended.err.contains("\"code\":\"usage\""), "{}", ended.err);
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for (args, what) in [
        (&["rollout", "list"][..], "\"fleetctl rollout list\" is not built yet"),
        (&["run", "retry", "r-0000000000"], "\"fleetctl run retry\" is not built yet"),
        (&["audit", "--context", "x", "prove"], "\"fleetctl audit prove\" is not built yet"),
    ] {
        let ended = run(args);
        assert_eq!((ended.code, ended.out.as_str()), (6, ""), "{args:?}: {}", ended.err);
        assert!(ended.err.starts_with(&format!("error[not-built]: {what}\n")), "{}", ended.err);
    }
}

#[test]
fn a_path_that_leads_nowhere_is_told() {
    let ended = run(&["version", "-o", "jsonpath=.fletctl"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, ""));
    assert!(ended.err.starts_with("nothing is at this jsonpath"), "{}", ended.err);
}

#[test]
fn explain_alone_lists_what_there_is() {
    let ended = run(&["explain"]);
    for line in ["profile ", "procedure ", "schedule ", "check ", "actions ", "facts "] {
        assert!(ended.out.lines().any(|shown| shown.starts_with(line)), "{line}: {}", ended.out);
    }
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
}

#[test]
fn without_a_context_every_command_says_how_to_sign_in() {
    for args in [
        &["whoami"][..],
        &["status"],
        &["node", "list"],
        &["node", "show", "fw-1"],
        &["join-token", "create", "fw-1"],
        &["procedure", "list"],
        &["profile", "show", "p"],
        &["schedule", "list"],
        &["run", "plan", "p", "--all"],
        &["run", "start", "p", "--all"],
        &["run", "list"],
        &["run", "show", "r-0000000000"],
        &["run", "logs", "r-0000000000/fw-1"],
        &["run", "wait", "r-0000000000"],
        &["run", "cancel", "r-0000000000"],
        &["backup", "list"],
        &["audit", "list"],
        &["audit", "verify"],
    ] {
        let ended = run(args);
        assert_eq!((ended.code, ended.out.as_str()), (10, ""), "{args:?}: {}", ended.err);
        assert!(
            ended.err.starts_with("error[not-signed-in]:") && ended.err.contains("fleetctl login"),
            "{}",
            ended.err
        );
    }
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn validate_lists_every_problem_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let bad = write(
        folder.path(),
        "bad.toml",
        "schema = \"fleet/v1\"\nkind = \"procedure\"\nname = \"-x\"\nverison = 1\n",
    );
    let ended = run(&["config", "validate", &bad]);
    assert_eq!((ended.code, ended.err.as_str()), (2, ""), "{}", ended.out);
    assert!(ended.out.contains("bad.toml:4:1: unknown key"), "{}", ended.out);
    assert!(ended.out.contains("did you mean \"version\"?"), "{}", ended.out);
    let json = run(&["config", "validate", &bad, "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (value["schema"].as_str(), value["valid"].as_bool()),
        (Some("fleet/v1/validation"), Some(false))
    );
    assert!(
        value["items"].as_array().unwrap().iter().any(|item| item["line"] == 4 && item["level"] == "error")
    );
    let none = run(&["config", "validate", folder.path().join("none").to_str().unwrap()]);
    assert_eq!((none.code, none.err.contains("error[unreadable-file]")), (4, true), "{}", none.err);
}

#[test]
fn explain_and_completion_need_nobody() {
    let ended = run(&["explain", "schedule.misfire"]);
    assert_eq!(ended.code, 0);
    assert!(ended.out.contains("run_once"), "{}", ended.out);
    assert_eq!(run(&["explain", "schedule.misfier"]).code, 4);
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(&["completion", shell]);
        assert!(ended.code == 0 && ended.out.contains("join-token"), "{shell}");
    }
}

#[test]
fn bad_variables_are_named() {
    let ended = run_in(&[("FLEET_TIMEOUT", "soon")], &["version"]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("FLEET_TIMEOUT"), "{}", ended.err);
}

/// A reader that went away after its first bytes.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_broken_pipe_ends_quietly() {
    let environment = Environment::fixed(&[], now);
    for args in [&["version"][..], &["--help"], &["completion", "bash"]] {
        let mut err = Vec::new();
        let code = app::run(["fleetctl"].iter().chain(args), &mut Gone, &mut err, &environment);
        assert_eq!((code, err.as_slice()), (0, &b""[..]), "{args:?}");
    }
}

#[test]
fn a_full_disk_under_stdout_is_an_error() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let environment = Environment::fixed(&[], now);
    let mut err = Vec::new();
    let code = app::run(["fleetctl", "version"], &mut Full, &mut err, &environment);
    assert_eq!(code, 1);
    assert!(String::from_utf8(err).unwrap().starts_with("error[unexpected]: the output cannot be written"));
}

#[test]
fn files_are_laid_out_in_place_and_checked_without_writing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
    let (bad, good) = ("kind=\"profile\" # what\n\n\n[vars]\na  = 'b'\n", "kind = \"schedule\"\n");
    std::fs::write(path("bad.toml"), bad).unwrap();
    std::fs::write(path("good.toml"), good).unwrap();
    std::os::unix::fs::symlink(path("bad.toml"), path("link.toml")).unwrap();
    let ended = run(&["config", "fmt", "--check", folder.path().to_str().unwrap()]);
    assert_eq!(ended.code, 20, "{}", ended.err);
    assert!(ended.out.ends_with("2 of 3 files to be laid out anew\n"), "{}", ended.out);
    assert_eq!(read("bad.toml"), bad);
    std::fs::write(path("broken.toml"), "a = \n").unwrap();
    let ended = run(&["config", "fmt", &path("bad.toml"), &path("broken.toml")]);
    assert!(ended.code == 2 && ended.err.contains("broken.toml:1:"), "{}", ended.err);
    assert_eq!(read("bad.toml"), bad);
    let ended = run(&["config", "fmt", &path("link.toml"), &path("good.toml"), "-o", "name"]);
    assert_eq!((ended.code, ended.out), (0, format!("{}\n", path("link.toml"))), "{}", ended.err);
    assert_eq!(read("bad.toml"), "kind = \"profile\" # what\n\n[vars]\na = 'b'\n");
    assert!(Path::new(&path("link.toml")).is_symlink());
    assert_eq!(run(&["config", "fmt", "--check", &path("bad.toml"), &path("good.toml")]).code, 0);
}

#[test]
fn the_schema_is_printed_as_it_is() {
    for kind in ["profile", "procedure", "schedule"] {
        let ended = run(&["config", "schema", kind]);
        let schema: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
        assert_eq!((ended.code, schema["properties"]["kind"]["const"].as_str()), (0, Some(kind)));
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(run(&["config", "schema", kind, "-o", "json"]).out, ended.out);
    }
    assert_eq!(run(&["config", "schema", "rollout"]).code, 2);
}
