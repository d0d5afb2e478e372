//! Documents that the executor needs: each asked for once at a time, within a limit, and again later.
//!
//! What arrives is passed on as it is; the executor checks digest and signature. Only a controller's plain
//! "no" is passed on as an error: a broken link, a busy controller or a timeout says nothing about the
//! document, so it is asked for again, on this link or the next.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_proto::convert::{self, FieldError};
use fleet_proto::pb;
use fleet_proto::pb::agent_service_client::AgentServiceClient;
use fleet_types::digest::Digest;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tonic::Code;
use tonic::transport::Channel;
use tracing::debug;

/// Documents wanted at once: a run needs three (request, procedure, profile); this is many runs' worth.
const MAX_WANTED: usize = 64;
/// Fetched side by side: the link's control messages share the connection.
const MAX_FETCHES: usize = 4;

/// What is wanted and how far it is.
#[derive(Debug)]
pub struct Wanted {
    limit: Duration,
    documents: BTreeMap<Digest, State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not before this.
    Due(Instant),
    Fetching,
}

/// What became of one fetch.
#[derive(Debug)]
pub struct Fetched {
    digest: Digest,
    result: Result<Vec<u8>, tonic::Status>,
}

impl Wanted {
    /// One fetch takes at most `limit`; a failed one is tried again after the same time.
    pub const fn new(limit: Duration) -> Self {
        Self { limit, documents: BTreeMap::new() }
    }

    /// The executor needs a document; asking twice changes nothing.
    pub fn on_need(&mut self, digest: &[u8]) -> Result<(), FieldError> {
        let digest = convert::digest("need_document.digest", digest)?;
        if self.documents.len() >= MAX_WANTED {
            return Err(FieldError::new("need_document.digest", "too many documents are wanted at once"));
        }
        self.documents.entry(digest).or_insert_with(|| State::Due(Instant::now()));
        Ok(())
    }

    /// A new link: everything is due at once.
    pub fn on_link_up(&mut self, now: Instant) {
        for state in self.documents.values_mut() {
            *state = State::Due(now);
        }
    }

    /// When the next fetch is due.
    pub fn due(&self, running: usize) -> Option<Instant> {
        if running >= MAX_FETCHES {
            return None;
        }
        let due = |state: &State| if let State::Due(at) = state { Some(*at) } else { None };
        self.documents.values().filter_map(due).min()
    }

    /// Starts what is due.
    pub fn start(
        &mut self,
        now: Instant,
        client: &AgentServiceClient<Channel>,
        fetches: &mut JoinSet<Fetched>,
    ) {
        for (digest, state) in &mut self.documents {
            if fetches.len() >= MAX_FETCHES {
                return;
            }
            if matches!(state, State::Due(at) if *at <= now) {
                *state = State::Fetching;
                fetches.spawn(fetch(client.clone(), *digest, self.limit));
            }
        }
    }

    /// Takes the result of a fetch; `Some` goes to the executor.
    pub fn on_fetched(&mut self, fetched: Fetched, now: Instant) -> Option<pb::DocumentArrived> {
        let Fetched { digest, result } = fetched;
        let arrived =
            |envelope, error| pb::DocumentArrived { digest: digest.as_bytes().to_vec(), envelope, error };
        let answer = match result {
            Ok(envelope) => arrived(envelope, String::new()),
            Err(status) if is_final(status.code()) => {
                arrived(Vec::new(), status.message().chars().filter(|c| !c.is_control()).take(300).collect())
            }
            Err(status) => {
                debug!(%digest, code = ?status.code(), "document did not arrive; it is asked for again");
                self.documents.insert(digest, State::Due(now + self.limit));
                return None;
            }
        };
        self.documents.remove(&digest);
        Some(answer)
    }
}

/// Answers that another try would not change.
pub const fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::NotFound
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
    )
}

async fn fetch(mut client: AgentServiceClient<Channel>, digest: Digest, limit: Duration) -> Fetched {
    let request = pb::FetchDocumentRequest { digest: digest.as_bytes().to_vec() };
    let result = match timeout(limit, client.fetch_document(request)).await {
        Ok(reply) => reply.map(|reply| reply.into_inner().envelope),
        Err(_) => Err(tonic::Status::deadline_exceeded("no answer in time")),
    };
    Fetched { digest, result }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_wanted_once_and_again_after_a_vague_failure() {
        let now = Instant::now();
        let mut wanted = Wanted::new(Duration::from_secs(30));
        let digest = Digest::of(b"x");
        for _ in 0..3 {
            wanted.on_need(digest.as_bytes()).unwrap();
        }
        assert_eq!(wanted.documents.len(), 1);
        let failed = Fetched { digest, result: Err(tonic::Status::unavailable("busy")) };
        assert!(wanted.on_fetched(failed, now).is_none());
        assert_eq!(wanted.due(0), Some(now + Duration::from_secs(30)));
        wanted.on_link_up(now);
        assert_eq!((wanted.due(0), wanted.due(MAX_FETCHES)), (Some(now), None));
        let refused = Fetched { digest, result: Err(tonic::Status::not_found("no such\ndocument")) };
        assert_eq!(wanted.on_fetched(refused, now).unwrap().error, "no suchdocument");
        assert_eq!(wanted.due(0), None);
    }

    /// Output waits for such a controller, too: `output_stream` asks the same question.
    #[test]
    fn a_controller_that_is_short_of_space_or_busy_is_tried_again_later() {
        for later in [Code::ResourceExhausted, Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled] {
            assert!(!is_final(later), "{later:?}");
        }
        for never in [Code::NotFound, Code::PermissionDenied, Code::InvalidArgument] {
            assert!(is_final(never), "{never:?}");
        }
    }
}
