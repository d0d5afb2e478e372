//! Pieces of encrypted copies of backups: one call each, and what it said for the executor.
//!
//! What the pieces are is the executor's business; here they are passed on unread.

use std::time::Duration;

use fleet_proto::pb;
use fleet_proto::pb::agent_service_client::AgentServiceClient;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

use super::documents::is_final;

/// With the last piece the controller reads the whole file again: a minute for ten gigabytes on a slow disk.
const LIMIT: Duration = Duration::from_mins(10);
/// Of a refusal so much is passed on.
const MAX_WHY: usize = 300;

/// Why a call was refused, and whether another try would be.
pub(super) fn refusal(status: &Status) -> (String, bool) {
    let words = status.message().chars().filter(|c| !c.is_control()).take(MAX_WHY).collect::<String>();
    let why = if words.is_empty() { format!("{:?}", status.code()) } else { words };
    (why, is_final(status.code()))
}

/// Sends a piece; the answer names the copy whatever became of it.
pub async fn put(mut client: AgentServiceClient<Channel>, piece: pb::CopyPiece) -> pb::CopyAnswer {
    let sha256 = piece.sha256.clone();
    let (error, refused) = match timeout(LIMIT, client.put_copy(piece)).await {
        Ok(Ok(reply)) => {
            let taken = Some(pb::CopyTaken { sha256, ..reply.into_inner() });
            return pb::CopyAnswer { taken, ..Default::default() };
        }
        Ok(Err(status)) => refusal(&status),
        Err(_) => ("no answer in time".to_owned(), false),
    };
    let taken = Some(pb::CopyTaken { sha256, ..Default::default() });
    pb::CopyAnswer { taken, error, refused }
}
