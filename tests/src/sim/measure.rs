//! One measurement: the same steps for the product and for its floor, over the wire and without one.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use tempfile::TempDir;

use super::crew::Member;
use super::memory::pss_bytes;
use super::plan::{FloorPlan, ROUNDS, Round, Said, Sizes, TURNS, WorkerPlan};
use super::prepare::{Prepared, prepare};
use super::service;
use super::waits::{Waits, waits};
use crate::clock::micros;
use crate::operator_client::order;
use crate::orders::SignedOrder;
use crate::wait::pass;

/// Memory settles when it moves by less than this between two looks.
const SETTLED_BYTES: u64 = 256 * 1024;
/// Pause between two looks, and how many there are at most.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS: u32 = 20;

/// Figures of one side.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Side {
    /// Agents welcomed a second, all coming at once.
    pub connects_per_second: f64,
    /// Bytes of proportional set size that an idle agent adds.
    pub bytes_per_agent: f64,
    /// Seconds from the push until the last result is durable: the middle of the rounds.
    pub fan_out_seconds: f64,
    /// Results made durable a second, from the first assignment that arrived: the middle of the rounds.
    pub results_per_second: f64,
}

/// Figures of one number of agents.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// How many agents.
    pub agents: usize,
    /// How many processes they ran in.
    pub workers: usize,
    /// The product.
    pub product: Side,
    /// Its floor.
    pub floor: Side,
    /// What operators wait for.
    pub waits: Waits,
    /// The controller's storing of results alone, without a wire, a second.
    pub service_results_per_second: f64,
    /// Its floor: Ed25519 and the store with the same bytes, results a second.
    pub service_floor_per_second: f64,
    /// Sizes of what a result writes.
    pub sizes: (usize, usize, usize, usize),
}

#[expect(clippy::cast_precision_loss, reason = "microseconds and counts far below 2^52")]
pub(super) fn per_second(count: usize, micros: u64) -> f64 {
    count as f64 / (micros.max(1) as f64 / 1e6)
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

async fn settled(pid: u32) -> Result<u64> {
    let mut last = pss_bytes(pid)?;
    for _ in 0..LOOKS {
        pass(LOOK).await;
        let now = pss_bytes(pid)?;
        if now.abs_diff(last) < SETTLED_BYTES {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

/// The workers of one side.
pub(super) struct Crew(Vec<Member>);

impl Crew {
    async fn start(prepared: &Prepared, address: SocketAddr, what: &str) -> Result<Self> {
        let mut members = Vec::new();
        for (number, credentials) in prepared.files.iter().enumerate() {
            let plan =
                WorkerPlan { credentials: credentials.clone(), address, number: u8::try_from(number)? };
            let file = prepared.controller.folder().join(format!("worker-{what}-{number}.json"));
            members.push(Member::start("worker", &plan, &file)?);
        }
        for member in &mut members {
            ensure!(matches!(member.said().await?, Said::Ready), "a worker is not ready");
        }
        Ok(Self(members))
    }

    pub(super) async fn tell(&mut self, line: &str) -> Result<()> {
        for member in &mut self.0 {
            member.tell(line).await?;
        }
        Ok(())
    }

    /// When the last agent was welcomed.
    pub(super) async fn connected(&mut self) -> Result<u64> {
        let mut last = 0;
        for member in &mut self.0 {
            match member.said().await? {
                Said::Connected { last_us } => last = last.max(last_us),
                other => bail!("{other:?} instead of connected"),
            }
        }
        Ok(last)
    }

    /// When the first assignment and the last acknowledgement came.
    pub(super) async fn acknowledged(&mut self) -> Result<(u64, u64)> {
        let (mut first, mut last) = (u64::MAX, 0);
        for member in &mut self.0 {
            match member.said().await? {
                Said::Acknowledged { first_us, last_us, faults } => {
                    ensure!(faults == 0, "agents found {faults} faults of the other side");
                    (first, last) = (first.min(first_us), last.max(last_us));
                }
                other => bail!("{other:?} instead of acknowledged"),
            }
        }
        Ok((first, last))
    }

    async fn end(self) -> Result<()> {
        for member in self.0 {
            member.end().await?;
        }
        Ok(())
    }
}

/// What is pushed, and how.
enum Pusher<'a> {
    Product(&'a Prepared),
    Floor(&'a mut Member),
}

async fn side(
    prepared: &Prepared,
    address: SocketAddr,
    pid: u32,
    orders: &[SignedOrder],
    mut pusher: Pusher<'_>,
) -> Result<(Side, Crew)> {
    let count = prepared.nodes.len();
    let what = if matches!(pusher, Pusher::Product(_)) { "product" } else { "floor" };
    let mut crew = Crew::start(prepared, address, what).await?;
    let before = settled(pid).await?;
    let begun = micros();
    crew.tell(&format!("connect {begun}")).await?;
    let connects_per_second = per_second(count, crew.connected().await?.saturating_sub(begun));
    let after = settled(pid).await?;
    let (mut fan_outs, mut rates) = (Vec::new(), Vec::new());
    for order in orders {
        crew.tell("wait").await?;
        let begun = micros();
        match &mut pusher {
            Pusher::Product(prepared) => drop(prepared.operator.start(order).await?),
            Pusher::Floor(member) => member.tell("push").await?,
        }
        let (first, last) = crew.acknowledged().await?;
        fan_outs.push(1.0 / per_second(1, last.saturating_sub(begun)));
        rates.push(per_second(count, last.saturating_sub(first)));
        if let Pusher::Product(prepared) = &pusher {
            prepared.operator.wait_run(order.run).await?;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "bytes far below 2^52")]
    let bytes_per_agent = after.saturating_sub(before) as f64 / count as f64;
    let side = Side {
        connects_per_second,
        bytes_per_agent,
        fan_out_seconds: middle(fan_outs),
        results_per_second: middle(rates),
    };
    Ok((side, crew))
}

/// Sizes of what the last run wrote, read from the store that the stopped controller left.
async fn sizes(prepared: &Prepared, leaf: usize, order: &SignedOrder) -> Result<Sizes> {
    let path = prepared.controller.data_directory().join("store");
    let store = fleet_store::open(&format!("sled:{}", path.display()), None).await?;
    let run = order.run.to_string();
    // The records of one node: all are alike. A report is in one piece or in parts below its key.
    let largest = async |prefix: String, count: usize| {
        let page = store.scan(prefix.as_bytes(), None, count, fleet_store::Direction::Ascending).await?;
        anyhow::Ok(page.iter().map(|(_, entry)| entry.value.len()).max().unwrap_or(0))
    };
    let node = prepared.nodes.first().context("no nodes")?.node;
    let job = largest(format!("job/{run}/"), 1).await?;
    let report = largest(format!("report/{node}/"), ROUNDS).await?;
    store.close().await?;
    ensure!(job > 0 && report > 0, "the controller's store holds no results of {run}");
    // Attempt, request, index and a path of log2(n) digests, as JSON.
    let levels = usize::try_from(prepared.nodes.len().next_power_of_two().ilog2())?;
    Ok(Sizes { job, report, leaf, inbox: 130 + 67 * levels })
}

/// Measures product, floor and store with `count` agents.
pub async fn measure(count: usize) -> Result<Figures> {
    let mut prepared = prepare(count).await?;
    let (profile, look) = prepared.documents;
    let nodes: Vec<_> = prepared.nodes.iter().map(|node| node.node).collect();
    let asked = order(look, profile, nodes.clone(), u32::try_from(count)?);
    let sign = |rounds| (0..rounds).map(|_| prepared.operator.sign(&asked)).collect::<Result<Vec<_>>>();
    let (orders, more_orders) = (sign(ROUNDS)?, sign(TURNS)?);
    let pid = prepared.controller.pid()?;
    let address = prepared.controller.agent_address();
    let (product, mut crew) = side(&prepared, address, pid, &orders, Pusher::Product(&prepared)).await?;
    let head = prepared.operator.audit_head().await?;
    let leaves = prepared.operator.audit_bytes(head.size.saturating_sub(2), head.size).await?;
    let leaf = leaves.first().map_or(0, |(_, bytes)| bytes.len());
    let watch = prepared.operator.sign(&asked)?;
    let waits = waits(&mut prepared, &mut crew, &watch).await?;
    crew.end().await?;
    prepared.controller.stop().await?;
    let last = orders.last().context("no rounds")?;
    let sizes = sizes(&prepared, leaf, last).await?;

    let turns = service::results(&prepared, &more_orders, sizes).await?;
    let rate = |took: Duration| Ok(per_second(count, u64::try_from(took.as_micros())?));
    let service = turns.iter().map(|turn| rate(turn.service)).collect::<Result<Vec<_>>>()?;
    let bare_service = turns.iter().map(|turn| rate(turn.floor)).collect::<Result<Vec<_>>>()?;

    let folder = TempDir::new()?;
    let mut sorted = nodes;
    sorted.sort_unstable();
    let plan = FloorPlan {
        fleet: prepared.operator.fleet,
        pki: prepared.controller.data_directory().join("pki"),
        store: folder.path().join("floor"),
        credentials: prepared.files.clone(),
        rounds: orders
            .iter()
            .map(|order| Round { run: order.run, envelope: order.envelope.clone(), nodes: sorted.clone() })
            .collect(),
        sizes,
    };
    let mut floor = Member::start("floor", &plan, &folder.path().join("floor.json"))?;
    let Said::Serving { address } = floor.said().await? else { bail!("the floor does not serve") };
    let pid = floor.pid()?;
    let (bare, crew) = side(&prepared, address, pid, &orders, Pusher::Floor(&mut floor)).await?;
    crew.end().await?;
    floor.end().await?;

    Ok(Figures {
        agents: count,
        workers: prepared.files.len(),
        product,
        floor: bare,
        waits,
        service_results_per_second: middle(service),
        service_floor_per_second: middle(bare_service),
        sizes: (sizes.job, sizes.report, sizes.leaf, sizes.inbox),
    })
}
