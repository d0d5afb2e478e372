//! Why a job may run: the same type on the wire, in the store, in the journal and in policy.
//!
//! In JSON it is one key of what it belongs to, `"request": "<digest>"`; a kind that a reader does not know is refused
//! by name.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Why a job may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authority {
    /// An operator asked for it: the digest of their signed request.
    Request(Digest),
    /// The gates of the rollout policy that such a request names: the node looks whether they hold, and changes nothing.
    /// The digest of the request. An agent that does not know the word cannot take it for the request itself, and does
    /// not carry its procedure out a second time.
    Gates(Digest),
    /// The tick of a schedule, under a standing order that an operator signed: the digest of the request that is made of it
    /// ([`crate::standing_order`]).
    Tick(Digest),
}

impl Authority {
    /// Digest of the signed text that gives it.
    pub const fn digest(self) -> Digest {
        match self {
            Self::Request(digest) | Self::Gates(digest) | Self::Tick(digest) => digest,
        }
    }

    /// Are these the gates of a rollout?
    pub const fn is_gates(self) -> bool {
        matches!(self, Self::Gates(_))
    }

    /// As it stands under the signature of a wave.
    pub(crate) fn signed_text(self) -> String {
        match self {
            Self::Request(digest) => digest.to_string(),
            Self::Gates(digest) => format!("gates {digest}"),
            Self::Tick(digest) => format!("tick {digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Job {
        number: u32,
        #[serde(flatten)]
        authority: Authority,
    }

    #[test]
    fn it_is_one_key_and_an_unknown_one_is_refused_by_name() {
        let digest = Digest::of(b"request");
        let job = Job { number: 1, authority: Authority::Request(digest) };
        let text = format!("{{\"number\":1,\"request\":\"{digest}\"}}");
        assert_eq!(serde_json::to_string(&job).unwrap(), text);
        assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
        let unknown = text.replace("request", "approval");
        let error = serde_json::from_str::<Job>(&unknown).unwrap_err().to_string();
        assert!(error.contains("Authority"), "{error}");
        let more = text.replace("\"number\"", "\"surprise\":2,\"number\"");
        let error = serde_json::from_str::<Job>(&more).unwrap_err().to_string();
        assert!(error.contains("surprise"), "{error}");
    }

    #[test]
    fn the_gates_of_a_request_are_not_the_request() {
        let digest = Digest::of(b"request");
        let (request, gates) = (Authority::Request(digest), Authority::Gates(digest));
        let texts = [request, gates, Authority::Tick(digest)].map(Authority::signed_text);
        assert_eq!(
            texts.iter().collect::<std::collections::BTreeSet<_>>().len(),
            3,
            "a wave of one is none of the other"
        );
        assert_eq!(request.digest(), gates.digest());
        let text = format!("{{\"number\":1,\"gates\":\"{digest}\"}}");
        assert_eq!(serde_json::to_string(&Job { number: 1, authority: gates }).unwrap(), text);
    }
}
