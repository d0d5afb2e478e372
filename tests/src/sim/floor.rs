//! The floor's process: bare tonic over the same accept path as the controller. `push` comes on standard input.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet_certs::ca::Authority;
use fleet_certs::csr::{PrivateKey, RequestedKey};
use fleet_certs::name::Identity;
use fleet_certs::revoke::{Denied, DenyList};
use fleet_certs::tls::{MutualServer, ServerTls, TlsClock, TlsIdentity, publish};
use fleet_certs::{Role, accept, dispatch, files, issue};
use fleet_controller::edge::listener;
use fleet_proto::pb::agent_service_server::AgentServiceServer;
use fleet_types::id::{ControllerId, FleetId};
use fleet_types::seal::{Envelope, SigningKey};
use fleet_types::trust::DispatchStatement;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use super::floor_service::{Floor, PeerStream, Shared};
use super::plan::{FloorPlan, Said};
use super::store_floor::Records;
use super::worker::say;
use crate::channel::{SERVER_NAME, server_name};
use crate::clock;
use crate::fake_agent::Credentials;

/// As on the controller: handshakes under way, finished ones waiting, HTTP/2 pings, streams.
const HANDSHAKES: usize = 256;
const READY: usize = 64;
const PING: Duration = Duration::from_secs(20);
const STREAMS: u32 = 64;
/// Longer than a measurement.
const LIFE: Duration = Duration::from_hours(1);

fn authority(plan: &FloorPlan, role: Role) -> Result<Authority> {
    let certificate = files::read_text(&plan.pki.join(format!("{role}-ca.pem")))?;
    let key = files::read_secret(&plan.pki.join(format!("{role}-ca.key")))?;
    Ok(Authority::from_pem(role, &certificate, &key)?)
}

fn shared(
    plan: &FloorPlan,
    controllers: &Authority,
    controller: ControllerId,
    records: Records,
) -> Result<Shared> {
    let dispatch_key = SigningKey::generate()?.0;
    let now = clock::now();
    let statement = DispatchStatement {
        fleet: plan.fleet,
        controller,
        key: dispatch_key.public(),
        not_before: now.minus(LIFE),
        not_after: now.plus(LIFE),
    };
    let statement = dispatch::certify(controllers, &statement)?;
    let mut report_keys = HashMap::new();
    for path in &plan.credentials {
        let nodes: Vec<Credentials> = serde_json::from_slice(&std::fs::read(path)?)?;
        for node in nodes {
            report_keys.insert(node.node, node.report_key()?.public());
        }
    }
    let mut requests = HashMap::new();
    for round in &plan.rounds {
        let envelope: Envelope = serde_json::from_slice(&round.envelope)?;
        requests.insert(envelope.digest(), round.envelope.clone());
    }
    Ok(Shared::new(plan.fleet, (dispatch_key, statement), records, report_keys, requests))
}

/// Serves until standard input ends.
pub async fn run(plan: FloorPlan) -> Result<()> {
    let controllers = authority(&plan, Role::Controller)?;
    let controller = ControllerId::from_uuid(uuid::Uuid::new_v4());
    let records = Records::open(&plan.store, plan.sizes).await?;
    let shared = Arc::new(shared(&plan, &controllers, controller, records)?);
    let key = PrivateKey::generate()?;
    let issued = issue::controller(
        &controllers,
        (plan.fleet, controller),
        &[SERVER_NAME.to_owned()],
        &RequestedKey::of(&key)?,
        clock::now(),
        LIFE,
    )?;
    let tls = MutualServer {
        fleet: plan.fleet,
        identity: TlsIdentity::new(issued.chain, &key),
        server_name: server_name(),
        controller_authorities: vec![controllers.certificate().clone()],
        agent_authorities: vec![authority(&plan, Role::Agent)?.certificate().clone()],
        operator_authorities: vec![authority(&plan, Role::Operator)?.certificate().clone()],
        denied: DenyList::new(Denied::default()),
        clock: TlsClock::reading(clock::now),
    };
    let (_keep, tls) = publish(tls.build()?);
    let listener = listener::listen("127.0.0.1:0".parse()?)?;
    let address = listener.local_addr()?;
    let (ready, incoming) = mpsc::channel(READY);
    tokio::spawn(accepting(listener, tls, plan.fleet, ready));
    let service = AgentServiceServer::new(Floor(Arc::clone(&shared)));
    tokio::spawn(
        Server::builder()
            .http2_keepalive_interval(Some(PING))
            .http2_keepalive_timeout(Some(PING))
            .max_concurrent_streams(Some(STREAMS))
            .add_service(service)
            .serve_with_incoming(ReceiverStream::new(incoming)),
    );
    say(&Said::Serving { address })?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut rounds = plan.rounds.iter();
    while lines.next_line().await?.is_some() {
        let round = rounds.next().context("no more rounds")?;
        let envelope: Envelope = serde_json::from_slice(&round.envelope)?;
        shared.push(round, envelope.digest()).await?;
    }
    Ok(())
}

async fn accepting(
    listener: TcpListener,
    tls: ServerTls,
    fleet: FleetId,
    ready: mpsc::Sender<std::io::Result<PeerStream>>,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((socket, _)) = listener.accept().await else { continue };
        let (tls, ready) = (tls.clone(), ready.clone());
        tokio::spawn(async move {
            if let Some(peer) = shake_hands(&tls, socket, fleet).await {
                drop(place);
                let _ = ready.send(Ok(peer)).await;
            }
        });
    }
}

async fn shake_hands(tls: &ServerTls, socket: TcpStream, fleet: FleetId) -> Option<PeerStream> {
    socket.set_nodelay(true).ok()?;
    let stream = accept::handshake(tls, socket).await.ok()?;
    match accept::peer(&stream, fleet).ok()?.identity {
        Identity::Agent(_, node) => Some(PeerStream { stream, node }),
        _ => None,
    }
}
