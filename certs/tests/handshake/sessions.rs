//! No handshake is ever resumed, and settings are replaced while running.

use std::sync::Arc;

use fleet_certs::{ClientConfig, Role, ServerConfig};
use rustls::HandshakeKind;
use rustls::client::Resumption;
use rustls::server::ServerSessionMemoryCache;

use crate::world::{Met, Server, World, connector, meet};

/// Connects twice with one client configuration; what the second handshake was.
async fn second_handshake(
    world: &World,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
) -> HandshakeKind {
    let server = Server::start(server, world.fleet).await;
    let connector = connector(&client);
    let mut kind = None;
    for _ in 0..2 {
        let met = meet(&server, &connector).await;
        let Met::Served(stream) = met else { panic!("{met:?}") };
        kind = stream.tls().get_ref().1.handshake_kind();
    }
    kind.unwrap()
}

#[tokio::test]
async fn the_second_handshake_is_full_even_when_one_side_would_resume() {
    let world = World::new();
    let server = world.mutual_server(world.honest(Role::Controller)).build().unwrap();
    let client = world.mutual_client(world.honest(Role::Agent)).build().unwrap();
    let mut eager_server = ServerConfig::clone(&server);
    eager_server.send_tls13_tickets = 2;
    eager_server.session_storage = ServerSessionMemoryCache::new(8);
    let mut eager_client = ClientConfig::clone(&client);
    eager_client.resumption = Resumption::in_memory_sessions(8);
    let (eager_server, eager_client) = (Arc::new(eager_server), Arc::new(eager_client));

    // Two eager sides do resume: so the cases below can fail.
    let resumed = second_handshake(&world, Arc::clone(&eager_server), Arc::clone(&eager_client)).await;
    assert_eq!(resumed, HandshakeKind::Resumed);
    for (server, client) in [(&server, &client), (&server, &eager_client), (&eager_server, &client)] {
        let kind = second_handshake(&world, Arc::clone(server), Arc::clone(client)).await;
        assert!(matches!(kind, HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest), "{kind:?}");
    }
    assert!(!server.session_storage.can_cache() && server.send_tls13_tickets == 0);
}

#[tokio::test]
async fn both_sides_take_new_settings_for_the_next_connection() {
    let world = World::new();
    let mut server = world.serve().await;
    let (first, second) = (world.honest(Role::Agent), world.honest(Role::Agent));
    let serials = [&first, &second].map(|identity| identity.describe().unwrap().serial);
    let (publisher, tls) = fleet_certs::tls::publish(world.mutual_client(first).build().unwrap());
    let connector = fleet_certs::dial::Connector::new(tls, crate::world::server_name());

    let Met::Served(stream) = meet(&server, &connector).await else { panic!("not served") };
    let before = stream.controller().unwrap().serial;
    assert_eq!(server.seen().await.unwrap().unwrap().serial, serials[0]);

    publisher.send_replace(world.mutual_client(second).build().unwrap());
    server.tls.send_replace(world.mutual_server(world.honest(Role::Controller)).build().unwrap());
    let Met::Served(stream) = meet(&server, &connector).await else { panic!("not served") };
    assert_ne!(stream.controller().unwrap().serial, before);
    assert_eq!(server.seen().await.unwrap().unwrap().serial, serials[1]);
}
