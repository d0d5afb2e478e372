//! Answers of the controller that is played, in the form in which the real one gives them.

use fleet_proto::{convert, pb};
use fleet_types::view;
use serde::Serialize;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Response, Status};

pub type Reply = Result<Response<pb::View>, Status>;

#[allow(clippy::unnecessary_wraps, reason = "it is the answer of a handler")]
pub fn view<T: Serialize>(value: &T) -> Reply {
    Ok(Response::new(pb::View { json: convert::to_json(value) }))
}

pub fn page<T: Serialize>(schema: &str, items: Vec<T>) -> Reply {
    view(&view::Page { schema: schema.to_owned(), items, next: None })
}

/// A refusal with details, as the real controller gives them.
pub fn refusal(code: Code, word: &str, message: &str, fix: &str) -> Status {
    let detail = view::ErrorDetail {
        code: word.to_owned(),
        message: message.to_owned(),
        causes: vec![],
        fix: fix.to_owned(),
        id: String::new(),
        retry_after_ms: 0,
    };
    let mut metadata = MetadataMap::new();
    metadata.insert_bin("fleet-error-bin", MetadataValue::from_bytes(&serde_json::to_vec(&detail).unwrap()));
    Status::with_metadata(code, message, metadata)
}
