//! An import of advisories as it arrives: pieces of files, spooled as they come, put in place behind the last.
//!
//! Decides nothing; the service does. A client that says nothing for a while holds up no other.

use std::time::Duration;

use fleet_proto::pb;
use fleet_types::view::AdvisoryImport;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::status::{to_status, unreadable};
use crate::context::Context;
use crate::error::{ControllerError, Kind};
use crate::service::advisories::{self, Order};
use crate::service::caller::Operator;

/// Longest wait for a piece: a megabyte over a slow line takes seconds.
const PIECE_LIMIT: Duration = Duration::from_mins(1);
/// Bytes of a piece.
const MAX_PIECE_BYTES: usize = 1024 * 1024;
/// Bytes of the name of a file.
const MAX_NAME_BYTES: usize = 1024;

/// Takes an import to its end.
pub async fn import(
    context: &Context,
    caller: &Operator,
    mut pieces: Streaming<pb::AdvisoryPiece>,
) -> Result<AdvisoryImport, Status> {
    let mut piece = next(&mut pieces).await?;
    let order =
        Order { label: piece.source.clone(), may_shrink: piece.allow_shrink, reason: piece.reason.clone() };
    order.check().map_err(to_status)?;
    // Held until the import has ended, whatever its end.
    let (_turn, mut spool) = advisories::begin(context).await.map_err(to_status)?;
    while !piece.last {
        let invalid = |why| to_status(ControllerError::invalid("advisories", why));
        if piece.data.len() > MAX_PIECE_BYTES || piece.file.len() > MAX_NAME_BYTES {
            return Err(invalid("a piece is larger than 1 MiB, or its file's name longer than 1 KiB"));
        }
        let name: String = piece.file.chars().filter(|c| !c.is_control()).collect();
        spool = advisories::spool(spool, name, piece.begins, piece.data).await.map_err(to_status)?;
        piece = next(&mut pieces).await?;
    }
    advisories::finish(context, caller, &order, spool).await.map_err(to_status)
}

async fn next(pieces: &mut Streaming<pb::AdvisoryPiece>) -> Result<pb::AdvisoryPiece, Status> {
    let cut = |why: &str| {
        to_status(
            ControllerError::new(Kind::Invalid, "import-cut-off", why)
                .fix("import again; nothing was changed"),
        )
    };
    match timeout(PIECE_LIMIT, pieces.message()).await {
        Ok(Ok(Some(piece))) => Ok(piece),
        Ok(Ok(None)) => Err(cut("the files ended before the last was whole")),
        Ok(Err(status)) => Err(unreadable(status)),
        Err(_) => Err(cut("no more of the files came for a minute")),
    }
}
