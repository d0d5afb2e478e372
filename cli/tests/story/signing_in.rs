//! Signing in: pins, keys that stay, the trust bundle, and what is said when something is missing.

use std::os::unix::fs::PermissionsExt as _;

use crate::world::World;

#[test]
fn without_the_root_key_one_is_signed_in_and_told_what_is_missing() {
    let world = World::new();
    let ended = world.login(&[]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.starts_with("signed in as ada (security-admin), context \"prod\""), "{}", ended.out);
    assert!(ended.err.contains("nodes refuse what you sign"), "{}", ended.err);
    let who = world.run(&["whoami"]);
    assert_eq!(who.code, 0, "{}", who.err);
    assert!(who.out.contains("not listed in the trust bundle"), "{}", who.out);
    assert!(who.err.contains("fleetctl operator admit ada --key"), "{}", who.err);
    assert!(!who.err.contains("your certificate ends in"), "it has just been issued: {}", who.err);
    // Every key is for this user alone.
    for file in ["config.toml", "contexts/prod/content-key.pem", "contexts/prod/identity/a/key.pem"] {
        let path = world.path().join("config").join(file);
        let mode =
            std::fs::metadata(&path).unwrap_or_else(|error| panic!("{file}: {error}")).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn with_the_root_key_the_own_key_is_listed_once() {
    let world = World::signed_in();
    world.state(|state| {
        assert_eq!((state.bundle.version, state.bundle.content_keys.len()), (2, 1));
        assert_eq!(Some(state.bundle.content_keys[0].key), state.content_key);
        assert_eq!(state.bundle.content_keys[0].person.as_str(), "ada");
    });
    // The same invite again, as after a lost reply: the same keys, nothing new to list.
    let again = world.login(&["--root-key", world.root_key().to_str().unwrap(), "-o", "json"]);
    assert_eq!(again.code, 0, "{}", again.err);
    let body: serde_json::Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(
        (body["schema"].as_str(), body["content_key_listed"].as_bool()),
        (Some("fleet/v1/login"), Some(true))
    );
    world.state(|state| assert_eq!(state.bundle.version, 2));
}

#[test]
fn another_controller_is_refused_before_the_invite_is_sent() {
    let (ours, other) = (World::new(), World::new());
    let args = ["login", &ours.invite, "--server", &other.enrol, "--server-name", crate::world::SERVER_NAME];
    let ended = ours.run(&args);
    assert_eq!(ended.code, 10, "{}", ended.err);
    assert!(
        ended.err.contains("error[controller-refused]") && ended.err.contains("not the one in the token"),
        "{}",
        ended.err
    );
    assert!(!ended.err.contains(&ours.invite), "the invite is a secret");
    other.state(|state| assert_eq!(state.content_key, None));
}

#[test]
fn a_root_key_of_another_fleet_is_not_used() {
    let (ours, other) = (World::new(), World::new());
    let ended = ours.login(&["--root-key", other.root_key().to_str().unwrap()]);
    assert_eq!(ended.code, 12, "{}", ended.err);
    ours.state(|state| assert_eq!(state.bundle.version, 1));
}

#[test]
fn an_exposed_key_and_a_lost_controller_are_told_apart() {
    let world = World::signed_in();
    let key = world.path().join("config/contexts/prod/identity/a/key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ended = world.run(&["whoami"]);
    assert_eq!(ended.code, 10);
    assert!(ended.err.contains("chmod 600"), "{}", ended.err);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let file = world.path().join("config/config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    // Port 1 is nobody's.
    std::fs::write(&file, text.replace(&world.endpoint, "127.0.0.1:1")).unwrap();
    let ended = world.run(&["whoami", "-o", "json"]);
    assert_eq!(ended.code, 9, "{}", ended.err);
    let error: serde_json::Value = serde_json::from_str(&ended.err).unwrap();
    assert_eq!(error["code"], "not-reachable");
}
