//! The one match that turns our kinds of error into gRPC status codes, with the detail for callers beside it.

use fleet_types::view::{ERROR_DETAIL_KEY, ErrorDetail};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::error::{ControllerError, Kind};

const fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Refused => Code::PermissionDenied,
        Kind::NotFound => Code::NotFound,
        Kind::Conflict => Code::Aborted,
        Kind::Blocked => Code::FailedPrecondition,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Internal => Code::Internal,
    }
}

/// Longest detail: HTTP/2 headers of a response stay within common limits.
const MAX_DETAIL_BYTES: usize = 6 * 1024;

fn encode(detail: &ErrorDetail) -> Vec<u8> {
    let mut detail = detail.clone();
    loop {
        let bytes = serde_json::to_vec(&detail).unwrap_or_default();
        if bytes.len() <= MAX_DETAIL_BYTES || detail.causes.is_empty() {
            return bytes;
        }
        detail.causes.truncate(detail.causes.len() / 2);
        if detail.causes.is_empty() {
            detail.message = detail.message.chars().take(1000).collect();
        }
    }
}

/// What the library says of bytes that are no message, as "internal": it would count as a fault of ours.
pub fn unreadable(status: Status) -> Status {
    match status.code() {
        Code::Internal => Status::invalid_argument(status.message()),
        _ => status,
    }
}

/// The same for an answer that is on its way already. Our own answers bear a detail.
pub fn blame_the_client(headers: &mut http::HeaderMap) {
    let is_internal = headers.get(Status::GRPC_STATUS).is_some_and(|code| code.as_bytes() == b"13");
    if is_internal && !headers.contains_key(ERROR_DETAIL_KEY) {
        headers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("3"));
    }
}

/// For the caller. What they may not see is logged here, once, under an id that they are given.
pub fn to_status(error: ControllerError) -> Status {
    let mut detail = *error.detail;
    // A limit without a cause behind it says all that there is to say, and is met by many callers at once.
    let logged = match error.kind {
        Kind::Internal | Kind::Unavailable => true,
        Kind::Exhausted => error.source.is_some(),
        _ => false,
    };
    if logged {
        detail.id = uuid::Uuid::new_v4().simple().to_string();
        detail.id.truncate(8);
        let mut chain = String::new();
        let mut source = error.source.as_deref().map(|e| e as &dyn std::error::Error);
        while let Some(cause) = source {
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
            source = cause.source();
        }
        tracing::error!(id = detail.id, "{}{chain}", detail.message);
    }
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(ERROR_DETAIL_KEY, MetadataValue::from_bytes(&encode(&detail)));
    let message: String = detail.message.chars().take(500).collect();
    Status::with_metadata(code(error.kind), message, metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_message_are_the_clients_fault_and_our_own_faults_stay_ours() {
        let code = |status: Status| {
            let mut headers = status.into_http::<()>().into_parts().0.headers;
            blame_the_client(&mut headers);
            headers[Status::GRPC_STATUS].to_str().unwrap().to_owned()
        };
        assert_eq!(code(Status::internal("failed to decode Protobuf message")), "3");
        assert_eq!(code(to_status(ControllerError::internal("a defect"))), "13");
        assert_eq!(code(Status::unimplemented("")), "12");
        assert_eq!(unreadable(Status::internal("x")).code(), Code::InvalidArgument);
        assert_eq!(unreadable(Status::cancelled("x")).code(), Code::Cancelled);
    }
}
