//! Nodes' report keys, fetched when the first of their records comes, for checking their signatures.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fleet_types::audit::AuditRecord;
use fleet_types::id::{FleetId, Name, NodeId};
use fleet_types::seal::{Kind, PublicKey};

use crate::client::Client;
use crate::commands::paging;
use crate::error::Failure;

/// Keys by node.
#[derive(Debug)]
pub struct ReportKeys {
    names: BTreeMap<NodeId, Name>,
    keys: BTreeMap<NodeId, Option<PublicKey>>,
    fleet: FleetId,
    /// Signatures that held.
    pub checked: u64,
    /// Signed reports of nodes whose key the controller does not give any more.
    pub without_key: u64,
}

impl ReportKeys {
    /// Reads which nodes there are.
    pub async fn new(client: &Client, fleet: FleetId) -> Result<Self, Failure> {
        let page =
            paging::all("", fleet_types::request::MAX_NODES, async |after| client.nodes("", after).await);
        let names = page.await?.items.into_iter().map(|node| (node.id, node.name)).collect();
        Ok(Self { names, keys: BTreeMap::new(), fleet, checked: 0, without_key: 0 })
    }

    /// Checks the signature in a record, if it has one. The error says what is wrong.
    pub async fn check(
        &mut self,
        client: &Client,
        record: &AuditRecord,
    ) -> Result<Result<(), String>, Failure> {
        let (Some(job), Some(report), Some(signature)) =
            (record.job, record.report, &record.report_signature)
        else {
            return Ok(Ok(()));
        };
        let Some(key) = self.key(client, job.node).await? else {
            self.without_key += 1;
            return Ok(Ok(()));
        };
        let bad = |why: &str| format!("record {}: the node's signature over its report {why}", record.index);
        let Ok(signature) = BASE64.decode(signature) else { return Ok(Err(bad("is not base 64"))) };
        if key.verify(Kind::Report, self.fleet, report, &signature).is_err() {
            return Ok(Err(bad("does not hold")));
        }
        self.checked += 1;
        Ok(Ok(()))
    }

    async fn key(&mut self, client: &Client, node: NodeId) -> Result<Option<PublicKey>, Failure> {
        if let Some(known) = self.keys.get(&node) {
            return Ok(*known);
        }
        let key = match self.names.get(&node) {
            Some(name) => client.node(name).await?.report_key,
            None => None,
        };
        self.keys.insert(node, key);
        Ok(key)
    }
}
