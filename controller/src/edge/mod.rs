//! Where the outside meets the controller: decode, authorise, call a service, encode.
//!
//! | file | what lives there |
//! |---|---|
//! | [`listener`] | our own accept loop: handshakes with limits, one peer a connection |
//! | [`admission`], [`entrance`] | who keeps a place when a port is crowded: the decision, and carrying it out |
//! | [`identity_places`] | how many connections one certificate's owner may have |
//! | [`timed`] | a connection that is closed when it begins nothing, is idle or old, or lost its place |
//! | [`peer`] | the identity of a connection, for everything behind it |
//! | [`detached`] | a call that has begun is carried out to its end |
//! | [`guard`] | the access table and the deny list, asked before every handler |
//! | [`stream_permit`] | how long a caller may hold a stream |
//! | [`refusals`] | refused calls, counted and written to the audit log |
//! | [`status`] | the one match from errors to status codes |
//! | [`limits`] | rate of the enrolment port |
//! | [`enrol`], [`agent`], [`operator`] | the three services |
//! | [`server`] | the two servers: services, guard, HTTP/2 limits |
//! | [`session`] | one node's session: the loop behind [`agent`] |
//! | [`streams`] | what operators follow: runs, output, audit bytes |
//!
//! Generated types and status codes stop here.

pub mod admission;
mod advisory_import;
pub mod agent;
pub mod detached;
pub mod enrol;
pub mod entrance;
pub mod guard;
pub mod identity_places;
pub mod limits;
pub mod listener;
pub mod operator;
pub mod peer;
pub mod refusals;
pub mod server;
pub mod session;
pub mod status;
pub mod stream_permit;
pub mod streams;
pub mod timed;
