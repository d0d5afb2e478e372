//! The crew with shell scripts in place of controller and agent.

use std::os::unix::fs::PermissionsExt as _;

use super::super::process::{ProcessMark, tail};
use super::*;

const LIMIT: Duration = Duration::from_secs(30);

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    /// Programs whose bodies are these; an agent's `stop-units` leaves a note.
    fn new(controller: &str, agent: &str) -> (Self, Crew) {
        let folder = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let stop_units = format!(
            "[ \"$1\" != stop-units ] || {{ echo \"$3\" >>{}; exit 0; }}",
            folder.path().join("stopped").display()
        );
        let programs = Programs {
            controller: script("controller", controller),
            agent: script("agent", &format!("{stop_units}\n{agent}")),
        };
        let crew = Crew::new(programs, folder.path());
        (Self { folder }, crew)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, crew: &mut Crew) -> Vec<ProcessMark> {
        let pids = [
            crew.start_controller(Path::new("/c"), Path::new("/r"), &self.log("controller.log")).unwrap(),
            crew.start_agent("fw-1", Path::new("/one"), &self.log("one.log")).unwrap(),
            crew.start_agent("fw-2", Path::new("/two"), &self.log("two.log")).unwrap(),
        ];
        pids.map(|pid| ProcessMark::of(i32::try_from(pid).unwrap()).unwrap()).into()
    }
}

/// Says that it is up, then waits; says when it is asked to end.
const POLITE: &str = "trap 'echo bye; exit 0' TERM; echo up; sleep 600 & wait";

#[test]
fn everything_is_ended_in_order_and_units_are_stopped() {
    let (scene, mut crew) = Scene::new(POLITE, POLITE);
    let marks = scene.start(&mut crew);
    for log in ["controller.log", "one.log", "two.log"] {
        wait_for(LIMIT, &|| false, || tail(&scene.log(log)).first().cloned()).unwrap();
    }
    assert_eq!(crew.stop(), Vec::<String>::new());
    assert!(marks.iter().all(|mark| !mark.is_alive()));
    assert!(tail(&scene.log("one.log")).contains(&"bye".to_owned()));
    let mut stopped = tail(&scene.log("stopped"));
    stopped.sort();
    assert_eq!(stopped, ["/one", "/two"]);
}

#[test]
fn a_panic_ends_everything_too() {
    let (scene, mut crew) = Scene::new("trap '' TERM; sleep 600", "trap '' TERM; sleep 600");
    let marks = scene.start(&mut crew);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _crew = crew;
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert!(marks.iter().all(|mark| !mark.is_alive()));
    assert_eq!(tail(&scene.log("stopped")).len(), 2);
}

/// Ends the first agent `times` times by a signal, each after its restart; gives what was said at the last.
fn end_again_and_again(crew: &mut Crew, signal: Signal, times: usize) -> Vec<String> {
    let mut now = Instant::now();
    let mut said = Vec::new();
    for round in 0..times {
        let State::Running(process) = &mut crew.agents[0].state else { panic!("round {round}: {said:?}") };
        process.signal(signal);
        process.wait(LIMIT, &|| false).unwrap();
        assert_eq!(crew.first_end().unwrap().0, "fw-1");
        said = crew.look(now);
        assert!(said[0].starts_with("fw-1 ended"), "{said:?}");
        assert!(crew.look(now).is_empty(), "not at once");
        now += RESTART_AFTER;
        said.extend(crew.look(now));
    }
    said
}

#[test]
fn one_that_was_killed_is_started_again_however_often() {
    let (scene, mut crew) = Scene::new(POLITE, POLITE);
    scene.start(&mut crew);
    let said = end_again_and_again(&mut crew, Signal::KILL, 2 * MAX_RESTARTS);
    assert!(said[1].starts_with("fw-1 runs again"), "{said:?}");
    assert!(matches!(crew.agents[1].state, State::Running(_)));
    crew.hurry().up();
    crew.stop();
}

#[test]
fn one_that_ends_by_itself_is_given_up_after_a_few_times() {
    let (scene, mut crew) = Scene::new(POLITE, POLITE);
    scene.start(&mut crew);
    let said = end_again_and_again(&mut crew, Signal::ABORT, MAX_RESTARTS);
    assert!(said[1].starts_with("fw-1 runs again"), "{said:?}");
    let said = end_again_and_again(&mut crew, Signal::ABORT, 1);
    assert!(said.len() == 1 && said[0].contains("left alone"), "{said:?}");
    crew.hurry().up();
    crew.stop();
}

#[test]
fn one_that_does_not_end_is_killed_and_named() {
    let (scene, mut crew) = Scene::new(POLITE, "trap '' TERM; echo up; while :; do sleep 600 & wait; done");
    scene.start(&mut crew);
    for log in ["one.log", "two.log"] {
        wait_for(LIMIT, &|| false, || tail(&scene.log(log)).first().cloned()).unwrap();
    }
    let hurry = crew.hurry();
    let ending = std::thread::spawn(move || (crew.stop(), crew));
    hurry.up();
    let (said, _crew) = ending.join().unwrap();
    assert!(said.is_empty(), "a hurry was asked for, so killing is no news: {said:?}");
}
