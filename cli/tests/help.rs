//! The help of the whole tree as people read it, and that the binary says the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use fleetctl::environment::Environment;
use fleetctl::{app, clock};
use std::fmt::Write as _;

fn help_of(args: &[&str]) -> String {
    let environment = Environment::fixed(&[], clock::now);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = app::run(["fleetctl"].iter().chain(args), &mut out, &mut err, &environment);
    assert_eq!((code, err.len()), (0, 0), "{args:?}");
    String::from_utf8(out).unwrap()
}

fn walk(command: &clap::Command, path: &[&str], out: &mut String) {
    for sub in command.get_subcommands() {
        let path: Vec<&str> = path.iter().copied().chain([sub.get_name()]).collect();
        let args: Vec<&str> = path.iter().copied().chain(["-h"]).collect();
        let _ = write!(out, "$ fleetctl {}\n{}\n", args.join(" "), help_of(&args));
        walk(sub, &path, out);
    }
}

#[test]
fn the_whole_tree() {
    let mut text = format!("$ fleetctl --help\n{}\n", help_of(&["--help"]));
    walk(&app::command_line(80), &[], &mut text);
    let too_wide: Vec<_> = text.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(too_wide.is_empty(), "lines over 80 columns: {too_wide:#?}");
    insta::assert_snapshot!(text);
}

#[test]
fn the_binary_answers_in_the_same_way() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fleetctl"))
        .args(["run", "start", "--help"])
        .env("COLUMNS", "80")
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), help_of(&["run", "start", "--help"]));
}
