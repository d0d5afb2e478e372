//! The certificate of a context renews itself, whatever command is given, and holds up none.

use std::time::Duration;

use fleet_certs::Serial;
use fleet_certs::slots::IdentityDir;
use fleet_types::time::Timestamp;
use fleetctl::clock;

use crate::certifying::Renewal;
use crate::world::World;

/// Certificates of this fleet last 87.6 h: renewed from 52 h on, worth a warning from 65.7 h on.
fn later() -> Timestamp {
    clock::now().plus(Duration::from_hours(60))
}

fn much_later() -> Timestamp {
    clock::now().plus(Duration::from_hours(80))
}

fn serial(world: &World) -> Serial {
    let folder = IdentityDir::open(&world.path().join("config/contexts/prod/identity")).unwrap();
    folder.load().unwrap().identity.tls().unwrap().describe().unwrap().serial
}

#[test]
fn whatever_command_connects_renews_what_is_due_and_says_nothing() {
    let world = World::signed_in();
    world.state(|state| state.renewal = Renewal::Good);
    let (first, usual) = (serial(&world), world.run(&["node", "list", "-o", "name"]));
    assert_eq!((usual.code, world.state(|state| state.asked_for.len())), (0, 0), "it is not due");
    let ended = world.run_at(later, &["node", "list", "-o", "name"]);
    assert_eq!((ended.code, ended.out, ended.err), (0, usual.out.clone(), usual.err.clone()));
    let second = serial(&world);
    assert_ne!(second, first);
    // The new one is used, and is not due itself.
    let ended = world.run_at(later, &["node", "list", "-o", "name"]);
    assert_eq!((ended.code, world.state(|state| state.asked_for.len())), (0, 1));
    assert_eq!(serial(&world), second);
}

#[test]
fn what_cannot_be_renewed_serves_as_long_as_it_lasts() {
    let world = World::signed_in();
    let first = serial(&world);
    for renewal in [Renewal::NotBuilt, Renewal::Anothers, Renewal::Refused] {
        world.state(|state| {
            state.renewal = renewal;
            state.asked_for.clear();
        });
        let ended = world.run_at(later, &["node", "list", "-o", "name"]);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{renewal:?}");
        assert_eq!(world.state(|state| state.asked_for.len()), 1, "{renewal:?}");
        assert_eq!(serial(&world), first, "{renewal:?}");
        let told = world.run_at(later, &["node", "list", "--verbose"]);
        assert!(told.err.contains("your certificate is not renewed: "), "{renewal:?}: {}", told.err);
        let warned = world.run_at(much_later, &["node", "list"]);
        assert_eq!(warned.code, 0);
        assert!(warned.err.starts_with("warning: your certificate is not renewed: "), "{}", warned.err);
    }
}

#[test]
fn a_lost_answer_is_asked_for_with_the_same_key() {
    let world = World::signed_in();
    world.run_at(later, &["node", "list"]);
    world.state(|state| state.renewal = Renewal::Good);
    world.run_at(later, &["node", "list"]);
    let asked = world.state(|state| state.asked_for.clone());
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], asked[1]);
}

#[test]
fn of_many_programs_at_once_one_renews_and_all_do_their_work() {
    let world = World::signed_in();
    world.state(|state| state.renewal = Renewal::Good);
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| world.run_at(later, &["node", "list"]))).collect();
        for call in calls {
            let ended = call.join().unwrap();
            assert_eq!((ended.code, ended.err.as_str()), (0, ""));
        }
    });
    assert_eq!(world.state(|state| state.asked_for.len()), 1);
}

/// The certificate has ended by then.
fn too_late() -> Timestamp {
    clock::now().plus(Duration::from_hours(90))
}

#[test]
fn whoever_comes_back_after_the_end_proves_who_they_are_and_goes_on() {
    let world = World::signed_in();
    let first = serial(&world);
    let refused = world.run_at(too_late, &["node", "list"]);
    assert_eq!(refused.code, 10);
    for part in ["error[cert-expired]: ", "cause: it is not renewed: ", "fix: sign in again: "] {
        assert!(refused.err.contains(part), "lacks {part:?}: {}", refused.err);
    }
    assert_eq!(serial(&world), first);
    world.state(|state| {
        state.renewal = Renewal::Good;
        state.asked_for.clear();
    });
    std::thread::scope(|scope| {
        let calls: Vec<_> =
            (0..4).map(|_| scope.spawn(|| world.run_at(too_late, &["node", "list"]))).collect();
        for call in calls {
            let ended = call.join().unwrap();
            assert_eq!((ended.code, ended.err.as_str()), (0, ""));
        }
    });
    assert_ne!(serial(&world), first);
    assert_eq!(world.state(|state| state.asked_for.len()), 1, "one of them asks");
}
