//! A controller with enrolled nodes, ready to be measured. Nothing here is timed.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use fleet_proto::pb;
use fleet_types::digest::Digest;
use fleet_types::view::JoinTokenView;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::plan::TWO_WORKERS_FROM;
use crate::controller_process::{ControllerProcess, Options};
use crate::fake_agent::Credentials;
use crate::operator_client::{OperatorClient, Service, key};
use crate::orders::{LOOK, PROFILE};
use crate::test_fleet::{labels, name};

/// Enrolments that an address may make before it is slowed (600 a minute), less a few.
const A_SOURCE: usize = 500;
/// Enrolments under way: each is two calls and a signature.
const AT_ONCE: usize = 16;

/// A controller and the credentials of its nodes.
pub struct Prepared {
    /// The controller.
    pub controller: ControllerProcess,
    /// The operator.
    pub operator: OperatorClient,
    /// All nodes.
    pub nodes: Vec<Credentials>,
    /// One file of credentials a worker.
    pub files: Vec<PathBuf>,
    /// Profile and procedure.
    pub documents: (Digest, Digest),
}

/// Starts a controller at full scale and enrols `count` nodes.
pub async fn prepare(count: usize) -> Result<Prepared> {
    let options = Options { scale: 1, log: "warn".to_owned(), ..Options::default() };
    let controller = ControllerProcess::start_new(&options).await?;
    let operator = OperatorClient::enrol(&controller, &controller.invite).await?;
    operator.list_content_key(&controller.root_key_path()).await?;
    let digests = operator.apply(&[("profile.toml", PROFILE), ("look.toml", LOOK)]).await?;
    let [profile, look] = digests[..] else { anyhow::bail!("two documents were applied") };
    let address = controller.enrol_address();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut joining = JoinSet::new();
    for n in 0..count {
        let place = Arc::clone(&places).acquire_owned().await?;
        let service = operator.raw();
        let source = source(100 + u8::try_from(n / A_SOURCE).context("too many agents for one machine")?);
        joining.spawn(async move {
            let _place = place;
            let token = join_token(service, n).await?;
            Credentials::enrol(address, Some(source), &token).await
        });
    }
    let mut nodes = Vec::with_capacity(count);
    while let Some(joined) = joining.join_next().await {
        nodes.push(joined??);
    }
    let workers = if count >= TWO_WORKERS_FROM { 2 } else { 1 };
    let mut files = Vec::new();
    for (number, part) in nodes.chunks(count.div_ceil(workers)).enumerate() {
        let path = controller.folder().join(format!("credentials-{number}.json"));
        fleet_certs::files::write_secret(&path, &fleet_certs::Secret::new(serde_json::to_vec(part)?))?;
        files.push(path);
    }
    Ok(Prepared { controller, operator, nodes, files, documents: (profile, look) })
}

async fn join_token(mut service: Service, n: usize) -> Result<String> {
    let request = pb::CreateJoinTokenRequest {
        node_name: name(n),
        labels: labels(n).into_iter().collect(),
        lifetime_seconds: 3600,
        idempotency_key: key(),
        replace_labels: false,
    };
    let view = service.create_join_token(request).await?.into_inner().json;
    Ok(serde_json::from_slice::<JoinTokenView>(&view)?.token)
}

/// An address of the loopback network.
pub const fn source(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}
