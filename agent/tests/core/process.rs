//! The binary itself, with the real executor below a private root, against the scripted controller.

use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;

use fleet_proto::pb::{self, agent_message};
use fleet_types::facts::NodeFacts;
use fleet_types::id::NodeId;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tonic::Status;
use uuid::Uuid;

use crate::controller::{Controller, Session};
use crate::enrolment::reply;
use crate::fleet::{Fleet, SERVER_NAME};
use crate::wait::within;

/// A node's folder with its configuration.
struct Node {
    folder: TempDir,
}

impl Node {
    fn new(agents: &str, enrol: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().display();
        fs::create_dir_all(folder.path().join("root/etc")).unwrap();
        let text = format!(
            "schema = \"fleet/v1\"\nkind = \"agent\"\nname = \"fw-1\"\n\
             [controller]\nendpoints = [{{ address = \"{agents}\" }}]\nenrol = \"{enrol}\"\n\
             server_name = \"{SERVER_NAME}\"\nbackoff = {{ min = \"20ms\", max = \"500ms\" }}\n\
             [identity]\ndirectory = \"{path}/identity\"\n\
             [runtime]\nstate_directory = \"{path}/state\"\nwork_directory = \"{path}/work\"\n\
             [timers]\nspread = \"20ms\"\ndrain = \"2s\"\n[dev]\nroot = \"{path}/root\"\n"
        );
        fs::write(folder.path().join("agent.toml"), text).unwrap();
        Self { folder }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("agent.toml")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet-agent"));
        command.args(arguments).arg("--config").arg(self.config()).env_clear().kill_on_drop(true);
        command
    }

    async fn call(&self, arguments: &[&str]) -> Output {
        within("the command ends", self.command(arguments).output()).await.unwrap()
    }

    async fn enrol(&self, token: &str, more: &[&str]) -> Output {
        let mut command = self.command(&["enrol"]);
        command.args(more).env("FLEET_JOIN_TOKEN", token);
        within("enrolment ends", command.output()).await.unwrap()
    }

    fn start(&self) -> Child {
        self.command(&["run"]).stderr(Stdio::inherit()).spawn().unwrap()
    }
}

fn code(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn terminate(mut child: Child) -> Option<i32> {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    within("the agent ends after SIGTERM", child.wait()).await.unwrap().code()
}

async fn linked(controller: &mut Controller, fleet: &Fleet, epoch: u64) -> (pb::Hello, Session) {
    let mut session = controller.session().await;
    let hello = session.hello().await;
    session.welcome_signed(epoch, fleet.dispatch()).await;
    assert!(matches!(session.next().await, agent_message::Body::Reconcile(page) if page.last));
    (hello, session)
}

/// A node that has joined, and its two controllers: one for enrolment, one for agents.
async fn enrolled() -> (Node, Controller, Arc<Fleet>, String) {
    let fleet = Arc::new(Fleet::new());
    let (node, theirs) = (NodeId::from_uuid(Uuid::new_v4()), Arc::clone(&fleet));
    let agents = Controller::start(fleet.agent_server()).await;
    let enrol =
        Controller::answering(fleet.enrolment_server(), move |request| Ok(reply(&theirs, node, &request)))
            .await;
    let at = Node::new(&agents.address.to_string(), &enrol.address.to_string());
    let token = fleet.token().expose();
    let (exit, said) = code(&at.enrol(&token, &[]).await);
    assert_eq!(exit, 0, "{said}");
    (at, agents, fleet, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_runs_and_stops() {
    let (node, mut controller, fleet, token) = enrolled().await;
    // The same command again is harmless even though nobody answers there any more.
    assert_eq!(code(&node.enrol(&token, &[]).await).0, 0);
    let (exit, said) = code(&node.enrol(&fleet.token().expose(), &[]).await);
    assert_eq!(exit, 10, "{said}");
    assert!(said.contains("--replace"), "{said}");

    let child = node.start();
    let (hello, session) = linked(&mut controller, &fleet, 5).await;
    assert_eq!((hello.policy_mode.as_str(), hello.epoch_seen), ("read_only", 0));
    assert!(hello.actions.iter().any(|action| action == "health.check"), "{:?}", hello.actions);
    let facts: NodeFacts = serde_json::from_slice(&hello.facts).unwrap();
    assert!(!facts.simulated.is_empty(), "a development root is said to be one");
    // A second agent on the same state is turned away before it opens a link.
    let (exit, said) = code(&node.call(&["run"]).await);
    assert_eq!(exit, 75, "{said}");
    assert!(said.contains("held by another executor"), "{said}");
    let (exit, ()) = tokio::join!(terminate(child), session.left());
    assert_eq!(exit, Some(0));

    let status = node.call(&["status", "--output", "json"]).await;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["name"], &status["jobs"]["open"]), (&"fw-1".into(), &0.into()));
    let journal = node.call(&["journal", "-o", "json"]).await;
    let journal: serde_json::Value = serde_json::from_slice(&journal.stdout).unwrap();
    assert_eq!(journal["jobs"], serde_json::json!([]));
    assert!(node.call(&["stop-units"]).await.status.success());

    fs::write(node.folder.path().join("state/state.json"), "{}").unwrap();
    let (exit, said) = code(&node.call(&["run"]).await);
    assert_eq!(exit, 75, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_time_is_survived_and_the_fence_is_remembered() {
    let (node, mut controller, fleet, _token) = enrolled().await;
    for epoch in 5..8 {
        let mut child = node.start();
        let (hello, mut session) = linked(&mut controller, &fleet, epoch).await;
        assert_eq!(hello.epoch_seen, if epoch == 5 { 0 } else { epoch - 1 });
        within("the agent dies", child.kill()).await.unwrap();
        session.ended().await;
    }
    // A controller with an older epoch is refused by the executor and comes no further than Welcome.
    let child = node.start();
    let mut session = controller.session().await;
    session.hello().await;
    session.welcome_signed(3, fleet.dispatch()).await;
    session.ended().await;
    assert_eq!(terminate(child).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_exit_codes_and_say_what_to_do() {
    // Port 1 of loopback: nobody listens there.
    let node = Node::new("127.0.0.1:1", "127.0.0.1:1");
    let (exit, said) = code(&node.call(&["run"]).await);
    assert_eq!(exit, 10, "{said}");
    assert!(said.contains("join with a token first"), "{said}");

    let (exit, said) = code(&node.enrol(&Fleet::new().token().expose(), &[]).await);
    assert_eq!(exit, 9, "{said}");
    assert!(said.contains("127.0.0.1:1 refused the connection"), "{said}");

    let (exit, said) = code(&node.enrol("ft1.nonsense", &[]).await);
    assert_eq!(exit, 2, "{said}");
    assert!(!said.contains("nonsense"), "a token is never repeated: {said}");

    fs::write(node.config(), "kind = \"agent\"\n[log]\nlevl = \"info\"\n").unwrap();
    let (exit, said) = code(&node.call(&["run"]).await);
    assert_eq!(exit, 2, "{said}");
    assert!(said.contains("agent.toml:3:1: unknown key \"log.levl\", did you mean \"log.level\"?"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_made_up_for_by_the_same_command() {
    let fleet = Arc::new(Fleet::new());
    let (node, theirs) = (NodeId::from_uuid(Uuid::new_v4()), Arc::clone(&fleet));
    let mut keys = Vec::new();
    let controller = Controller::answering(fleet.enrolment_server(), move |request| {
        // One key and one token for ever: another key would freeze the node's record.
        let csr = fleet_certs::csr::RequestedKey::from_request(&request.csr).unwrap().digest();
        keys.push((csr, request.report_key.clone()));
        assert!(keys.iter().all(|key| *key == keys[0]));
        if keys.len() < 3 {
            Err(Status::unavailable("restarting"))
        } else {
            Ok(reply(&theirs, node, &request))
        }
    })
    .await;
    let at = Node::new("127.0.0.1:1", &controller.address.to_string());
    let token = fleet.token().expose();
    for expected in [9, 9, 0, 0] {
        let (exit, said) = code(&at.enrol(&token, &[]).await);
        assert_eq!(exit, expected, "{said}");
    }
}
