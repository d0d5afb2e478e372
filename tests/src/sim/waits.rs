//! What operators wait for, with all agents of a measurement connected: the last result on a watch, the end of a cancelled
//! run, and everybody back after the controller was killed. The product alone; its floor has none of it.

use anyhow::{Context as _, Result};
use fleet_proto::{convert, pb};
use fleet_types::id::RunId;
use fleet_types::view::RunWatch;
use serde::Serialize;

use super::measure::{Crew, per_second};
use super::prepare::Prepared;
use crate::clock::micros;
use crate::operator_client::order;
use crate::orders::SignedOrder;

/// Figures of one number of agents.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Waits {
    /// Seconds from the last acknowledgement of a node to the end of the run on a watch.
    pub watch_lag_seconds: f64,
    /// Bytes that a watch of the whole run carried, for each job.
    pub watch_bytes_per_job: f64,
    /// Seconds from the call to cancel until a run of as many jobs, nearly all of them waiting, has ended.
    pub cancel_seconds: f64,
    /// Seconds until a controller that was killed serves again.
    pub restart_seconds: f64,
    /// Agents back a second from then on.
    pub back_per_second: f64,
}

/// A run on the screen: bytes and the time of its end.
async fn watched(prepared: &Prepared, run: RunId) -> Result<(usize, u64)> {
    let mut changes =
        prepared.operator.raw().watch_run(pb::RunRequest { run: run.to_string() }).await?.into_inner();
    let mut bytes = 0;
    while let Some(view) = changes.message().await? {
        bytes += view.json.len();
        let change: RunWatch = convert::json("view", &view.json)?;
        if change.run.item.state.is_terminal() {
            return Ok((bytes, micros()));
        }
    }
    anyhow::bail!("the watch ended before the run")
}

fn seconds(micros: u64) -> f64 {
    1.0 / per_second(1, micros)
}

/// Measures with a crew that is connected and has done its rounds.
pub(super) async fn waits(prepared: &mut Prepared, crew: &mut Crew, watch: &SignedOrder) -> Result<Waits> {
    let count = prepared.nodes.len();
    crew.tell("wait").await?;
    prepared.operator.start(watch).await?;
    let (bytes, shown) = watched(prepared, watch.run).await?;
    let (_, last) = crew.acknowledged().await?;

    prepared.controller.kill().await?;
    let begun = micros();
    prepared.controller.start().await?;
    let serves = micros();
    crew.tell(&format!("connect {begun}")).await?;
    let back = crew.connected().await?;

    let (profile, look) = prepared.documents;
    let nodes = prepared.nodes.iter().map(|node| node.node).collect();
    let one_by_one = prepared.operator.sign(&order(look, profile, nodes, 1))?;
    prepared.operator.start(&one_by_one).await?;
    let asked = micros();
    prepared.operator.cancel(one_by_one.run).await.context("cancel")?;
    let (_, ended) = watched(prepared, one_by_one.run).await?;
    #[expect(clippy::cast_precision_loss, reason = "bytes and counts far below 2^52")]
    let watch_bytes_per_job = bytes as f64 / count as f64;
    Ok(Waits {
        watch_lag_seconds: seconds(shown.saturating_sub(last)),
        watch_bytes_per_job,
        cancel_seconds: seconds(ended.saturating_sub(asked)),
        restart_seconds: seconds(serves.saturating_sub(begun)),
        back_per_second: per_second(count, back.saturating_sub(serves)),
    })
}
