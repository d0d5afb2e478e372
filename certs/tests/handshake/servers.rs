//! Server certificates that clients must refuse, each by name, and clocks that are wrong (T14).

use fleet_certs::dial::DialError;
use fleet_certs::tls::{TlsError, TlsIdentity};
use fleet_certs::verify::NameError;
use fleet_certs::{CertFault, Role};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose as Eku, SanType};

use crate::world::{Met, SERVER_NAME, Server, World, connector, dns, forge, meet, uri};

fn fault_of(met: Met) -> CertFault {
    match met {
        Met::Failed(DialError::TheirCertificate { fault, .. }) => fault,
        other => panic!("expected a refused server certificate, got {other:?}"),
    }
}

#[tokio::test]
async fn odd_server_certificates_are_refused_by_name() {
    let world = World::new();
    let other = World::of("0192f0c1-0000-7000-8000-00000000000f");
    let spoiled = |spoil: &dyn Fn(&mut CertificateParams)| {
        let mut params = world.params(Role::Controller);
        spoil(&mut params);
        forge(&world.controllers, &params)
    };
    let name = CertFault::Name;
    let second = std::time::Duration::from_secs(1);
    let cases: Vec<(&str, TlsIdentity, CertFault)> = vec![
        ("no uri", spoiled(&|p| p.subject_alt_names = vec![dns(SERVER_NAME)]), name(NameError::NoName)),
        (
            "two uris",
            spoiled(&|p| p.subject_alt_names.push(uri(&world.name(Role::Controller)))),
            name(NameError::ManyNames(2)),
        ),
        (
            "mail added",
            spoiled(&|p| p.subject_alt_names.push(SanType::Rfc822Name("a@b.example".try_into().unwrap()))),
            name(NameError::OtherName("mail")),
        ),
        (
            "an agent's name",
            spoiled(&|p| p.subject_alt_names = vec![uri(&world.name(Role::Agent)), dns(SERVER_NAME)]),
            name(NameError::WrongRole { named: Role::Agent, expected: Role::Controller }),
        ),
        (
            "another fleet's name",
            spoiled(&|p| p.subject_alt_names = vec![uri(&other.name(Role::Controller)), dns(SERVER_NAME)]),
            name(NameError::OtherFleet { named: other.fleet, expected: world.fleet }),
        ),
        (
            "no extended key usage",
            spoiled(&|p| p.extended_key_usages.clear()),
            name(NameError::NoExtendedKeyUsage),
        ),
        (
            "client authentication",
            spoiled(&|p| p.extended_key_usages = vec![Eku::ClientAuth]),
            CertFault::WrongPurpose,
        ),
        (
            "client authentication too",
            spoiled(&|p| p.extended_key_usages.push(Eku::ClientAuth)),
            name(NameError::WrongExtendedKeyUsage("server authentication")),
        ),
        ("no key usage", spoiled(&|p| p.key_usages.clear()), name(NameError::WrongKeyUsage)),
        ("foreign authority", other.honest(Role::Controller), CertFault::UnknownIssuer),
        (
            "from the agent authority",
            forge(&world.agents, &world.params(Role::Controller)),
            CertFault::UnknownIssuer,
        ),
        ("an agent's certificate", world.honest(Role::Agent), CertFault::WrongPurpose),
        (
            "expired",
            spoiled(&|p| p.not_after = world.day(0) - time::Duration::SECOND),
            CertFault::Expired { not_after: world.now.minus(second), now: world.now },
        ),
        (
            "not yet valid",
            spoiled(&|p| p.not_before = world.day(0) + time::Duration::SECOND),
            CertFault::NotYetValid { not_before: world.now.plus(second), now: world.now },
        ),
    ];
    let client = connector(&world.mutual_client(world.honest(Role::Agent)).build().unwrap());
    for (what, identity, fault) in cases {
        let settings = world.mutual_server(identity);
        // The controller would not even start with it.
        match settings.build() {
            Err(TlsError::OwnCertificate(own)) => assert_eq!(own, fault, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        let server = Server::start(settings.build_unchecked().unwrap(), world.fleet).await;
        assert_eq!(fault_of(meet(&server, &client).await), fault, "{what}");
    }
}

/// The address that is dialled is 127.0.0.1 and stands in no certificate: the configured name counts.
#[tokio::test]
async fn the_configured_name_is_checked_whatever_address_is_dialled() {
    let world = World::new();
    let client = connector(&world.mutual_client(world.honest(Role::Agent)).build().unwrap());
    let mut params = world.params(Role::Controller);
    params.subject_alt_names = vec![
        uri(&world.name(Role::Controller)),
        dns("other.example"),
        SanType::IpAddress([127, 0, 0, 1].into()),
    ];
    let odd = world.mutual_server(forge(&world.controllers, &params)).build_unchecked().unwrap();
    let server = Server::start(odd, world.fleet).await;
    match fault_of(meet(&server, &client).await) {
        CertFault::WrongServerName { expected, presented } => {
            assert_eq!(expected, SERVER_NAME);
            assert_eq!(presented, ["other.example", "127.0.0.1"]);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(meet(&world.serve().await, &client).await, Met::Served(_)));
}

#[tokio::test]
async fn an_agent_five_years_behind_is_told_to_set_its_clock_and_recovers() {
    let world = World::new();
    let server = world.serve().await;
    let settings = world.mutual_client(world.honest(Role::Agent));
    let client = connector(&settings.build().unwrap());
    let dead = "2021-11-22T12:00:00Z".parse().unwrap();
    world.clock.set(dead);
    let fault = fault_of(meet(&server, &client).await);
    assert!(matches!(fault, CertFault::NotYetValid { now, .. } if now == dead), "{fault:?}");
    assert!(fault.to_string().ends_with("set the clock"), "{fault}");
    // Found before dialling, too.
    let own = settings.build().unwrap_err();
    assert!(matches!(own, TlsError::OwnCertificate(CertFault::NotYetValid { .. })), "{own:?}");
    world.clock.set(world.now);
    assert!(matches!(meet(&server, &client).await, Met::Served(_)));
}

#[tokio::test]
async fn a_client_checks_its_own_certificate_before_it_uses_it() {
    let world = World::new();
    let other = World::of("0192f0c1-0000-7000-8000-00000000000f");
    let build = |identity| world.mutual_client(identity).build();
    assert!(matches!(build(world.honest(Role::Controller)), Err(TlsError::OwnRole(Role::Controller))));
    assert!(matches!(build(other.honest(Role::Agent)), Err(TlsError::OwnCertificate(CertFault::Name(_)))));
    world.clock.set(world.now.plus(crate::world::YEAR / 2));
    assert!(matches!(
        build(world.honest(Role::Agent)),
        Err(TlsError::OwnCertificate(CertFault::Expired { .. }))
    ));
}
