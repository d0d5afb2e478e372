//! What packages the node has: one call, and what it said for the executor.
//!
//! What is in it is the executor's business; here it is passed on unread.

use std::time::Duration;

use fleet_proto::pb;
use fleet_proto::pb::agent_service_client::AgentServiceClient;
use tokio::time::timeout;
use tonic::transport::Channel;

use super::copies::refusal;

/// A list has less than a megabyte; the controller writes it once.
const LIMIT: Duration = Duration::from_mins(2);

/// Sends it.
pub async fn put(mut client: AgentServiceClient<Channel>, message: pb::Packages) -> pb::PackagesAnswer {
    let (error, refused) = match timeout(LIMIT, client.put_packages(message)).await {
        Ok(Ok(reply)) => {
            return pb::PackagesAnswer { taken: Some(reply.into_inner()), ..Default::default() };
        }
        Ok(Err(status)) => refusal(&status),
        Err(_) => ("no answer in time".to_owned(), false),
    };
    pb::PackagesAnswer { taken: None, error, refused }
}
