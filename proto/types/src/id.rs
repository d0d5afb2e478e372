//! Ids: every id is its own type, so that a job id cannot be passed where a node id is wanted.
//!
//! UUIDs are version 7 where the controller makes them (they sort by time). Nothing here draws
//! randomness or reads the clock: callers hand both in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A text was not the id it was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a {what}: {why}")]
pub struct IdError {
    /// What was expected, for example "node id".
    pub what: &'static str,
    /// The offending text, cut to 64 characters.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl IdError {
    fn new(what: &'static str, text: &str, why: &'static str) -> Self {
        Self { what, text: text.chars().filter(|c| !c.is_control()).take(64).collect(), why }
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// Takes 16 bytes from the wire or a key.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
                Uuid::from_slice(bytes).map(Self).map_err(|_| IdError::new($what, "", "expected 16 bytes"))
            }

            /// The UUID.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Accepts the hyphenated lower-case form only, so that an id has one spelling.
            fn from_str(text: &str) -> Result<Self, IdError> {
                let uuid = Uuid::try_parse(text)
                    .map_err(|_| IdError::new($what, text, "expected a UUID such as 0192f0c1-…"))?;
                if uuid.as_hyphenated().to_string() != text {
                    return Err(IdError::new($what, text, "expected the lower-case form with hyphens"));
                }
                Ok(Self(uuid))
            }
        }
    };
}

uuid_id!(
    /// One managed firewall host. Issued by the controller, never reused.
    NodeId, "node id");
uuid_id!(
    /// A person who operates the fleet.
    OperatorId, "operator id");
uuid_id!(
    /// One controller process's identity.
    ControllerId, "controller id");
uuid_id!(
    /// One fleet; part of every name in a certificate and of every signature.
    FleetId, "fleet id");
uuid_id!(
    /// One audit record, before and beside its index.
    RecordId, "record id");

/// A run: carrying out a procedure on a set of nodes.
///
/// Fifty bits, written as `r-` and ten characters of Crockford base 32: thirty bits of seconds since
/// 2024-01-01 (good until 2058) and twenty random ones. Short enough for an 80-column table, sorts by
/// time, and is not issued again by a store restored from a backup, which a counter would do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u64);

const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 2024-01-01T00:00:00Z in seconds since the Unix epoch.
const RUN_EPOCH_SECONDS: i64 = 1_704_067_200;

impl RunId {
    /// Makes an id from the time and random bits; only the low twenty of `random` are used.
    pub fn new(now: crate::time::Timestamp, random: u32) -> Self {
        let seconds = (now.as_millis() / 1000 - RUN_EPOCH_SECONDS).clamp(0, (1 << 30) - 1);
        Self(seconds.unsigned_abs() << 20 | u64::from(random & 0xf_ffff))
    }

    /// When it was made, by the clock of whoever made it.
    pub fn time(self) -> crate::time::Timestamp {
        let seconds = i64::try_from(self.0 >> 20).unwrap_or(i64::MAX);
        crate::time::Timestamp::clamped((seconds + RUN_EPOCH_SECONDS) * 1000)
    }

    /// The number, for tests that need distinct ids.
    pub const fn from_number(number: u64) -> Self {
        Self(number & ((1 << 50) - 1))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("r-")?;
        for place in (0..10).rev() {
            let digit = usize::try_from(self.0 >> (place * 5) & 31).unwrap_or(0);
            write!(f, "{}", char::from(CROCKFORD[digit]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunId({self})")
    }
}

impl FromStr for RunId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad =
            || IdError::new("run id", text, "expected r- and ten characters, as `fleetctl run list` shows");
        let digits = text.strip_prefix("r-").filter(|d| d.len() == 10).ok_or_else(bad)?;
        let mut number = 0u64;
        for byte in digits.bytes() {
            let digit = CROCKFORD.iter().position(|c| *c == byte).ok_or_else(bad)?;
            number = number << 5 | digit as u64;
        }
        Ok(Self(number))
    }
}

/// One part of a job with an end of its own (change, observe, hand over, roll back), in the order in which they are
/// offered. Most jobs have the first only. Attempts are numbered through all stages of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stage(pub u16);

impl Stage {
    /// The one that every job has.
    pub const FIRST: Self = Self(0);

    /// Is it the first? It is not written then: bytes of jobs with one stage are those of before there were more.
    pub fn is_first(&self) -> bool {
        *self == Self::FIRST
    }
}

/// The part of a run on one node, and which stage of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobId {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: NodeId,
    /// The stage.
    #[serde(default, skip_serializing_if = "Stage::is_first")]
    pub stage: Stage,
}

impl JobId {
    /// The first stage of a job.
    pub const fn first(run: RunId, node: NodeId) -> Self {
        Self { run, node, stage: Stage::FIRST }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.run, self.node)?;
        if self.stage.is_first() { Ok(()) } else { write!(f, "/{}", self.stage.0) }
    }
}

macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
text_serde!(RunId);
text_serde!(Name);

/// Which try of a job this is; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub u32);

/// Rises on every restore of the store from a backup; agents refuse a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// That of a store that was never restored.
    pub const FIRST: Self = Self(1);
}

/// Issued by the store on every connect of a node; messages of an older one are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct LinkEpoch(pub u64);

/// A name that people give: of a node, document, operator or site.
///
/// 1 to 128 bytes of letters, digits, `.`, `_` and `-`, starting with a letter or digit, no label
/// between dots over 63 bytes: so it cannot be read as an option, holds nothing that a terminal
/// interprets, and also serves as a host name (RFC 1123 §2.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Name {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = |why| Err(IdError::new("name", text, why));
        if text.is_empty() || text.len() > 128 {
            return bad("expected 1 to 128 bytes");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
            return bad("only letters, digits, '.', '_' and '-' are allowed");
        }
        if !text.as_bytes()[0].is_ascii_alphanumeric() {
            return bad("it must start with a letter or digit");
        }
        if text.split('.').any(|label| label.is_empty() || label.len() > 63) {
            return bad("a part between dots is empty or over 63 bytes");
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn run_ids_sort_by_time_and_survive_their_text() {
        let early = RunId::new(Timestamp::from_millis(1_790_000_000_000).unwrap(), 0xf_ffff);
        let late = RunId::new(Timestamp::from_millis(1_790_000_001_000).unwrap(), 0);
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(early.to_string().parse::<RunId>().unwrap(), early);
        assert_eq!(late.to_string().len(), 12);
    }

    #[test]
    fn the_first_stage_of_a_job_is_written_as_before_there_were_stages() {
        let node = NodeId::from_uuid(Uuid::from_u128(1));
        let before = format!("{{\"run\":\"r-0000000001\",\"node\":\"{node}\"}}");
        let first = JobId::first(RunId::from_number(1), node);
        assert_eq!(serde_json::to_string(&first).unwrap(), before);
        assert_eq!(serde_json::from_str::<JobId>(&before).unwrap(), first);
        let second = JobId { stage: Stage(1), ..first };
        assert_eq!(serde_json::from_str::<JobId>(&serde_json::to_string(&second).unwrap()).unwrap(), second);
        assert_eq!(second.to_string(), format!("{first}/1"));
    }

    #[test]
    fn an_id_has_one_spelling() {
        for bad in ["r-", "r-ILOU000000", "R-0000000000", "r-00000000000", "x"] {
            assert!(bad.parse::<RunId>().is_err(), "{bad}");
        }
        assert!("0192F0C1-0000-7000-8000-000000000000".parse::<NodeId>().is_err());
        assert!("0192f0c1-0000-7000-8000-000000000000".parse::<NodeId>().is_ok());
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = format!("{}.example", "b".repeat(70));
        for bad in [
            "",
            "-V",
            "a b",
            "a\n",
            "\u{202e}x",
            "$(x)",
            "a/../b",
            ".a",
            "a..b",
            long.as_str(),
            &"a".repeat(129),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        assert_eq!("fw-fra1-07".parse::<Name>().unwrap().as_str(), "fw-fra1-07");
    }
}
