//! People: invites, and whose signatures nodes take. The part of the scripted controller, and what an operator sees.

use fleet_types::id::FleetId;
use fleet_types::seal::{PublicKey, SigningKey};
use fleet_types::time::Timestamp;
use fleet_types::trust::{OperatorRole, Proposal, RootKeys, SignedBundle};
use fleet_types::view::{Done, InviteView, OperatorItem, OperatorState};
use fleetctl::clock;
use tonic::Code;

use crate::answers::{Reply, refusal, view};
use crate::script::State;
use crate::world::{Ended, World, YEAR};

/// As the real one takes a bundle: with enough signatures, or to wait for them.
pub fn publish(roots: &RootKeys, fleet: FleetId, state: &mut State, signed: SignedBundle) -> Reply {
    let Proposal { bundle, signers, needed } = signed
        .propose(roots, fleet, &state.bundle)
        .map_err(|error| refusal(Code::PermissionDenied, "trust-refused", &error.to_string(), ""))?;
    assert_eq!(bundle.version, state.bundle.version + 1);
    if signers.len() < needed {
        state.proposal = Some(signed);
        return view(&Done::new("waits".to_owned()));
    }
    (state.bundle, state.signed, state.proposal) = (bundle, signed, None);
    view(&Done::new("stored".to_owned()))
}

pub fn invite(name: &str, role: &str) -> Reply {
    view(&InviteView {
        schema: "fleet/v1/invite".to_owned(),
        invite: "fo1.secret".to_owned(),
        name: name.parse().unwrap(),
        role: role.parse().unwrap(),
        expires: clock::now().plus(YEAR / 365),
        replaces: false,
    })
}

fn person(world: &World, name: &str, number: u128, role: OperatorRole) -> SigningKey {
    let (key, pkcs8) = SigningKey::generate().unwrap();
    fleet_certs::files::write_secret(&world.path().join(name), &SigningKey::pkcs8_to_pem(&pkcs8)).unwrap();
    let item = OperatorItem {
        name: name.parse().unwrap(),
        id: Some(format!("0192f0c1-0000-7000-8000-{number:012}").parse().unwrap()),
        role,
        state: OperatorState::Active,
        content_key: Some(key.public()),
        is_listed: false,
        since: Some(Timestamp::clamped(1_790_000_000_000)),
        until: None,
    };
    world.state(|state| state.people.push(item));
    key
}

/// The same machine with another person's content key.
fn run_as(world: &World, name: &str, args: &[&str]) -> Ended {
    let mine = world.path().join("config/contexts/prod").join(fleetctl::context::CONTENT_KEY);
    let aside = world.path().join("aside.pem");
    std::fs::rename(&mine, &aside).unwrap();
    std::fs::copy(world.path().join(name), &mine).unwrap();
    let ended = world.run(args);
    std::fs::rename(&aside, &mine).unwrap();
    ended
}

fn admit(world: &World, name: &str, key: PublicKey, more: &[&str]) -> Ended {
    let key = key.id().to_string();
    let args = ["operator", "admit", name, "--key", &key, "--confirm", name, "--reason", "a colleague"];
    world.run(&[&args, more].concat())
}

fn is_listed(world: &World, key: PublicKey) -> bool {
    world.state(|state| state.bundle.content_key(&key.id()).is_some())
}

#[test]
fn an_invite_is_printed_alone_with_what_to_do_with_it_beside() {
    let world = World::signed_in();
    let args = ["operator", "invite", "bob", "--role", "operator", "--yes", "--reason", "new colleague"];
    let ended = world.run(&args);
    assert_eq!((ended.code, ended.out.as_str()), (0, "fo1.secret\n"), "{}", ended.err);
    assert!(ended.err.contains("on their machine: fleetctl login INVITE --server"), "{}", ended.err);
    world.state(|state| assert_eq!(state.orders, ["bob invited as operator: new colleague"]));
    let ended = world.run(&["operator", "invite", "bob", "--role", "king", "--yes"]);
    assert!(ended.code == 2 && ended.err.contains("expected viewer, auditor"), "{}", ended.err);
}

#[test]
fn a_person_is_admitted_for_the_key_that_they_have_read_out_and_no_other() {
    let world = World::signed_in();
    let root = world.root_key();
    let root = ["--root-key", root.to_str().unwrap()];
    let bob = person(&world, "bob", 7, OperatorRole::Operator).public();
    let vera = person(&world, "vera", 8, OperatorRole::Viewer).public();
    let other = SigningKey::generate().unwrap().0.public();
    let ended = admit(&world, "bob", other, &root);
    assert!(ended.code == 12 && ended.err.contains("the controller lies"), "{ended:?}");
    let ended = admit(&world, "bob", bob, &[]);
    assert!(ended.code == 6 && ended.err.contains("operator delegate"), "{ended:?}");
    let ended = admit(&world, "vera", vera, &root);
    assert!(ended.code == 6 && ended.err.contains("signs no work"), "{ended:?}");
    assert_eq!(admit(&world, "eve", bob, &root).code, 4);
    assert!(!is_listed(&world, bob));
    let ended = admit(&world, "bob", bob, &root);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(is_listed(&world, bob));
    let ended = admit(&world, "bob", bob, &root);
    assert!(ended.code == 0 && ended.out.contains("listed already"), "{ended:?}");
    let ended = world.run(&["operator", "list"]);
    assert!(ended.out.contains("bob") && ended.out.contains("only a root key changes"), "{}", ended.out);
}

#[test]
fn two_to_whom_the_list_is_left_add_somebody_together_and_one_takes_them_away() {
    let world = World::signed_in();
    let root = world.root_key();
    let root = ["--root-key", root.to_str().unwrap()];
    let eve = person(&world, "eve", 7, OperatorRole::SecurityAdmin).public();
    let bob = person(&world, "bob", 8, OperatorRole::Operator).public();
    assert_eq!(admit(&world, "eve", eve, &root).code, 0);
    let delegate = |names: &[&str]| {
        let words = ["operator", "delegate", "--confirm", "prod", "--reason", "no root key at hand"];
        world.run(&[&words, names, &root].concat())
    };
    let ended = delegate(&["bob"]);
    assert!(ended.code == 4 && ended.err.contains("no content key of a security-admin"), "{ended:?}");
    let ada = world.state(|state| state.bundle.content_keys[0].person.to_string());
    let ended = delegate(&[&ada, "eve"]);
    assert_eq!(ended.code, 0, "{}", ended.err);

    let ended = admit(&world, "bob", bob, &[]);
    assert!(ended.code == 0 && ended.out == "waits\n", "{ended:?}");
    assert!(!is_listed(&world, bob));
    let ended = admit(&world, "bob", bob, &[]);
    assert!(ended.out.contains("the change that waited before is void"), "{ended:?}");
    let ended = world.run(&["operator", "list"]);
    assert!(
        ended.out.contains("waits for signatures") && ended.out.contains("2 signatures"),
        "{}",
        ended.out
    );
    let ended = world.run(&["operator", "approve", "--yes"]);
    assert!(ended.code == 6 && ended.err.contains("another one must"), "{ended:?}");
    let ended = run_as(&world, "bob", &["operator", "approve", "--yes"]);
    assert!(ended.code == 6 && ended.err.contains("to nobody"), "{ended:?}");
    let ended = run_as(&world, "eve", &["operator", "approve", "--yes"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("added") && ended.err.contains(&bob.id().to_string()), "{}", ended.err);
    assert!(is_listed(&world, bob));
    let ended = run_as(&world, "eve", &["operator", "approve", "--yes"]);
    assert!(ended.code == 0 && ended.out.contains("waits for signatures"), "{ended:?}");

    let revoke = ["operator", "revoke", "bob", "--confirm", "bob", "--reason", "lost laptop"];
    let ended = run_as(&world, "eve", &revoke);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(!is_listed(&world, bob) && is_listed(&world, eve));
    let ended = world.run(&["operator", "delegate", "--nobody", "--yes", root[0], root[1]]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let ended = admit(&world, "bob", bob, &[]);
    assert!(ended.code == 6 && ended.err.contains("operator delegate"), "{ended:?}");
}

#[test]
fn who_has_a_name_now_is_not_shut_out_for_who_had_it_before() {
    let world = World::signed_in();
    let root = world.root_key();
    let root = ["--root-key", root.to_str().unwrap()];
    let before = person(&world, "bob", 7, OperatorRole::Operator).public();
    assert_eq!(admit(&world, "bob", before, &root).code, 0);
    world.state(|state| {
        let bob = &mut state.people[0];
        (bob.state, bob.is_listed) = (OperatorState::Revoked, true);
    });
    let after = person(&world, "bob", 8, OperatorRole::Operator).public();
    world.state(|state| state.people[1].since = Some(clock::now()));
    assert_eq!(admit(&world, "bob", after, &root).code, 0);
    let revoke = ["operator", "revoke", "bob", "--confirm", "bob", "--reason", "what was left"];
    let ended = world.run(&[&revoke[..], &root].concat());
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(!is_listed(&world, before) && is_listed(&world, after));
    world.state(|state| assert_eq!(state.orders, Vec::<String>::new(), "nobody's certificates were revoked"));
}
