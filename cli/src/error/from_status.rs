//! From a refused or failed call to what the operator sees.
//!
//! The controller puts an [`ErrorDetail`] into the metadata key `fleet-error-bin`. Where it is missing
//! (a proxy answered, or the connection broke) the gRPC code alone decides.

use fleet_certs::dial::DialError;
use fleet_types::view::{ERROR_DETAIL_KEY, ErrorDetail};
use tonic::{Code, Status};

use super::{Dialled, ExitCode, Failure, from_dial_error};

/// A failed call, in the context `context`.
pub fn from_status(status: &Status, context: &str) -> Failure {
    if let Some(detail) = detail(status) {
        let exit = exit_of_code(&detail.code).unwrap_or(of_code(status.code()).0);
        let mut failure = Failure::new(exit, detail.code, detail.message);
        failure = detail.causes.into_iter().fold(failure, Failure::cause).fix(detail.fix);
        failure.id = Some(detail.id).filter(|id| !id.is_empty());
        return failure;
    }
    if let Some(dial) = std::error::Error::source(status).and_then(DialError::find) {
        return from_dial_error(dial, Dialled::Context(context));
    }
    // What a controller sends has no source; one made on this side tells of a connection that broke.
    if let Some(source) =
        std::error::Error::source(status).filter(|_| status.code() != Code::DeadlineExceeded)
    {
        return Failure::new(
            ExitCode::NotReachable,
            "not-reachable",
            "the connection to the controller broke",
        )
        .because(source)
        .fix("see that the controller runs, then repeat the command");
    }
    let message = if status.message().is_empty() { status.code().description() } else { status.message() };
    let (exit, code) = of_code(status.code());
    let failure = Failure::new(exit, code, message);
    match status.code() {
        Code::Unavailable => failure
            .cause("the connection to the controller broke")
            .fix("see that the controller runs, then repeat the command"),
        Code::DeadlineExceeded => failure
            .cause("the controller did not answer in time; what was asked may have been done")
            .fix("look before repeating: fleetctl run list; a longer limit: --timeout 2m"),
        Code::Unauthenticated | Code::PermissionDenied => {
            failure.fix(format!("see who you are there: fleetctl whoami --context {context}"))
        }
        Code::Unimplemented => {
            failure.fix("this controller is older than fleetctl: compare `fleetctl version`")
        }
        _ => failure,
    }
}

fn detail(status: &Status) -> Option<ErrorDetail> {
    let bytes = status.metadata().get_bin(ERROR_DETAIL_KEY)?.to_bytes().ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Codes whose exit code is not that of the gRPC code they travel with.
fn exit_of_code(code: &str) -> Option<ExitCode> {
    Some(match code {
        "not-found" | "no-match" => ExitCode::NotFound,
        "not-allowed" | "not-signed-in" | "cert-expired" | "cert-revoked" => ExitCode::NotAllowed,
        "conflict" | "plan-stale" => ExitCode::Conflict,
        "policy-refused" | "gate-blocked" | "window-closed" => ExitCode::Blocked,
        "config-invalid" | "no-target" | "usage" => ExitCode::Usage,
        "signature-refused" | "foreign-signature" | "trust-refused" => ExitCode::Verification,
        _ => return None,
    })
}

/// The exit code of a gRPC code, and its word.
const fn of_code(code: Code) -> (ExitCode, &'static str) {
    match code {
        Code::Ok => (ExitCode::Done, "unexpected"),
        Code::Unknown | Code::Internal => (ExitCode::Unexpected, "unexpected"),
        Code::Unimplemented => (ExitCode::Unexpected, "not-known-there"),
        Code::InvalidArgument | Code::OutOfRange => (ExitCode::Usage, "usage"),
        Code::NotFound => (ExitCode::NotFound, "not-found"),
        Code::DeadlineExceeded => (ExitCode::TimedOut, "timed-out"),
        Code::Unavailable => (ExitCode::NotReachable, "not-reachable"),
        Code::FailedPrecondition => (ExitCode::Blocked, "blocked"),
        // The controller answers: it is full, or asked too often.
        Code::ResourceExhausted => (ExitCode::Blocked, "busy"),
        Code::Unauthenticated => (ExitCode::NotAllowed, "not-signed-in"),
        Code::PermissionDenied => (ExitCode::NotAllowed, "not-allowed"),
        Code::AlreadyExists | Code::Aborted => (ExitCode::Conflict, "conflict"),
        Code::DataLoss => (ExitCode::Verification, "damaged"),
        Code::Cancelled => (ExitCode::Interrupted, "interrupted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::{MetadataMap, MetadataValue};

    #[test]
    fn details_win_over_the_code() {
        let detail = ErrorDetail {
            code: "no-match".into(),
            message: "no node matches \"ring=x\"".into(),
            causes: vec!["a".into(), "a".into()],
            fix: "fleetctl node list".into(),
            id: "7f3a".into(),
            retry_after_ms: 0,
        };
        let mut metadata = MetadataMap::new();
        metadata
            .insert_bin(ERROR_DETAIL_KEY, MetadataValue::from_bytes(&serde_json::to_vec(&detail).unwrap()));
        let failure = from_status(&Status::with_metadata(Code::InvalidArgument, "x", metadata), "prod");
        assert_eq!(failure.exit, ExitCode::NotFound);
        assert_eq!((failure.code.as_str(), failure.causes.len()), ("no-match", 1));
        assert_eq!(failure.id.as_deref(), Some("7f3a"));
    }

    #[test]
    fn a_connection_that_broke_is_no_answer_of_the_controller() {
        for code in [Code::Unknown, Code::Internal, Code::Cancelled] {
            let mut status = Status::new(code, "h2 protocol error");
            status.set_source(std::sync::Arc::new(std::io::Error::other("broken pipe")));
            assert_eq!(from_status(&status, "prod").exit, ExitCode::NotReachable, "{code:?}");
        }
    }

    #[test]
    fn without_details_the_code_decides() {
        let cases = [
            (Code::InvalidArgument, 2),
            (Code::NotFound, 4),
            (Code::FailedPrecondition, 6),
            (Code::DeadlineExceeded, 8),
            (Code::Unavailable, 9),
            (Code::PermissionDenied, 10),
            (Code::Unauthenticated, 10),
            (Code::Aborted, 11),
            (Code::DataLoss, 12),
            (Code::Internal, 1),
        ];
        for (code, exit) in cases {
            assert_eq!(from_status(&Status::new(code, "x"), "prod").exit.number(), exit, "{code:?}");
        }
    }
}
