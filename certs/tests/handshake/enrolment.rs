//! Joining with a token: the authority's pin decides before anything is sent (security-and-delivery §1.6).

use fleet_certs::accept::AcceptError;
use fleet_certs::csr::PrivateKey;
use fleet_certs::dial::DialError;
use fleet_certs::tls::{EnrolmentClient, EnrolmentServer, TlsError, TlsIdentity};
use fleet_certs::verify::NameError;
use fleet_certs::{CertFault, Role};
use fleet_types::digest::Digest;

use crate::world::{Met, Server, World, connector, forge, key_of, meet, server_name, uri};

fn server(world: &World, identity: TlsIdentity) -> EnrolmentServer {
    EnrolmentServer {
        fleet: world.fleet,
        identity,
        server_name: server_name(),
        controller_authorities: vec![world.controllers.certificate().clone()],
        clock: world.clock.tls(),
    }
}

fn client(world: &World, pins: Vec<Digest>) -> EnrolmentClient {
    EnrolmentClient { pins, fleet: None, server_name: server_name(), clock: world.clock.tls() }
}

#[tokio::test]
async fn the_pinned_controller_is_met_without_a_client_certificate() {
    let world = World::new();
    let mut server =
        Server::start(server(&world, world.honest(Role::Controller)).build().unwrap(), world.fleet).await;
    // While an authority rotates, a token carries two pins.
    let pins = vec![Digest::of(b"the next authority"), world.controllers.pin()];
    let met = meet(&server, &connector(&client(&world, pins).build().unwrap())).await;
    let Met::Served(stream) = met else { panic!("{met:?}") };
    // The joining side learns its fleet here.
    assert_eq!(stream.controller().unwrap().identity.fleet(), world.fleet);
    assert_eq!(server.seen().await.unwrap(), None);
    assert!(matches!(client(&world, vec![]).build(), Err(TlsError::NoAuthorities)));
}

#[tokio::test]
async fn an_impostor_gets_no_byte_of_the_caller() {
    let world = World::new();
    let impostor = World::new();
    let joiner = connector(&client(&world, vec![world.controllers.pin()]).build().unwrap());

    // Another authority altogether.
    let settings = server(&impostor, impostor.honest(Role::Controller));
    let mut met_server = Server::start(settings.build().unwrap(), world.fleet).await;
    let met = meet(&met_server, &joiner).await;
    let presented = vec![impostor.controllers.pin()];
    let Met::Failed(DialError::TheirCertificate { fault, .. }) = met else { panic!("{met:?}") };
    assert_eq!(fault, CertFault::NotPinned { presented });
    // The server never saw the handshake complete, so no key existed under which the caller could
    // have sent anything.
    assert!(matches!(met_server.seen().await, Err(AcceptError::Handshake(_))));

    // Its own certificate, with the pinned authority's (public) certificate sent along.
    let key = PrivateKey::generate().unwrap();
    let pem = impostor.controllers.key_pem();
    let issuer = rcgen::Issuer::from_ca_cert_der(world.controllers.certificate(), key_of(&pem)).unwrap();
    let leaf = world.params(Role::Controller).signed_by(&key_of(&key.to_pem()), &issuer).unwrap();
    let chain = vec![leaf.der().clone(), world.controllers.certificate().clone()];
    let identity = TlsIdentity::new(chain, &key);
    let mut met_server =
        Server::start(server(&world, identity).build_unchecked().unwrap(), world.fleet).await;
    let met = meet(&met_server, &joiner).await;
    let Met::Failed(DialError::TheirCertificate { fault, .. }) = met else { panic!("{met:?}") };
    assert_eq!(fault, CertFault::UnknownIssuer);
    assert!(matches!(met_server.seen().await, Err(AcceptError::Handshake(_))));
}

#[tokio::test]
async fn a_pinned_chain_must_still_be_a_controllers() {
    let world = World::new();
    let pins = vec![world.controllers.pin()];
    let mut params = world.params(Role::Controller);
    params.subject_alt_names[0] = uri(&world.name(Role::Agent));
    let odd = server(&world, forge(&world.controllers, &params));
    assert!(matches!(odd.build(), Err(TlsError::OwnCertificate(CertFault::Name(_)))));
    let met_server = Server::start(odd.build_unchecked().unwrap(), world.fleet).await;
    let met = meet(&met_server, &connector(&client(&world, pins.clone()).build().unwrap())).await;
    let Met::Failed(DialError::TheirCertificate { fault, .. }) = met else { panic!("{met:?}") };
    assert!(matches!(fault, CertFault::Name(NameError::WrongRole { .. })), "{fault:?}");

    // A rejoining node knows its fleet already.
    let good =
        Server::start(server(&world, world.honest(Role::Controller)).build().unwrap(), world.fleet).await;
    let mut stranger = client(&world, pins);
    stranger.fleet = Some("0192f0c1-0000-7000-8000-00000000000f".parse().unwrap());
    let met = meet(&good, &connector(&stranger.build().unwrap())).await;
    let Met::Failed(DialError::TheirCertificate { fault, .. }) = met else { panic!("{met:?}") };
    assert!(matches!(fault, CertFault::Name(NameError::OtherFleet { .. })), "{fault:?}");
}
