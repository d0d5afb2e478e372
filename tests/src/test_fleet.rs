//! Controller, operator and scripted agents together: how stories begin and end.
//!
//! [`TestFleet::finish`] is the end of every story: agents saw no fault, the whole audit log verifies, reports
//! and leaves agree. A fleet that is dropped without it shows the controller's log.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use fleet_types::digest::Digest;
use fleet_types::id::{NodeId, RunId};

use crate::audit_check::{self, Checked};
use crate::controller_process::{ControllerProcess, Options};
use crate::fake_agent::{Activity, Credentials, FakeAgent, Script};
use crate::operator_client::{OperatorClient, order};
use crate::orders::{CHANGE, LOOK, Order, PROFILE, SignedOrder};

/// A fleet under test.
pub struct TestFleet {
    /// The real controller.
    pub controller: ControllerProcess,
    /// The first operator, with a listed content key.
    pub operator: OperatorClient,
    /// Scripted agents in the order of their names.
    pub agents: Vec<FakeAgent>,
    /// What the agents did.
    pub activity: Arc<Activity>,
    /// Digest of the profile.
    pub profile: Digest,
    /// Digest of the procedure that changes nothing.
    pub look: Digest,
    /// Digest of the procedure that changes nodes.
    pub change: Digest,
    finished: bool,
}

/// Labels of the node number `n`: pairs of two neighbours, two sites.
pub fn labels(n: usize) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("product".to_owned(), "scripted".to_owned()),
        ("site".to_owned(), format!("site-{}", n % 4 / 2)),
        ("ha_group".to_owned(), format!("pair-{}", n / 2)),
    ])
}

/// Name of the node number `n`.
pub fn name(n: usize) -> String {
    format!("fw-{n}")
}

impl TestFleet {
    /// A controller at 1/50 of the scale, an operator, and `count` agents that are online.
    pub async fn start(count: usize) -> Result<Self> {
        Self::start_with(&Options::default(), count).await
    }

    /// The same with other options.
    pub async fn start_with(options: &Options, count: usize) -> Result<Self> {
        let controller = ControllerProcess::start_new(options).await?;
        let operator = OperatorClient::enrol(&controller, &controller.invite).await?;
        operator.list_content_key(&controller.root_key_path()).await?;
        let digests = operator
            .apply(&[("profile.toml", PROFILE), ("look.toml", LOOK), ("change.toml", CHANGE)])
            .await?;
        let [profile, look, change] = digests[..] else { anyhow::bail!("three documents were applied") };
        let mut fleet = Self {
            controller,
            operator,
            agents: Vec::new(),
            activity: Arc::default(),
            profile,
            look,
            change,
            finished: false,
        };
        for n in 0..count {
            let agent = fleet.join(&name(n), &labels(n), Script::default()).await?;
            fleet.agents.push(agent);
        }
        fleet.all_online().await?;
        Ok(fleet)
    }

    /// Joins one more node; it connects by itself and is not among [`Self::agents`].
    pub async fn join(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        script: Script,
    ) -> Result<FakeAgent> {
        let token = self.operator.join_token(name, labels).await?.token;
        let credentials = Credentials::enrol(self.controller.enrol_address(), None, &token).await?;
        self.agent(credentials, script)
    }

    /// Starts an agent with credentials.
    pub fn agent(&self, credentials: Credentials, script: Script) -> Result<FakeAgent> {
        let address = self.controller.agent_address();
        FakeAgent::start(credentials, address, None, script, Arc::clone(&self.activity))
    }

    /// Waits until every agent is online.
    pub async fn all_online(&self) -> Result<()> {
        for agent in &self.agents {
            agent.online().await?;
        }
        Ok(())
    }

    /// Changes every agent's script.
    pub fn script(&self, act: impl Fn(&mut Script)) {
        for agent in &self.agents {
            agent.script(&act);
        }
    }

    /// Ids of all agents.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.agents.iter().map(|agent| agent.credentials().node).collect()
    }

    /// An order of a procedure for all agents.
    pub fn order(&self, procedure: Digest, max_parallel: u32) -> Order {
        order(procedure, self.profile, self.nodes(), max_parallel)
    }

    /// Signs and starts a procedure on all agents.
    pub async fn start_run(&self, procedure: Digest, max_parallel: u32) -> Result<RunId> {
        let order = self.sign(procedure, max_parallel)?;
        Ok(self.operator.start(&order).await?.item.run)
    }

    /// Signs an order for all agents.
    pub fn sign(&self, procedure: Digest, max_parallel: u32) -> Result<SignedOrder> {
        self.operator.sign(&self.order(procedure, max_parallel))
    }

    /// The end of a story: no agent saw a fault, the log verifies, reports and leaves agree. Stops the controller.
    pub async fn finish(mut self) -> Result<Checked> {
        for agent in &self.agents {
            let faults = agent.journal(|journal| journal.faults.clone());
            ensure!(faults.is_empty(), "{} saw faults of the controller: {faults:?}", agent.name());
            let twice = agent.journal(|journal| journal.jobs.values().any(|job| job.starts > 1));
            ensure!(!twice, "{} started a job twice", agent.name());
        }
        let checked = audit_check::check(&self.operator, &self.agents).await?;
        self.controller.stop().await?;
        self.finished = true;
        Ok(checked)
    }
}

impl Drop for TestFleet {
    fn drop(&mut self) {
        if !self.finished {
            eprintln!("{}", self.controller.log_tail());
        }
    }
}
