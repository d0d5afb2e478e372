//! Every mistake of a file is reported at once, with line, column and what to do.

#![allow(clippy::unwrap_used)] // helpers of tests: a panic is the failure

use std::collections::BTreeSet;
use std::fmt::Write;

use fleet_documents::{Level, Lint, Problem, SourceFile, parse, parse_set};

const TEN_MISTAKES: &str = r#"schema = "fleet/v1"
kind = "profile"
name = "edge"
version = "4"
[vars]
log_dir = "/var/log/edge"
[service.web]
unit = "web"
on_dwon = "restart"
[check.disk]
kind = "disk_usd"
path = "{logdir}"
warn = 80
every = "1 minute"
[check.web]
kind = "service"
service = "wbe"
every = "1m"
[command.status]
argv = ["edge-cli", "status"]
timeout = "30s"
changes = 0
[backup.Config]
kind = "files"
sources = ["etc/edge"]
directory = "/var/backups"
file_name = "c-{timestamp}.tar.gz"
keep = { days = 30 }
"#;

fn shown(problems: &[Problem]) -> String {
    let mut out = String::new();
    for problem in problems {
        let _ = writeln!(out, "{}[{}]: {problem}", problem.level.as_str(), problem.code);
    }
    out
}

#[test]
fn ten_mistakes_are_reported_at_once() {
    let problems = parse("profile.toml", TEN_MISTAKES).unwrap_err();
    assert_eq!(problems.len(), 10, "{}", shown(&problems));
    insta::assert_snapshot!(shown(&problems));
}

#[test]
fn the_message_is_the_one_of_the_manual() {
    let text = "schema = \"fleet/v1\"\nkind = \"schedule\"\nname = \"edge\"\n\n[[schedule]]\nid = \"weekly-maintenance\"\nprocedure = \"weekly\"\ncron = \"0 3 * * SUN\"\nmis_fire = \"skip\"\n";
    let problems = parse("schedules.toml", text).unwrap_err();
    assert_eq!(
        shown(&problems),
        "error[unknown-key]: schedules.toml:9:1: unknown key \"mis_fire\" in [[schedule]] \"weekly-maintenance\"\n  fix: did you mean \"misfire\"? values: skip, run_once, run_all (fleetctl explain schedule.misfire)\n"
    );
}

const PROFILE: &str = r#"schema = "fleet/v1"
kind = "profile"
name = "edge"
version = 1
[vars]
log = "/var/log/edge"
[service.fw]
unit = "fw.service"
touches_network = true
[command.status]
argv = ["edge-cli", "status"]
timeout = "30s"
changes = false
[command.load]
argv = ["edge-cli", "load", "{file}"]
params = { file = { type = "path", under = "/var/lib/edge", required = true } }
timeout = "30s"
changes = true
[package.fw]
name = "edge-fw"
manager = "apt"
touches_network = true
[backup.config]
kind = "files"
sources = ["/etc/edge"]
directory = "/var/backups"
file_name = "c-{timestamp}.tar.gz"
keep = { days = 30 }
[log.old]
paths = ["/var/log/edge/*.log"]
delete = { after = "30d" }
"#;

const HEAD: &str =
    "schema = \"fleet/v1\"\nkind = \"procedure\"\nname = \"p\"\nversion = 1\nprofile = \"edge\"\n";

/// The codes of a procedure's problems beside the profile above.
fn codes(procedure: &str) -> Vec<&'static str> {
    let text = format!("{HEAD}{procedure}");
    let files =
        [SourceFile { name: "profile.toml", text: PROFILE }, SourceFile { name: "p.toml", text: &text }];
    match parse_set(&files, &Lint::default()) {
        Ok(set) => set.warnings.iter().map(|problem| problem.code).collect(),
        Err(problems) => {
            assert!(
                problems.iter().all(|problem| problem.line > 1 && !problem.message.is_empty()),
                "{}",
                shown(&problems)
            );
            problems.iter().map(|problem| problem.code).collect()
        }
    }
}

fn step(lines: &str) -> String {
    format!("changes = true\ntimeout = \"2h\"\n[[step]]\nid = \"s\"\nkind = \"task\"\n{lines}\n")
}

#[test]
fn a_good_step_has_no_problems() {
    assert_eq!(
        codes(&step("uses = \"backup.run\"\nwith = { backup = \"config\", tag = \"{run.id}\" }")),
        Vec::<&str>::new()
    );
    assert_eq!(
        codes(&step(
            "uses = \"command.run\"\nwith = { command = \"load\", params = { file = \"/var/lib/edge/x\" } }"
        )),
        Vec::<&str>::new()
    );
}

#[test]
fn every_rule_has_a_case() {
    let guard = "guard = { confirm_within = \"10m\" }\n";
    let stop = format!("uses = \"service.stop\"\nwith = {{ services = [\"fw\"] }}\n{guard}");
    let upgrade = format!(
        "uses = \"package.upgrade\"\nwith = {{ packages = [\"fw\"] }}\n{guard}on_failure = \"rollback\"\n"
    );
    let manual = "changes = false\ntimeout = \"1h\"\n[[step]]\nid = \"m\"\nkind = \"manual\"\nprompt = \"look\"\nrole = \"operator\"\n";
    for (procedure, expected) in [
        (step("uses = \"helth.check\""), "unknown-action"),
        (step("uses = \"backup.run\"\nwith = { backup = \"confg\" }"), "unknown-reference"),
        (step("uses = \"backup.run\"\nwith = { backup = \"config\", tagg = \"x\" }"), "unknown-parameter"),
        (step("uses = \"backup.run\""), "missing-parameter"),
        (step("uses = \"backup.verify\"\nwith = { backups = \"config\" }"), "bad-parameter"),
        (step("uses = \"backup.restore\"\nwith = { backup = \"config\" }"), "missing-parameter"),
        (step("uses = \"backup.run\"\nwith = { backup = \"config\", tag = \"{runid}\" }"), "unknown-placeholder"),
        (step("uses = \"backup.run\"\nwith = { backup = \"config\", tag = \"{{7*7}}\" }"), "bad-placeholder"),
        (step("uses = \"log.prune\"\nwith = { logs = [\"old\"], plan_only = \"{run.id}\" }"), "bad-parameter"),
        (step("uses = \"command.run\"\nwith = { command = \"load\" }"), "missing-parameter"),
        (step("uses = \"command.run\"\nwith = { command = \"load\", params = { file = \"/etc/shadow\" } }"), "bad-parameter"),
        (step("uses = \"procedure.run\"\nwith = { procedure = \"q\" }"), "unknown-document"),
        (step("uses = \"procedure.run\"\nwith = { procedure = \"p\" }"), "unknown-document"),
        (step("uses = \"report.render\"\nwith = { report = \"weekly\" }"), "unknown-reference"),
        (step("uses = \"patch.assess\"\nwith = { policy = \"weekly\" }"), "kind-not-read"),
        (step("uses = \"service.restart\"\nwith = { services = [\"fw\"] }"), "guard-missing"),
        (step("uses = \"package.refresh\"\nwhen = \"params.x\""), "bad-condition"),
        (step("uses = \"package.refresh\"\nwhen = \"x == 1\""), "bad-condition"),
        (step("uses = \"package.refresh\"\nwhen = \"facts.postgresq\""), "unknown-fact"),
        (step("uses = \"package.refresh\"\ntimeout = \"3h\""), "steps-over-timeout"),
        (step("uses = \"package.refresh\"\nprompt = \"x\""), "key-not-for-kind"),
        (step(&upgrade), "upgrade-no-downgrade"),
        (step(&format!("{stop}[[step]]\nid = \"t\"\nkind = \"task\"\nuses = \"package.refresh\"")), "network-after-stop"),
        (step("uses = \"package.refresh\"\n[[step]]\nid = \"s\"\nkind = \"task\"\nuses = \"package.refresh\""), "duplicate-id"),
        (step("uses = \"package.refresh\"\n[[rollback]]\nid = \"r\"\nuses = \"package.refresh\""), "undoes-unknown"),
        (step("uses = \"package.refresh\"\n[[rollback]]\nid = \"r\"\nuses = \"package.refresh\"\nundoes = [\"x\"]"), "undoes-unknown"),
        (step("uses = \"command.run\"\nwith = { command = \"load\", params = { file = \"/var/lib/edge/x\" } }").replace("\"task\"", "\"gate\""), "gate-changes"),
        (step("uses = \"package.refresh\"\non_failure = \"warn\"").replace("\"task\"", "\"gate\""), "gate-cannot-fail"),
        (step("uses = \"health.check\"").replace("\"task\"", "\"gate\""), "gate-cannot-fail"),
        (step("uses = \"log.prune\"\nwith = { logs = [\"old\"] }").replace("changes = true", "changes = false"), "changes-not-declared"),
        (format!("{manual}expires = \"1h\"\nwait = false\non_failure = \"rollback\"\n"), "rollback-on-nowait"),
        (format!("{manual}expires = \"1h\"\ndeadline = \"2h\"\nwait = true\n"), "signoff-too-short"),
        ("changes = true\ntimeout = \"1h\"\n".to_owned(), "missing-key"),
    ] {
        assert_eq!(codes(&procedure), [expected], "{procedure}");
    }
    let plan = step("uses = \"log.prune\"\nwith = { logs = [\"old\"], plan_only = true }")
        .replace("changes = true", "changes = false");
    assert_eq!(codes(&plan), Vec::<&str>::new());
}

#[test]
fn rules_about_tables_of_a_profile() {
    let timer = "[service.t]\nunit = \"t.timer\"\ntype = \"timer\"\n";
    let changing = "[check.c]\nkind = \"command\"\ncommand = \"load\"\nevery = \"1m\"\n";
    let no_keep = "[backup.b]\nkind = \"files\"\nsources = [\"/etc\"]\ndirectory = \"/b\"\nfile_name = \"b-{timestamp}\"\nkeep = {}\n";
    for (lines, expected) in [
        (timer.to_owned(), "missing-key"),
        (changing.to_owned(), "changing-command"),
        (no_keep.to_owned(), "missing-key"),
        (no_keep.replace("keep = {}", "keep = { days = 1 }").replace("{timestamp}", "{date}"), "bad-value"),
        (
            no_keep.replace("keep = {}", "keep = { days = 1 }").replace("\"/b\"", "\"/var/backups\"").replace("b-", "c-").replace("{timestamp}", "{timestamp}.tar.gz"),
            "retention-conflict",
        ),
        ("[check.c]\nkind = \"load\"\nwarn = \"cores + 1\"\nevery = \"1m\"\n".to_owned(), "bad-value"),
        ("[check.c]\nkind = \"load\"\nwarn = 1\npath = \"/x\"\nevery = \"1m\"\n".to_owned(), "key-not-for-kind"),
        ("[check.c]\nkind = \"disk_used\"\nwarn = 1\nevery = \"1m\"\n".to_owned(), "missing-key"),
        ("[alert.a]\nwhen = \"check:nope failed\"\nseverity = \"low\"\n".to_owned(), "unknown-reference"),
        ("[alert.a]\nwhen = \"cpu_used = 5\"\nseverity = \"low\"\n".to_owned(), "bad-condition"),
        ("[metric.m]\nsource = \"cpu_usd\"\nevery = \"1m\"\nkeep = \"1d\"\n".to_owned(), "bad-value"),
        ("[command.c]\nargv = [\"{p}\"]\nparams = { p = { type = \"string\" } }\ntimeout = \"1s\"\nchanges = false\n".to_owned(), "bad-value"),
        ("[command.c]\nargv = [\"x\"]\nparams = { p = { type = \"enum\" } }\ntimeout = \"1s\"\nchanges = false\n".to_owned(), "bad-parameter"),
        ("[log.l]\npaths = [\"/l/*\"]\nrotate = { every = \"daily\", keep = 9 }\ndelete = { after = \"1d\" }\n".to_owned(), "retention-conflict"),
        ("[document]\nowner = \"nobody\"\n".to_owned(), "unknown-reference"),
        ("[fact.edge]\n".to_owned(), "missing-key"),
        ("[check.c]\nkind = \"load\"\nwarn = 99\ncritical = 95\nevery = \"1m\"\n".to_owned(), "bad-value"),
        ("[check.c]\nkind = \"disk_free\"\npath = \"/\"\nwarn = 5\ncritical = 20\nevery = \"1m\"\n".to_owned(), "bad-value"),
        ("[check.c]\nkind = \"load\"\nwarn = \"cores * 2\"\ncritical = \"cores * 1\"\nevery = \"1m\"\n".to_owned(), "bad-value"),
        ("[alert.a]\nwhen = \"cpu_usage > 90\"\nseverity = \"low\"\n".to_owned(), "bad-condition"),
        ("[command.c]\nargv = \"edge check\"\ntimeout = \"1s\"\nchanges = false\n".to_owned(), "wrong-type"),
        ("[fact.lvm]\nprogram = \"lvm\"\n".to_owned(), "duplicate-id"),
        ("[database.d]\nwhen = \"facts.edgy\"\nengine = \"postgresql\"\ndatabase = \"d\"\n".to_owned(), "unknown-fact"),
        ("[document]\nnext_review = 2026-11-22\n".to_owned(), "wrong-type"),
    ] {
        let text = format!("{PROFILE}{lines}");
        let codes: Vec<&str> = match parse("profile.toml", &text) {
            Ok(parsed) => parsed.warnings.iter().map(|problem| problem.code).collect(),
            Err(problems) => problems.iter().map(|problem| problem.code).collect(),
        };
        assert_eq!(codes, [expected], "{lines}");
    }
}

fn schedule_codes(lines: &str) -> Vec<&'static str> {
    let procedure = format!("{HEAD}{}", step("uses = \"backup.run\"\nwith = { backup = \"config\" }"));
    let text = format!(
        "schema = \"fleet/v1\"\nkind = \"schedule\"\nname = \"s\"\n[[schedule]]\nid = \"a\"\nprocedure = \"p\"\n{lines}\n"
    );
    let files = [
        SourceFile { name: "profile.toml", text: PROFILE },
        SourceFile { name: "p.toml", text: &procedure },
        SourceFile { name: "s.toml", text: &text },
    ];
    match parse_set(&files, &Lint::default()) {
        Ok(set) => set.warnings.iter().map(|problem| problem.code).collect(),
        Err(problems) => {
            problems.iter().filter(|p| p.level == Level::Error).map(|problem| problem.code).collect()
        }
    }
}

#[test]
fn a_missing_key_does_not_hide_what_else_is_wrong() {
    let text = format!(
        "{HEAD}changes = true\n[[step]]\nid = \"s\"\nuses = \"backup.run\"\nwith = {{ backup = \"x\" }}\n[[rollback]]\nid = \"s\"\nuses = \"backup.run\"\n"
    );
    let problems = parse("p.toml", &text).unwrap_err();
    let codes: Vec<&str> = problems.iter().map(|problem| problem.code).collect();
    // timeout and kind; the rollback's missing parameter, missing undoes and its id, which the step has.
    assert_eq!(
        codes,
        ["missing-key", "missing-key", "missing-parameter", "undoes-unknown", "duplicate-id"],
        "{}",
        shown(&problems)
    );
    // A name that looks like a stand-in hides nothing.
    let text = step("uses = \"service.restart\"\nwith = { services = [\"fw\"] }")
        .replace("\"s\"", "\"not-given-01\"");
    assert_eq!(self::codes(&text), ["guard-missing"]);
}

#[test]
fn a_severity_is_a_rating_of_cvss_with_its_own_scores() {
    let policy = |lines: &str| {
        let text = format!(
            "schema = \"fleet/v1\"\nkind = \"rollout_policy\"\nname = \"p\"\n[[ring]]\nname = \"all\"\nselector = \"*\"\n\
             [testing.full]\nprocedure = \"t\"\n{lines}\ntesting = \"full\"\n"
        );
        match parse("policy.toml", &text) {
            Ok(_) => String::new(),
            Err(problems) => {
                problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; ")
            }
        }
    };
    let critical = |rest: &str| policy(&format!("[severity.critical]\n{rest}"));
    assert_eq!(critical("cvss = { min = \"9.0\", max = \"10.0\" }\nrespond_within = \"24h\""), "");
    assert_eq!(critical("respond_within = \"24h\""), "", "the scores are known");
    assert_eq!(
        critical("cvss = { min = \"8.5\", max = \"10.0\" }\nrespond_within = \"24h\""),
        "\"critical\" is 9.0 to 10.0, by the rating scale of CVSS"
    );
    assert_eq!(critical("respond_within = \"0s\""), "no time at all: everything would be late at once");
    assert_eq!(policy("[severity.urgent]\nrespond_within = \"1h\""), "\"urgent\" is no rating of CVSS");
    assert_eq!(
        policy("[severity.unknown]\ncvss = { min = \"0.0\", max = \"10.0\" }\nrespond_within = \"1h\""),
        "\"unknown\" is for what has no score"
    );
}

#[test]
fn schedules_are_checked_against_their_procedures() {
    let good = "cron = \"0 3 * * SUN\"\n";
    assert_eq!(schedule_codes(good), Vec::<&str>::new());
    for (lines, expected) in [
        ("rollout_policy = \"std\"\n".to_owned(), "missing-key"),
        (good.replace("0 3 * * SUN", "0 0 30 2 *"), "bad-cron"),
        (format!("{good}timezone = \"Mars/Olympus\""), "bad-time-zone"),
        (format!("{good}selector = \"a in (b)\""), "bad-selector"),
        (format!("{good}selector = \"a=$(x)\""), "bad-selector"),
        (format!("{good}window = \"2 hours\""), "bad-duration"),
        (format!("{good}window = \"10m\"\njitter = \"1m\""), "window-too-small"),
        (format!("{good}params = {{ x = 1 }}"), "unknown-parameter"),
        (format!("{good}params = {{ x = 1.5 }}"), "wrong-type"),
        (format!("{good}[[schedule]]\nid = \"a\"\nprocedure = \"p\"\n{good}"), "duplicate-id"),
        (format!("{good}relative_to = {{ schedule = \"a\", by = \"-1d\" }}"), "bad-value"),
        (
            format!(
                "timezone = \"UTC\"\nrollout_policy = \"std\"\nrelative_to = {{ schedule = \"b\", by = \"-1d\" }}\n[[schedule]]\nid = \"b\"\nprocedure = \"p\"\n{good}"
            ),
            "bad-value",
        ),
        (format!("{good}timezone = \"site\""), "no-zones"),
        (format!("{good}[zones]\nfra1 = \"Europe/Berlim\""), "bad-time-zone"),
        (format!("{good}[zones]\n\"-\" = \"UTC\""), "bad-id"),
        (
            "rollout_policy = \"std\"\nrelative_to = { schedule = \"b\", by = \"-1d\" }".to_owned(),
            "unknown-reference",
        ),
    ] {
        let codes = schedule_codes(&lines);
        assert!(codes.contains(&expected), "{lines}: {codes:?}");
    }
}

#[test]
fn variables_that_make_no_path_are_reported_once_where_they_stand() {
    for (var, expected) in [
        ("etc = \"etc/edge\"", "variable \"etc\" begins a path, and stands for \"etc/edge\""),
        ("etc = \"/etc/../../x\"", "variable \"etc\" begins a path, and stands for \"/etc/../../x\""),
        ("etc = \"{etc}/x\"", "\"{etc}/x\" is made of itself, or through too many others"),
        (
            "etc = \"{root}/edge\"\nroot = \"opt\"",
            "variable \"etc\" begins a path, and stands for \"opt/edge\"",
        ),
        (
            "etc = \"{none}/edge\"\nnone = \"\"",
            "\"{none}/edge\" cannot be filled in: placeholder {none} has no value",
        ),
    ] {
        let text = PROFILE.replace("log = \"/var/log/edge\"", var)
            + "[backup.two]\nkind = \"files\"\nsources = [\"{etc}\", \"{etc}/x\"]\ndirectory = \"{etc}/b\"\nfile_name = \"t-{timestamp}\"\nkeep = { days = 1 }\n";
        let problems = parse("profile.toml", &text).unwrap_err();
        assert_eq!(problems.len(), 1, "{}", shown(&problems));
        assert_eq!((problems[0].message.as_str(), problems[0].line), (expected, 6), "{var}");
    }
    let good =
        PROFILE.replace("log = \"/var/log/edge\"", "log = \"{root}/log\"\nroot = \"/opt/{label.site}\"");
    assert!(
        parse(
            "profile.toml",
            &format!("{good}[log.l]\npaths = [\"{{log}}/*.log\"]\ndelete = {{ after = \"1d\" }}\n")
        )
        .is_ok()
    );
}

#[test]
fn a_file_that_is_no_text_does_not_hide_what_else_is_wrong() {
    let (text, problem) =
        fleet_documents::read_text("p.toml", b"kind = \"profile\"\nx = \"\xff\"\n".to_vec());
    let files =
        [SourceFile { name: "p.toml", text: &text }, SourceFile { name: "ten.toml", text: TEN_MISTAKES }];
    let unreadable: Vec<Problem> = problem.into_iter().collect();
    let problems = parse_set(&files, &Lint { unreadable: &unreadable, ..Lint::default() }).unwrap_err();
    assert!(
        problems.iter().any(|p| (p.code, p.line, p.column) == ("not-utf8", 2, 6)),
        "{}",
        shown(&problems)
    );
    assert_eq!(problems.iter().filter(|problem| problem.file == "ten.toml").count(), 10);
}

#[test]
fn a_fact_that_no_node_has_is_refused_with_the_nearest_one() {
    let when =
        |when: &str| format!("uses = \"backup.run\"\nwith = {{ backup = \"config\" }}\nwhen = \"{when}\"");
    let text = format!("{HEAD}{}", step(&when("facts.postgresq or facts.edgy")));
    let profile = format!("{PROFILE}[fact.edgefw]\nprogram = \"edgefw\"\n");
    let files =
        |text| [SourceFile { name: "profile.toml", text: &profile }, SourceFile { name: "p.toml", text }];
    let problems = parse_set(&files(&text), &Lint::default()).unwrap_err();
    let told: Vec<&str> = problems.iter().map(|problem| problem.fix.as_str()).collect();
    assert_eq!(problems[0].message, "no node has a fact \"edgy\"");
    assert!(told[0].starts_with("declare it: [fact.edgy]"), "{told:?}");
    assert_eq!(told[1], "did you mean facts.postgresql?");
    let text = format!("{HEAD}{}", step(&when("facts.edgefw and not facts.lvm")));
    assert!(parse_set(&files(&text), &Lint::default()).is_ok());
}

#[test]
fn actions_without_a_task_in_this_build_are_warned_about() {
    let built = BTreeSet::from(["backup.run"]);
    let text = format!("{HEAD}{}", step("uses = \"package.refresh\""));
    let files =
        [SourceFile { name: "profile.toml", text: PROFILE }, SourceFile { name: "p.toml", text: &text }];
    let set = parse_set(&files, &Lint { built_actions: Some(&built), ..Lint::default() }).unwrap();
    let said: Vec<_> = set.warnings.iter().map(|problem| (problem.code, problem.message.as_str())).collect();
    assert_eq!(said, [("action-not-built", "this build's agents do not have package.refresh (line 11)")]);
    assert!(!set.warnings.iter().any(Problem::needs_reason));
}

#[test]
fn what_this_build_does_not_act_on_is_told_once_a_reason_with_its_places() {
    let check = |n| format!("[check.c{n}]\nkind = \"load\"\nwarn = 1\nevery = \"1m\"\n");
    let checks = (0..14).map(check).collect::<Vec<_>>().concat();
    let profile = format!(
        "{PROFILE}{checks}[service.a]\nunit = \"a.service\"\non_down = \"restart\"\nmax_restarts = {{ count = 1, within = \"1h\" }}\n\
         [alert.a]\nwhen = \"cpu_used > 9\"\nseverity = \"low\"\n[metric.m]\nsource = \"cpu_used\"\nevery = \"1m\"\nkeep = \"1d\"\n\
         [status]\nsystem = [\"cpu_used\"]\n"
    );
    let procedure = format!(
        "{HEAD}changes = false\ntimeout = \"2h\"\n[[step]]\nid = \"m\"\nkind = \"manual\"\nprompt = \"look\"\nrole = \"operator\"\nexpires = \"1h\"\n\
         [[step]]\nid = \"g\"\nkind = \"task\"\nuses = \"health.check\"\nguard = {{ confirm_within = \"1m\" }}\n"
    );
    let schedule = "schema = \"fleet/v1\"\nkind = \"schedule\"\nname = \"s\"\n[[schedule]]\nid = \"a\"\nprocedure = \"p\"\ncron = \"0 3 * * SUN\"\nrollout_policy = \"std\"\n";
    let files = [
        SourceFile { name: "profile.toml", text: &profile },
        SourceFile { name: "p.toml", text: &procedure },
        SourceFile { name: "s.toml", text: schedule },
    ];
    let built = fleet_types::action::BUILT.iter().copied().collect();
    let set = parse_set(&files, &Lint { built_actions: Some(&built), ..Lint::default() }).unwrap();
    assert!(set.warnings.iter().all(|problem| problem.code == "not-acted-on"));
    insta::assert_snapshot!(shown(&set.warnings));
}

#[test]
fn a_rollback_that_leaves_changes_is_warned_about_and_so_is_a_shell() {
    let load = "uses = \"command.run\"\nwith = { command = \"load\", params = { file = \"/var/lib/edge/x\" } }\non_failure = \"rollback\"";
    assert_eq!(codes(&step(load)), ["nothing-undoes"]);
    let undone = "\n[[rollback]]\nid = \"r\"\nuses = \"backup.run\"\nwith = { backup = \"config\" }\nundoes = [\"s\"]\n";
    assert_eq!(codes(&step(&format!("{load}{undone}"))), Vec::<&str>::new());
    assert_eq!(codes(&step(&load.replace("rollback", "abort"))), Vec::<&str>::new());
    let archive = "uses = \"backup.run\"\nwith = { backup = \"config\" }\non_failure = \"rollback\"";
    assert_eq!(codes(&step(archive)), Vec::<&str>::new(), "an archive is meant to stay");
    let undoes_itself = "uses = \"log.configure\"\nwith = { logs = [\"old\"] }\non_failure = \"rollback\"";
    assert_eq!(codes(&step(undoes_itself)), Vec::<&str>::new(), "there are no entries, so it does");

    for (argv, expected) in [
        (r#"["/bin/sh", "-c", "a | b"]"#, Some("shell")),
        (r#"["bash", "-lc", "a"]"#, Some("shell")),
        (r#"["/usr/local/bin/sh", "/etc/edge/x.sh"]"#, None),
        (r#"["python3", "-c", "x"]"#, None),
    ] {
        let text = format!("{PROFILE}[command.c]\nargv = {argv}\ntimeout = \"1s\"\nchanges = false\n");
        let warnings = parse("profile.toml", &text).unwrap().warnings;
        assert_eq!(warnings.first().map(|problem| problem.code), expected, "{argv}");
        assert!(warnings.iter().all(Problem::needs_reason));
    }
}

/// A rollout policy with two rings and what is put behind them.
fn policy(rings: &str, more: &str) -> String {
    format!("schema = \"fleet/v1\"\nkind = \"rollout_policy\"\nname = \"careful\"\n{rings}\n{more}")
}

const CANARY: &str =
    "[[ring]]\nname = \"canary\"\nselector = \"ring=canary\"\nmax_parallel = 1\nsoak = \"2h\"\n";
const REST: &str =
    "[[ring]]\nname = \"rest\"\nselector = \"*\"\nmax_parallel = \"10%\"\nadvance = \"manual\"\n";

#[test]
fn rings_that_can_never_have_a_node_or_have_one_name_are_refused() {
    let good = policy(&format!("{CANARY}{REST}"), "");
    let parsed = parse("r.toml", &good).unwrap();
    assert_eq!(
        (parsed.document.kind().as_str(), parsed.document.name().as_str()),
        ("rollout_policy", "careful")
    );
    let share =
        |text: &str| policy(&CANARY.replace("max_parallel = 1", &format!("max_parallel = {text}")), "");
    for (text, code, line) in [
        (policy("", ""), "missing-key", 0),
        (policy(&format!("{REST}{CANARY}"), ""), "bad-value", 11),
        (policy(&format!("{CANARY}{CANARY}"), ""), "duplicate-id", 10),
        (share("0"), "", 7),
        (share("\"0%\""), "bad-value", 7),
        (share("\"101%\""), "bad-value", 7),
        (share("1.5"), "", 7),
        (policy(&CANARY.replace("ring=canary", "ring in (a)"), ""), "bad-selector", 6),
        (policy(CANARY, "max_unavailable_per_site = 2\n"), "", 0),
        (policy(CANARY, "[failure]\nmax_failed_percent = 101\n"), "", 0),
        (policy(CANARY, "[failure]\naction = \"shrug\"\n"), "bad-value", 0),
    ] {
        let problems = parse("r.toml", &text).unwrap_err();
        let found = problems.iter().filter(|problem| problem.level == Level::Error);
        let fits = |problem: &Problem| {
            (code.is_empty() || problem.code == code) && (line == 0 || problem.line == line)
        };
        assert!(found.clone().any(fits), "{code} {line}: {problems:?}\n{text}");
    }
}

#[test]
fn variables_that_grow_through_each_other_are_reported_where_they_are_too_long() {
    let lines = (1..8).map(|n| format!("v{n} = \"{}\"\n", format!("{{v{}}}", n - 1).repeat(30)));
    let vars: String = std::iter::once(format!("v0 = \"/{}\"\n", "x".repeat(30))).chain(lines).collect();
    let text = PROFILE.replace("log = \"/var/log/edge\"\n", &vars)
        + "[backup.two]\nkind = \"files\"\nsources = [\"{v7}\"]\ndirectory = \"{v7}/b\"\nfile_name = \"t-{timestamp}\"\nkeep = { days = 1 }\n";
    let problems = parse("profile.toml", &text).unwrap_err();
    assert_eq!(problems.len(), 1, "{}", shown(&problems));
    assert!(problems[0].message.ends_with("the expanded text is over 16384 bytes"), "{}", shown(&problems));
    assert_eq!((problems[0].code, problems[0].line), ("bad-placeholder", 8));
}

#[test]
fn a_rule_set_that_no_node_could_load_is_found_in_its_file() {
    let problems = |rules: &str| {
        let head = "[ruleset.edge]\nkind = \"nftables\"\nfile = \"/etc/nftables.conf\"\n";
        let text = format!("{PROFILE}{head}text = '''\n{rules}'''\n");
        let parsed = parse_set(&[SourceFile { name: "profile.toml", text: &text }], &Lint::default());
        parsed.err().map(|problems| shown(&problems))
    };
    assert_eq!(problems("# edge\nflush ruleset\ntable inet filter { }\n"), None);
    let adds = problems("table inet filter { }\n").unwrap();
    assert!(
        adds.contains("does not begin with \"flush ruleset\"") && adds.contains("profile.toml:"),
        "{adds}"
    );
    let long = problems(&format!("flush ruleset\n{}", "# x\n".repeat(20_000))).unwrap();
    assert!(long.contains("over the limit of 65536"), "{long}");
}
