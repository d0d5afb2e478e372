//! The connector's errors and socket options, and the server's handshake limit.

use std::time::Duration;

use fleet_certs::Role;
use fleet_certs::accept::{AcceptError, handshake_within};
use fleet_certs::dial::{Connector, DialError};
use fleet_certs::tls::publish;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use crate::world::{World, connector, within};

fn dialler(world: &World) -> Connector {
    connector(&world.mutual_client(world.honest(Role::Agent)).build().unwrap())
}

async fn listener() -> (TcpListener, http::Uri) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    (listener, uri)
}

#[tokio::test]
async fn the_socket_is_set_up_and_the_service_form_works() {
    let world = World::new();
    let server = world.serve().await;
    let stream = within("the connection", dialler(&world).oneshot(server.uri())).await.unwrap().into_inner();
    let tcp = stream.tls().get_ref().0;
    assert!(tcp.nodelay().unwrap());
    assert_eq!(rustix::net::sockopt::tcp_user_timeout(tcp).unwrap(), 60_000);
}

#[tokio::test]
async fn failures_are_told_apart() {
    let world = World::new();
    let dialler = dialler(&world).with_limits(Duration::from_secs(5), Duration::from_millis(50));

    let (gone, uri) = listener().await;
    drop(gone);
    let error = dialler.dial(&uri).await.unwrap_err();
    assert!(matches!(error, DialError::Refused { .. }), "{error:?}");

    // Accepted by the kernel, answered by nobody.
    let (_silent, uri) = listener().await;
    let error = within("the limit", dialler.dial(&uri)).await.unwrap_err();
    assert!(matches!(error, DialError::Timeout { stage: "the tls handshake", .. }), "{error:?}");

    let (plain, uri) = listener().await;
    let dialler = dialler.with_limits(Duration::from_secs(5), Duration::from_secs(5));
    let answer = async {
        let (mut tcp, _) = plain.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        tcp
    };
    let (error, _tcp) = within("both", async { tokio::join!(dialler.dial(&uri), answer) }).await;
    let error = error.unwrap_err();
    assert!(matches!(error, DialError::Handshake { .. }), "{error:?}");

    for bad in ["fleet.example", "/", "https://fleet.example"] {
        let error = dialler.dial(&bad.parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, DialError::Address(_)), "{bad}: {error:?}");
    }
}

#[tokio::test]
async fn errors_are_found_in_the_chain_of_another() {
    #[derive(Debug, thiserror::Error)]
    #[error("transport error")]
    struct Transport(#[source] DialError);
    let outer = Transport(DialError::Refused { address: "fleet.example:7443".to_owned() });
    assert!(matches!(DialError::find(&outer), Some(DialError::Refused { .. })));
    assert!(DialError::find(&std::io::Error::other("x")).is_none());
}

#[tokio::test]
async fn a_client_that_says_nothing_is_dropped_at_the_limit() {
    let world = World::new();
    let (_, tls) = publish(world.mutual_server(world.honest(Role::Controller)).build().unwrap());
    let (listener, uri) = listener().await;
    let _mute = TcpStream::connect(uri.authority().unwrap().as_str()).await.unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    let outcome = within("the limit", handshake_within(&tls, tcp, Duration::from_millis(50))).await;
    assert!(matches!(outcome, Err(AcceptError::Timeout)), "{outcome:?}");
}
