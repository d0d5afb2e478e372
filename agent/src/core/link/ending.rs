//! How a link ends, in words for the log.

use std::time::Duration;

use fleet_types::view::{ERROR_DETAIL_KEY, ErrorDetail};

use super::session::SessionFault;

/// How a link ended.
#[derive(Debug)]
pub enum Ended {
    /// The agent stops; what matters was flushed, or the grace period is over.
    Stopped,
    /// There is a new certificate, for the next link.
    Renewed,
    /// The controller asked us to come back later.
    Goodbye {
        /// Its reason.
        reason: String,
        /// Not before this.
        retry_after: Duration,
    },
    /// Anything else.
    Lost(Lost),
}

/// Why a link was lost or dropped.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The controller ended the stream.
    #[error("the controller closed the session")]
    Closed,
    /// The stream broke, or a message was too large or malformed.
    #[error("{}", words(.0))]
    Broken(tonic::Status),
    /// Epoch, number or body of a message.
    #[error(transparent)]
    Fault(#[from] SessionFault),
    /// No answer to heartbeats.
    #[error("no answer to heartbeats for {} ms", .0.as_millis())]
    Silent(Duration),
    /// The executor does not accept this controller.
    #[error("the executor refused the link: {0}")]
    Refused(String),
    /// The executor did not answer the link's fencing values.
    #[error("the executor did not answer in time to a new link")]
    NoAnswer,
    /// The outbox had overflowed and is empty again.
    #[error("reports were held back; a new link lists them")]
    Relist,
}

/// What the controller says beside the code of a status; none where the transport alone has spoken.
pub fn status_detail(status: &tonic::Status) -> Option<ErrorDetail> {
    let bytes = status.metadata().get_bin(ERROR_DETAIL_KEY)?.to_bytes().ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// A controller's own words where it has spoken; a transport's are of no use to anybody.
fn words(status: &tonic::Status) -> String {
    let said: String = status.message().chars().filter(|c| !c.is_control()).take(300).collect();
    match status.code() {
        tonic::Code::Unknown if std::error::Error::source(status).is_some() => {
            "the connection to the controller broke".to_owned()
        }
        tonic::Code::Unavailable if said.is_empty() => "the controller is not there".to_owned(),
        code => format!("the session ended: {said} ({code:?})"),
    }
}
