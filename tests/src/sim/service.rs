//! The controller's storing of results alone: its own service over its own store, in this process, without a wire.
//!
//! All that a report costs the controller between its arrival and its acknowledgement: signature, chain and run
//! checked, records and audit leaf made, one durable commit. All reports come at once, as in the store's floor,
//! which takes turns with it over the same store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fleet_certs::{Identity, PeerIdentity};
use fleet_controller::app::open_context;
use fleet_controller::clock::Clock;
use fleet_controller::config::Config;
use fleet_controller::context::Context;
use fleet_controller::service::caller::{Agent, Operator};
use fleet_controller::service::reports::{self, Arrived};
use fleet_controller::service::runs;
use fleet_types::digest::Digest;
use fleet_types::id::Attempt;
use fleet_types::job::Outcome;
use fleet_types::seal::Envelope;
use tokio::task::JoinSet;

use super::plan::Sizes;
use super::prepare::Prepared;
use super::store_floor::{self, Records, Sealed};
use crate::clock;
use crate::fake_agent::Journal;
use crate::orders::SignedOrder;

/// How long one result of each node takes the service, and its floor.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The service.
    pub service: Duration,
    /// Ed25519 and the store.
    pub floor: Duration,
}

/// One turn for each order, over the store that the stopped controller left.
pub async fn results(prepared: &Prepared, orders: &[SignedOrder], sizes: Sizes) -> Result<Vec<Turn>> {
    let config = Config::load(&prepared.controller.config_path())?;
    let store = fleet_store::open(&config.store_url, None).await?;
    let context = Arc::new(open_context(&config, Arc::clone(&store), Clock::system()).await?);
    let mut journals = journals(prepared, &context).await?;
    let records = Records::over(Arc::clone(&store), sizes)?;
    let fleet = prepared.operator.fleet;
    let mut turns = Vec::new();
    for order in orders {
        let service = round(prepared, &context, order, &mut journals).await?;
        let reports = journals.iter().map(|journal| sealed(journal, order)).collect::<Result<Vec<_>>>()?;
        let floor = store_floor::results(&records, fleet, &order.run.to_string(), reports).await?;
        turns.push(Turn { service, floor });
    }
    drop((context, records));
    store.close().await?;
    Ok(turns)
}

/// Each node's journal, its chain of reports where the runs over the wire left it.
async fn journals(prepared: &Prepared, context: &Context) -> Result<Vec<Journal>> {
    let mut journals = Vec::with_capacity(prepared.nodes.len());
    for node in &prepared.nodes {
        let mut journal = Journal::new(node.fleet, node.node, node.report_key()?);
        while let Some((_, last)) =
            reports::stored_report(&context.storage, node.node, 0, journal.reports + 1).await?
        {
            journal.reports += 1;
            journal.previous = Some(last);
        }
        journals.push(journal);
    }
    Ok(journals)
}

/// A node's report of an order, as the floor sees it.
fn sealed(journal: &Journal, order: &SignedOrder) -> Result<Sealed> {
    let report = journal.job(order.run).and_then(|job| job.report.clone()).context("no report")?;
    let (payload, signature) = (report.payload, report.signature);
    Ok(Sealed { node: journal.node().to_string(), key: journal.report_key(), payload, signature })
}

async fn round(
    prepared: &Prepared,
    context: &Arc<Context>,
    order: &SignedOrder,
    journals: &mut [Journal],
) -> Result<Duration> {
    let certificate = PeerIdentity {
        identity: Identity::Operator(prepared.operator.fleet, prepared.operator.operator),
        serial: "4001".parse()?,
        not_before: clock::now(),
        not_after: clock::now().plus(Duration::from_hours(1)),
        fingerprint: Digest::of(b"none"),
    };
    let caller = Operator {
        record: context
            .identities
            .operators
            .get(prepared.operator.operator)
            .context("the operator is unknown")?,
        certificate: Arc::new(certificate),
        address: String::new(),
    };
    let envelope: Envelope = serde_json::from_slice(&order.envelope)?;
    let request = envelope.digest();
    let mut nodes: Vec<_> = prepared.nodes.iter().map(|node| node.node).collect();
    nodes.sort_unstable();
    let start = runs::Order { request: envelope, procedure: None, nodes };
    runs::start(context, &caller, &start, &order.idempotency_key).await?;
    let mut arrived = Vec::with_capacity(prepared.nodes.len());
    for (node, journal) in prepared.nodes.iter().zip(journals) {
        let key = (order.run, Attempt(1));
        journal.on_assign(key, request)?;
        journal.finish(key, Outcome::Succeeded, "")?;
        let sealed = journal.jobs.get(&key).and_then(|job| job.report.clone()).context("no report")?;
        let agent = Agent {
            node: node.node,
            name: node.name.parse()?,
            certificate: Arc::new(node.identity()?.describe()?),
            address: "127.0.0.1".to_owned(),
        };
        let (payload, signature) = (sealed.payload, sealed.signature);
        arrived.push((
            agent,
            Arrived { run: order.run, attempt: Attempt(1), payload, signature },
            sealed.digest,
        ));
    }
    let begun = Instant::now();
    let mut storing = JoinSet::new();
    for (agent, arrived, digest) in arrived {
        let context = Arc::clone(context);
        storing.spawn(async move {
            let stored = reports::report(&context, &agent, &arrived).await?;
            ensure!(stored == digest, "another report was stored");
            Ok(())
        });
    }
    while let Some(done) = storing.join_next().await {
        done??;
    }
    Ok(begun.elapsed())
}
