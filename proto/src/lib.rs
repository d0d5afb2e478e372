//! The wire: generated messages, and the conversions between them and the domain types.
//!
//! Generated types stop at the edges (controller/edge, the agent's link and the executor's socket, the CLI's
//! client); everything behind works with `fleet_types`. Documents, requests, reports and views cross as JSON
//! bytes with a digest and are read with `fleet_types::canonical`.

pub mod convert;

/// Generated from `fleet/v1/*.proto`.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("fleet.v1");
}

/// Protocol version that this release speaks, and the oldest that it understands.
pub const PROTOCOL: std::ops::RangeInclusive<u32> = 1..=1;
/// Largest message on the enrolment port, and largest control message and output chunk (§1.1, §1.22).
pub const MAX_CONTROL_BYTES: usize = 64 * 1024;
/// Largest message elsewhere (§1.22).
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
