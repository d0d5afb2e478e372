//! A node with the real binary: its folder, its configuration, its root with one program.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fleet_agent::core::identity::OwnIdentity;
use fleet_proto::pb::{self, agent_message};
use fleet_types::id::NodeId;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::controller::{Controller, Session};
use crate::enrolment::reply;
use crate::fleet::{Fleet, SERVER_NAME};
use crate::wait::within;

/// A heartbeat interval that a story never reaches: links end when the story says so.
pub const CALM_MS: u32 = 60_000;
/// Local policy of a node that does what it is told, on a disk of any size.
pub const ENFORCE: &str = "[policy]\nmode = \"enforce\"\nmin_free_disk = \"0\"\n";
/// The node's one program: notes that it was started, and waits while a story holds it, so that "in the
/// middle of a step" is a place and not a moment. Its waiting ends with the node's folder.
const PROGRAM: &str = "#!/bin/sh\necho started >>\"$FLEET_ROOT/starts\"\n\
                       while [ -e \"$FLEET_ROOT/hold\" ]; do sleep 0.02; done\n";

/// A node's folder with its configuration.
pub struct Node {
    folder: TempDir,
}

impl Node {
    /// A node that knows these addresses; `policy` are the last tables of its configuration.
    pub fn new(agents: &str, enrol: &str, policy: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().display();
        fs::create_dir_all(folder.path().join("root/etc")).unwrap();
        fs::create_dir_all(folder.path().join("root/usr/bin")).unwrap();
        let program = folder.path().join("root/usr/bin/update");
        fs::write(&program, PROGRAM).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let text = format!(
            "schema = \"fleet/v1\"\nkind = \"agent\"\nname = \"fw-1\"\n\
             [controller]\nendpoints = [{{ address = \"{agents}\" }}]\nenrol = \"{enrol}\"\n\
             server_name = \"{SERVER_NAME}\"\nbackoff = {{ min = \"20ms\", max = \"500ms\" }}\n\
             [identity]\ndirectory = \"{path}/identity\"\n\
             [runtime]\nstate_directory = \"{path}/state\"\nwork_directory = \"{path}/work\"\n\
             [timers]\nspread = \"20ms\"\nreport_resend = \"100ms\"\ndrain = \"2s\"\n\
             [dev]\nroot = \"{path}/root\"\n{policy}"
        );
        fs::write(folder.path().join("agent.toml"), text).unwrap();
        Self { folder }
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("agent.toml")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Its id, once it has joined.
    pub fn id(&self) -> NodeId {
        OwnIdentity::load(&self.folder.path().join("identity")).unwrap().record.node
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet-agent"));
        command.args(arguments).arg("--config").arg(self.config()).env_clear().kill_on_drop(true);
        command
    }

    pub async fn call(&self, arguments: &[&str]) -> Output {
        within("the command ends", self.command(arguments).output()).await.unwrap()
    }

    pub async fn enrol(&self, token: &str, more: &[&str]) -> Output {
        let mut command = self.command(&["enrol"]);
        command.args(more).env("FLEET_JOIN_TOKEN", token);
        within("enrolment ends", command.output()).await.unwrap()
    }

    pub fn start(&self) -> Child {
        self.command(&["run"]).stderr(Stdio::inherit()).spawn().unwrap()
    }

    /// The jobs of its journal, as the agent prints them.
    pub async fn jobs(&self) -> Vec<serde_json::Value> {
        let printed = self.call(&["journal", "-o", "json"]).await;
        let journal: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
        assert!(journal["damage"].is_null(), "{journal}");
        journal["jobs"].as_array().unwrap().clone()
    }

    /// How many entries of this name its journal's file holds: the printed journal shows a job once however
    /// often it was accepted.
    pub fn entries(&self, name: &str) -> usize {
        let bytes = fs::read(self.state().join("journal")).unwrap();
        let wanted = format!("\"entry\":\"{name}\"");
        bytes.windows(wanted.len()).filter(|found| *found == wanted.as_bytes()).count()
    }

    /// Lets its program wait.
    pub fn hold(&self) {
        fs::write(self.root().join("hold"), "").unwrap();
    }

    /// Lets it go on.
    pub fn release(&self) {
        fs::remove_file(self.root().join("hold")).unwrap();
    }

    /// How often its program was started.
    pub fn starts(&self) -> usize {
        fs::read_to_string(self.root().join("starts")).map_or(0, |text| text.lines().count())
    }

    /// Waits until its program was started.
    pub async fn started(&self) {
        let mut looks = interval(Duration::from_millis(10));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        within("the node's program is started", async {
            while self.starts() == 0 {
                looks.tick().await;
            }
        })
        .await;
    }
}

pub fn code(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

pub async fn terminate(mut child: Child) -> Option<i32> {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    within("the agent ends after SIGTERM", child.wait()).await.unwrap().code()
}

/// The next session, up to the node's list: what it said of itself, its one page, the session.
pub async fn linked(
    controller: &mut Controller,
    fleet: &Fleet,
    epoch: u64,
) -> (pb::Hello, Vec<pb::JobUpdate>, Session) {
    linked_beating(controller, fleet, epoch, CALM_MS).await
}

/// The same with heartbeats.
pub async fn linked_beating(
    controller: &mut Controller,
    fleet: &Fleet,
    epoch: u64,
    heartbeat_interval_ms: u32,
) -> (pb::Hello, Vec<pb::JobUpdate>, Session) {
    let mut session = controller.session().await;
    let hello = session.hello().await;
    session.welcome_signed(epoch, fleet.dispatch(), heartbeat_interval_ms).await;
    let agent_message::Body::Reconcile(page) = session.next().await else { panic!("no list") };
    assert!(page.last);
    (hello, page.jobs, session)
}

/// A node that has joined, and its two controllers: one for enrolment, one for agents.
pub async fn enrolled() -> (Node, Controller, Arc<Fleet>, String) {
    enrolled_with("").await
}

/// The same with a local policy.
pub async fn enrolled_with(policy: &str) -> (Node, Controller, Arc<Fleet>, String) {
    let fleet = Arc::new(Fleet::new());
    let (node, theirs) = (NodeId::from_uuid(Uuid::new_v4()), Arc::clone(&fleet));
    let agents = Controller::start(fleet.agent_server()).await;
    let enrol =
        Controller::answering(fleet.enrolment_server(), move |request| Ok(reply(&theirs, node, &request)))
            .await;
    let at = Node::new(&agents.address.to_string(), &enrol.address.to_string(), policy);
    let token = fleet.token().expose();
    let (exit, said) = code(&at.enrol(&token, &[]).await);
    assert_eq!(exit, 0, "{said}");
    (at, agents, fleet, token)
}
