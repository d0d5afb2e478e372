//! The floor of results without a wire: Ed25519 and the store, with the same bytes, committed by as many callers as
//! there are agents. Its keys are of its own kind, so that it can share a controller's store.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fleet_store::{Batch, Key, KvStore, LogName, StoreError, WriteId};
use fleet_types::digest::Digest;
use fleet_types::id::FleetId;
use fleet_types::seal::{Kind, PublicKey};
use tokio::task::JoinSet;

use super::plan::Sizes;

/// Puts and deletes of one commit that writes many nodes: under the store's 1,024 operations.
const NODES_A_COMMIT: usize = 400;

/// Where the floor keeps what a controller keeps.
#[derive(Clone)]
pub struct Records {
    store: Arc<dyn KvStore>,
    log: LogName,
    sizes: Sizes,
    /// The commit that offered each node its job: results have it as their precondition, as on a controller.
    offered: Arc<Mutex<HashMap<String, WriteId>>>,
}

fn write_id() -> WriteId {
    WriteId::from(uuid::Uuid::new_v4())
}

/// Bytes of a length. Not all alike, as records are not.
fn filler(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from((n * 31 + seed * 7) % 251).unwrap_or(0)).collect()
}

impl Records {
    /// Opens a store in an empty directory.
    pub async fn open(path: &Path, sizes: Sizes) -> Result<Self> {
        Self::over(fleet_store::open(&format!("sled:{}", path.display()), None).await?, sizes)
    }

    /// Beside what is in a store already.
    pub fn over(store: Arc<dyn KvStore>, sizes: Sizes) -> Result<Self> {
        Ok(Self { store, log: LogName::new("floor")?, sizes, offered: Arc::default() })
    }

    fn key(what: &str, run: &str, node: &str) -> Result<Key, StoreError> {
        Key::new(format!("floor/{what}/{run}/{node}"))
    }

    async fn many(
        &self,
        nodes: &[String],
        with: impl Fn(Batch, usize, &str) -> Result<Batch, StoreError>,
    ) -> Result<()> {
        for (page, chunk) in nodes.chunks(NODES_A_COMMIT).enumerate() {
            let mut batch = Batch::new(write_id());
            let seen = chunk.iter().map(|node| (node.clone(), batch.write_id));
            self.offered.lock().unwrap_or_else(PoisonError::into_inner).extend(seen);
            for (n, node) in chunk.iter().enumerate() {
                batch = with(batch, page * NODES_A_COMMIT + n, node)?;
            }
            let leaf = self.sizes.leaf;
            self.store
                .commit(
                    batch.append(self.log.clone(), move |n| filler(leaf, usize::try_from(n).unwrap_or(0))),
                )
                .await?;
        }
        Ok(())
    }

    /// The jobs of a run, as a submit writes them.
    pub async fn submit(&self, run: &str, nodes: &[String]) -> Result<()> {
        let job = self.sizes.job;
        self.many(nodes, |batch, n, node| {
            Ok(batch
                .put(Self::key("job", run, node)?, filler(job, n))
                .put(Self::key("of", node, run)?, [1, 2, 3]))
        })
        .await
    }

    /// The offers of a wave.
    pub async fn offer(&self, run: &str, nodes: &[String]) -> Result<()> {
        let sizes = self.sizes;
        self.many(nodes, |batch, n, node| {
            Ok(batch
                .put(Self::key("job", run, node)?, filler(sizes.job, n))
                .put(Self::key("inbox", node, run)?, filler(sizes.inbox, n)))
        })
        .await
    }

    /// One result: job, report, leaf, and the inbox entry gone. Durable when this returns.
    pub async fn result(&self, run: &str, node: &str, n: usize) -> Result<()> {
        let sizes = self.sizes;
        let offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
        let offered = offered.context("a result that was not offered")?;
        let batch = Batch::new(write_id())
            .replace(Self::key("job", run, node)?, offered, filler(sizes.job, n))
            .create(Self::key("report", run, node)?, filler(sizes.report, n))
            .delete(Self::key("inbox", node, run)?)
            .append(self.log.clone(), move |_| filler(sizes.leaf, n));
        self.store.commit(batch).await?;
        Ok(())
    }
}

/// A sealed report as the floor sees it: bytes, and who signed them.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The node.
    pub node: String,
    /// Its report key.
    pub key: PublicKey,
    /// The report.
    pub payload: Vec<u8>,
    /// The node's signature.
    pub signature: Vec<u8>,
}

/// How long bare Ed25519 and the store take for one result of each node, all at the same time.
pub async fn results(records: &Records, fleet: FleetId, run: &str, reports: Vec<Sealed>) -> Result<Duration> {
    let nodes: Vec<String> = reports.iter().map(|report| report.node.clone()).collect();
    records.submit(run, &nodes).await?;
    records.offer(run, &nodes).await?;
    let begun = Instant::now();
    let mut committing = JoinSet::new();
    for (n, report) in reports.into_iter().enumerate() {
        let (records, run) = (records.clone(), run.to_owned());
        committing.spawn(async move {
            let digest = Digest::of(&report.payload);
            report.key.verify(Kind::Report, fleet, digest, &report.signature)?;
            records.result(&run, &report.node, n).await
        });
    }
    while let Some(done) = committing.join_next().await {
        done??;
    }
    Ok(begun.elapsed())
}
