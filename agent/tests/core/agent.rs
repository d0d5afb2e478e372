//! A running core with a scripted executor behind the socket pair.

use std::net::SocketAddr;
use std::sync::Arc;

use fleet_agent::config::{Config, validated};
use fleet_agent::core::identity::OwnIdentity;
use fleet_agent::core::start::{Core, CoreError};
use fleet_executor::socket::{self, ExecutorPort};
use fleet_proto::pb;
use fleet_proto::pb::{core_message, executor_message};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::fleet::{Fleet, SERVER_NAME};
use crate::wait::within;

pub struct Agent {
    pub executor: Executor,
    pub stop: CancellationToken,
    running: AbortOnDropHandle<Result<(), CoreError>>,
    _folder: Arc<TempDir>,
}

/// The executor's side, played by the test.
pub struct Executor {
    port: Option<ExecutorPort>,
    /// What it says about itself at start and after every link.
    pub hello: pb::Hello,
}

/// Timers at about 1/50, those that a busy machine could miss a little longer.
pub fn config(folder: &TempDir, controller: SocketAddr, more: &[&str]) -> Config {
    let path = folder.path().display();
    let mut sets = vec![
        format!("controller.endpoints=[{{ address = \"{controller}\" }}]"),
        format!("controller.enrol={controller}"),
        format!("controller.server_name={SERVER_NAME}"),
        format!("identity.directory={path}/identity"),
        format!("runtime.state_directory={path}/state"),
    ];
    let timers = [
        "controller.backoff.min=20ms",
        "controller.backoff.max=500ms",
        "controller.connect_timeout=5s",
        "link.heartbeat=200ms",
        "timers.stable_link=1200ms",
        "timers.spread=40ms",
        "timers.keepalive=400ms",
        "timers.hello=5s",
        "timers.report_resend=100ms",
        "timers.document=200ms",
        "timers.drain=2s",
    ];
    sets.extend(timers.iter().chain(more).map(|set| (*set).to_owned()));
    validated::load(None, [], &sets).unwrap()
}

impl Agent {
    /// A core with an identity of the fleet, dialling `controller`.
    pub async fn start(fleet: &Fleet, controller: SocketAddr) -> Self {
        Self::start_with(fleet, controller, &[]).await
    }

    /// The same with more settings.
    pub async fn start_with(fleet: &Fleet, controller: SocketAddr, more: &[&str]) -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        fleet.store_identity(&config(&folder, controller, more).identity_directory);
        Self::start_in(folder, controller, more).await
    }

    /// A core with the identity that lies in the folder already.
    pub async fn start_in(folder: Arc<TempDir>, controller: SocketAddr, more: &[&str]) -> Self {
        let config = config(&folder, controller, more);
        let identity = OwnIdentity::load(&config.identity_directory).unwrap();
        let (core, executor) = socket::pair().unwrap();
        let mut executor = Executor { port: Some(ExecutorPort::bind(executor).unwrap()), hello: hello() };
        let stop = CancellationToken::new();
        let half = Core::new(&config, &identity).unwrap();
        let running = AbortOnDropHandle::new(tokio::spawn(half.run(core, stop.clone())));
        executor.send(executor_message::Body::Ready(pb::Ready { hello: Some(hello()) })).await;
        Self { executor, stop, running, _folder: folder }
    }

    /// How the core ended.
    pub async fn ended(self) -> Result<(), CoreError> {
        within("the core ends", self.running).await.unwrap()
    }
}

pub fn hello() -> pb::Hello {
    pb::Hello { protocol_min: 1, protocol_max: 1, boot_id: "boot-1".to_owned(), ..Default::default() }
}

impl Executor {
    fn port(&mut self) -> &mut ExecutorPort {
        self.port.as_mut().expect("the executor is there")
    }

    /// The executor is gone.
    pub fn close(&mut self) {
        self.port = None;
    }

    pub async fn send(&mut self, body: executor_message::Body) {
        let message = pb::ExecutorMessage { body: Some(body) };
        within("the core takes a message", self.port().sender.send(&message)).await.unwrap();
    }

    pub async fn next(&mut self) -> core_message::Body {
        let body = loop {
            let receiving = self.port().receiver.receive();
            let message = within("the core sends to the executor", receiving).await.unwrap();
            let body = message.expect("the socket is open").body.expect("a body");
            if !matches!(body, core_message::Body::Alive(_)) {
                break body;
            }
        };
        if matches!(body, core_message::Body::LinkDown(_)) {
            // As the executor does: the next Hello needs the newest numbers.
            let hello = Some(self.hello.clone());
            self.send(executor_message::Body::Ready(pb::Ready { hello })).await;
        }
        body
    }

    /// Takes the link's values and lists what is open.
    pub async fn link_up(&mut self, jobs: Vec<pb::JobUpdate>) -> pb::LinkUp {
        loop {
            match self.next().await {
                core_message::Body::LinkUp(up) => {
                    self.hello.epoch_seen = up.link_epoch;
                    self.send(executor_message::Body::Reconcile(pb::ReconcilePage { jobs, last: true }))
                        .await;
                    return up;
                }
                core_message::Body::LinkDown(_) => {}
                other => panic!("{other:?} instead of link up"),
            }
        }
    }
}
