//! Client certificates that the controller must refuse, each by name (T31, T32).

use fleet_certs::accept::AcceptError;
use fleet_certs::ca::Authority;
use fleet_certs::revoke::Denied;
use fleet_certs::tls::{EnrolmentClient, TlsError, TlsIdentity};
use fleet_certs::verify::NameError;
use fleet_certs::{CertFault, OwnFault, Role};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose as Eku, IsCa, KeyUsagePurpose, SanType};

use crate::world::{Met, World, connector, dns, forge, meet, refused, server_name, uri};

fn spoiled(world: &World, role: Role, spoil: impl FnOnce(&mut CertificateParams)) -> TlsIdentity {
    let mut params = world.params(role);
    spoil(&mut params);
    forge(if role == Role::Agent { &world.agents } else { &world.operators }, &params)
}

#[tokio::test]
async fn honest_agents_and_operators_are_known_by_their_names() {
    let world = World::new();
    let mut server = world.serve().await;
    for role in [Role::Agent, Role::Operator] {
        let client = world.mutual_client(world.honest(role)).build().unwrap();
        let met = meet(&server, &connector(&client)).await;
        let Met::Served(stream) = met else { panic!("{met:?}") };
        assert_eq!(stream.controller().unwrap().identity.to_string(), world.name(Role::Controller));
        let peer = server.seen().await.unwrap().unwrap();
        assert_eq!(peer.identity.to_string(), world.name(role));
    }
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one table, read from top to bottom")]
async fn odd_client_certificates_are_refused_by_name() {
    let world = World::new();
    let other = World::of("0192f0c1-0000-7000-8000-00000000000f");
    let agent = |spoil: &dyn Fn(&mut CertificateParams)| spoiled(&world, Role::Agent, spoil);
    let two = || NameError::ManyNames(2);
    let name = CertFault::Name;
    let wrong_role = |named, expected| CertFault::Name(NameError::WrongRole { named, expected });
    let cases: Vec<(&str, TlsIdentity, CertFault, OwnFault)> = vec![
        ("no san", agent(&|p| p.subject_alt_names.clear()), name(NameError::NoName), OwnFault::NotAccepted),
        (
            "two uris",
            agent(&|p| p.subject_alt_names.push(uri("fleet://x"))),
            name(two()),
            OwnFault::NotAccepted,
        ),
        (
            "the same uri twice",
            agent(&|p| p.subject_alt_names.push(uri(&world.name(Role::Agent)))),
            name(two()),
            OwnFault::NotAccepted,
        ),
        (
            "dns name added",
            agent(&|p| p.subject_alt_names.push(dns("node.example"))),
            name(NameError::OtherName("DNS")),
            OwnFault::NotAccepted,
        ),
        (
            "dns name alone",
            agent(&|p| p.subject_alt_names = vec![dns("node.example")]),
            name(NameError::OtherName("DNS")),
            OwnFault::NotAccepted,
        ),
        (
            "address added",
            agent(&|p| p.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()))),
            name(NameError::OtherName("address")),
            OwnFault::NotAccepted,
        ),
        (
            "mail added",
            agent(&|p| p.subject_alt_names.push(SanType::Rfc822Name("a@b.example".try_into().unwrap()))),
            name(NameError::OtherName("mail")),
            OwnFault::NotAccepted,
        ),
        (
            "operator's name from the agent authority",
            forge(&world.agents, &world.params(Role::Operator)),
            wrong_role(Role::Operator, Role::Agent),
            OwnFault::NotAccepted,
        ),
        (
            "agent's name from the operator authority",
            forge(&world.operators, &world.params(Role::Agent)),
            wrong_role(Role::Agent, Role::Operator),
            OwnFault::NotAccepted,
        ),
        (
            "controller's name from the agent authority",
            agent(&|p| p.subject_alt_names = vec![uri(&world.name(Role::Controller))]),
            wrong_role(Role::Controller, Role::Agent),
            OwnFault::NotAccepted,
        ),
        (
            "from the controller authority",
            forge(&world.controllers, &world.params(Role::Agent)),
            CertFault::UnknownIssuer,
            OwnFault::UnknownAuthority,
        ),
        (
            "no extended key usage",
            agent(&|p| p.extended_key_usages.clear()),
            name(NameError::NoExtendedKeyUsage),
            OwnFault::NotAccepted,
        ),
        (
            "server authentication",
            agent(&|p| p.extended_key_usages = vec![Eku::ServerAuth]),
            CertFault::WrongPurpose,
            OwnFault::WrongPurpose,
        ),
        (
            "any extended key usage",
            agent(&|p| p.extended_key_usages = vec![Eku::Any]),
            CertFault::WrongPurpose,
            OwnFault::WrongPurpose,
        ),
        (
            "server authentication too",
            agent(&|p| p.extended_key_usages.push(Eku::ServerAuth)),
            name(NameError::WrongExtendedKeyUsage("client authentication")),
            OwnFault::NotAccepted,
        ),
        (
            "no key usage",
            agent(&|p| p.key_usages.clear()),
            name(NameError::WrongKeyUsage),
            OwnFault::NotAccepted,
        ),
        (
            "more key usages",
            agent(&|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)),
            name(NameError::WrongKeyUsage),
            OwnFault::NotAccepted,
        ),
        (
            "name of another fleet",
            agent(&|p| p.subject_alt_names = vec![uri(&other.name(Role::Agent))]),
            name(NameError::OtherFleet { named: other.fleet, expected: world.fleet }),
            OwnFault::NotAccepted,
        ),
        (
            "foreign authority",
            other.honest(Role::Agent),
            CertFault::UnknownIssuer,
            OwnFault::UnknownAuthority,
        ),
        (
            "expired",
            agent(&|p| p.not_after = world.day(0) - time::Duration::SECOND),
            CertFault::Expired {
                not_after: world.now.minus(std::time::Duration::from_secs(1)),
                now: world.now,
            },
            OwnFault::NotValidNow,
        ),
        (
            "not yet valid",
            agent(&|p| p.not_before = world.day(0) + time::Duration::SECOND),
            CertFault::NotYetValid {
                not_before: world.now.plus(std::time::Duration::from_secs(1)),
                now: world.now,
            },
            OwnFault::NotValidNow,
        ),
    ];
    let mut server = world.serve().await;
    for (what, identity, fault, alert) in cases {
        let client = world.mutual_client(identity).build_unchecked().unwrap();
        let met = meet(&server, &connector(&client)).await;
        let seen = server.seen().await;
        // Who was refused can be audited exactly when one of our authorities stands behind the name.
        let ours = matches!(fault, CertFault::Name(_));
        assert!(
            matches!(&seen, Err(AcceptError::Certificate { presented, .. }) if presented.is_some() == ours),
            "{what}"
        );
        assert_eq!(refused(seen), fault, "{what}");
        assert!(matches!(&met, Met::Refused(told) if *told == alert), "{what}: {met:?}");
    }
    // T32: after all of that the server still accepts.
    let client = world.mutual_client(world.honest(Role::Agent)).build().unwrap();
    assert!(matches!(meet(&server, &connector(&client)).await, Met::Served(_)));
    assert!(server.seen().await.is_ok());
}

#[tokio::test]
async fn malformed_names_and_keys_are_refused() {
    let world = World::new();
    let mut server = world.serve().await;
    let good = world.name(Role::Agent);
    for bad in
        [good.to_uppercase(), format!("{good}/"), good.replace("agent", "admin"), "https://x".to_owned()]
    {
        let identity = spoiled(&world, Role::Agent, |p| p.subject_alt_names = vec![uri(&bad)]);
        let client = world.mutual_client(identity).build_unchecked().unwrap();
        assert!(matches!(meet(&server, &connector(&client)).await, Met::Refused(OwnFault::NotAccepted)));
        let fault = refused(server.seen().await);
        assert!(matches!(fault, CertFault::Name(NameError::Malformed(_))), "{bad}: {fault:?}");
    }
}

/// An agent's certificate must not vouch for others, even where the agent calls itself an authority.
#[tokio::test]
async fn an_agent_cannot_issue_certificates() {
    let world = World::new();
    let mut server = world.serve().await;
    for posing in [false, true] {
        let mut middle = world.params(Role::Agent);
        if posing {
            // Signed by the real authority, by whatever mistake: only what it signs itself counts.
            middle.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            middle.key_usages.push(KeyUsagePurpose::KeyCertSign);
        }
        let pem = world.agents.key_pem();
        let root =
            rcgen::Issuer::from_ca_cert_der(world.agents.certificate(), crate::world::key_of(&pem)).unwrap();
        let middle_key = rcgen::KeyPair::generate().unwrap();
        let middle_certificate = middle.signed_by(&middle_key, &root).unwrap();
        let issuer = rcgen::Issuer::new(middle, middle_key);
        let key = fleet_certs::csr::PrivateKey::generate().unwrap();
        let leaf =
            world.params(Role::Agent).signed_by(&crate::world::key_of(&key.to_pem()), &issuer).unwrap();
        let chain =
            vec![leaf.der().clone(), middle_certificate.der().clone(), world.agents.certificate().clone()];
        let client = world.mutual_client(TlsIdentity::new(chain, &key)).build_unchecked().unwrap();
        let met = meet(&server, &connector(&client)).await;
        assert!(matches!(met, Met::Refused(_)), "{posing}: {met:?}");
        let fault = refused(server.seen().await);
        assert_eq!(fault, CertFault::UnknownIssuer);
    }
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let world = World::new();
    let mut server = world.serve().await;
    let pins = vec![world.controllers.pin()];
    let client = EnrolmentClient { pins, fleet: None, server_name: server_name(), clock: world.clock.tls() };
    let met = meet(&server, &connector(&client.build().unwrap())).await;
    assert!(matches!(met, Met::Refused(OwnFault::Missing)), "{met:?}");
    assert_eq!(refused(server.seen().await), CertFault::Missing);
}

#[tokio::test]
async fn a_listener_takes_only_the_roles_that_it_has_authorities_for() {
    let world = World::new();
    let mut settings = world.mutual_server(world.honest(Role::Controller));
    settings.agent_authorities.clear();
    let mut server = crate::world::Server::start(settings.build().unwrap(), world.fleet).await;
    let agent = world.mutual_client(world.honest(Role::Agent)).build().unwrap();
    assert!(matches!(meet(&server, &connector(&agent)).await, Met::Refused(OwnFault::UnknownAuthority)));
    assert_eq!(refused(server.seen().await), CertFault::UnknownIssuer);
    let operator = world.mutual_client(world.honest(Role::Operator)).build().unwrap();
    assert!(matches!(meet(&server, &connector(&operator)).await, Met::Served(_)));
    settings.operator_authorities.clear();
    assert!(matches!(settings.build(), Err(TlsError::NoAuthorities)));
}

#[tokio::test]
async fn the_deny_list_is_consulted_in_the_handshake() {
    let world = World::new();
    let mut server = world.serve().await;
    let identity = world.honest(Role::Agent);
    let peer = identity.describe().unwrap();
    let client = connector(&world.mutual_client(identity).build().unwrap());
    assert!(matches!(meet(&server, &client).await, Met::Served(_)));
    server.seen().await.unwrap();
    let lists = [
        Denied { version: 1, nodes: [World::node()].into(), ..Denied::default() },
        Denied { version: 2, serials: [peer.serial.clone()].into(), ..Denied::default() },
    ];
    for list in lists {
        world.denied.replace(list).unwrap();
        assert!(matches!(meet(&server, &client).await, Met::Refused(OwnFault::Revoked)));
        let seen = server.seen().await;
        let Err(AcceptError::Certificate { fault: CertFault::Revoked, presented: Some(presented) }) = seen
        else {
            panic!("{seen:?}")
        };
        assert_eq!((presented.name, presented.serial), (Some(peer.identity), Some(peer.serial.clone())));
    }
    world
        .denied
        .replace(Denied { version: 3, operators: [World::person()].into(), ..Denied::default() })
        .unwrap();
    assert!(matches!(meet(&server, &client).await, Met::Served(_)));
}

#[tokio::test]
async fn two_generations_of_an_authority_are_trusted_while_it_rotates() {
    let world = World::new();
    let next = Authority::create(Role::Agent, world.fleet, world.now, crate::world::YEAR).unwrap();
    let mut settings = world.mutual_server(world.honest(Role::Controller));
    settings.agent_authorities.push(next.certificate().clone());
    let server = crate::world::Server::start(settings.build().unwrap(), world.fleet).await;
    for identity in [world.honest(Role::Agent), forge(&next, &world.params(Role::Agent))] {
        let client = world.mutual_client(identity).build().unwrap();
        assert!(matches!(meet(&server, &connector(&client)).await, Met::Served(_)));
    }
}
