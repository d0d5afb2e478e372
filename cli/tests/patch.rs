//! `fleetctl patch score` and `compare-versions`, whole: what programs pipe in and read back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::io::{Cursor, Write as _};
use std::process::{Command, Stdio};

use fleetctl::environment::Environment;
use fleetctl::{app, clock};

fn run(args: &[&str], input: &[u8]) -> (u8, String, String) {
    let environment = Environment::fixed(&[], clock::now).with_input(Cursor::new(input.to_vec()));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = app::run(["fleetctl", "patch"].iter().chain(args), &mut out, &mut err, &environment);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn a_vector_a_line_gives_a_line_of_json_each() {
    let (code, out, err) =
        run(&["score"], b"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H\r\nAV:N/AC:L/Au:N/C:N/I:N/A:N");
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "{\"vector\":\"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H\",\"version\":\"3.1\",\"base_score\":9.8,\
         \"severity\":\"critical\"}\n\
         {\"vector\":\"AV:N/AC:L/Au:N/C:N/I:N/A:N\",\"version\":\"2.0\",\"base_score\":0.0,\"severity\":\"none\"}\n"
    );
}

#[test]
fn t40_what_is_no_vector_is_an_error_and_never_a_number() {
    let mut input = b"NaN\n11.0\n\n\xff\xfe\n\xe2\x80\xaeCVSS:3.1/AV:N\n".to_vec();
    input.extend_from_slice(&vec![b'A'; 1 << 20]);
    let (code, out, err) = run(&["score"], &input);
    assert_eq!(code, 2);
    assert!(err.starts_with("error[bad-lines]: 6 of 6 lines are no CVSS vectors\n"), "{err}");
    let answers: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 6);
    for answer in &answers {
        assert!(answer["error"].is_string() && answer.get("base_score").is_none(), "{answer}");
    }
    assert!(out.is_ascii() || !out.contains('\u{202e}'), "{out}");
    assert!(answers[5]["error"].as_str().unwrap().contains("1048576 bytes"), "{}", answers[5]);
}

#[test]
fn two_versions_a_line_are_compared_as_each_package_manager_does() {
    let input = b"1.0~rc1\t1.0\n2:1.0\t10:0.1\r\n1.0-1\t1.0-01\n1.0\n1.0\t1_0\n1\t2\t3\n";
    let (code, out, err) = run(&["compare-versions", "--format", "dpkg"], input);
    assert_eq!(
        out,
        "<\n<\n=\nerror: the line wants two versions with one tab between\n\
         error: the second of the two: character 2 of the version, '_', is not allowed there\n\
         error: the line wants two versions with one tab between\n"
    );
    assert_eq!(
        (code, err.lines().next().unwrap()),
        (2, "error[bad-lines]: 3 of 6 lines are no two versions of dpkg with a tab between")
    );
    let (code, out, _) =
        run(&["compare-versions", "--format", "rpm"], b"1.0^git1\t1.0\n1.0\t1.0-1\n2.0\t2_0\n");
    assert_eq!((code, out.as_str()), (0, ">\n<\n=\n"));
}

/// A program that asks and waits for each answer gets it before it asks the next; one that goes away ends it.
#[test]
fn answers_come_as_they_are_asked_for() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fleetctl"))
        .args(["patch", "compare-versions", "--format", "dpkg"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut asks, mut reads) =
        (child.stdin.take().unwrap(), std::io::BufReader::new(child.stdout.take().unwrap()));
    for (question, expected) in [("1\t2\n", "<\n"), ("2\t1\n", ">\n")] {
        asks.write_all(question.as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::BufRead::read_line(&mut reads, &mut answer).unwrap();
        assert_eq!(answer, expected);
    }
    drop(reads);
    // Nobody reads: it ends by itself, without a word and without a failure, though more could come.
    let _ = asks.write_all(b"1\t1\n");
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]));
    drop(asks);
}
