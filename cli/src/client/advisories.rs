//! Files of advisories on their way to the controller, and what it says of advisories and findings.

use fleet_proto::pb;
use fleet_types::view;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::connection::{Client, read_view};
use crate::error::Failure;

/// A piece of a file; one without a file's name is the end of all.
#[derive(Debug, Clone, Default)]
pub struct AdvisoryPiece {
    /// The file.
    pub file: String,
    /// Is it the first of its file?
    pub begins: bool,
    /// The bytes.
    pub data: Vec<u8>,
    /// In the first: whose they are.
    pub label: String,
    /// In the first: may a source become less than half of what it was?
    pub may_shrink: bool,
    /// In the first: why.
    pub reason: String,
}

impl From<AdvisoryPiece> for pb::AdvisoryPiece {
    fn from(piece: AdvisoryPiece) -> Self {
        let AdvisoryPiece { file, begins, data, label, may_shrink, reason } = piece;
        let last = file.is_empty();
        Self { file, begins, data, last, source: label, allow_shrink: may_shrink, reason }
    }
}

impl Client {
    /// Sends files of advisories; the controller answers when it has them in place. How long that takes depends on their
    /// size, and pings notice a dead link.
    pub async fn import_advisories(
        &self,
        pieces: mpsc::Receiver<AdvisoryPiece>,
    ) -> Result<view::AdvisoryImport, Failure> {
        let mut service = self.service();
        let stream = ReceiverStream::new(pieces).map(pb::AdvisoryPiece::from);
        let reply = service.import_advisories(stream).await.map_err(|status| self.failed(&status))?;
        read_view(&reply.into_inner().json)
    }
}
