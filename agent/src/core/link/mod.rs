//! The link: one session with a controller at a time, for as long as the agent runs.
//!
//! | module | holds |
//! |---|---|
//! | [`owner`] | the loop: pause, dial, live, again; what the executor says is taken in at all times |
//! | [`dial`] | endpoints in order, keepalive, errors in words |
//! | [`opened`] | from Hello to Welcome |
//! | [`live`] | the life of one link, from Welcome to its end |
//! | [`messages`] | what is done with what arrives over it |
//! | [`ending`] | how a link ends, in words |
//! | [`session`] | numbers and checks of the session's messages; pure |
//! | [`state`] | everything that outlives a link: outbox, output on its way, wanted documents, facts for Hello |
//! | [`documents`] | fetching what the executor needs |
//! | [`copies`] | pieces of encrypted copies of backups |
//! | [`packages`] | what packages the node has |
//! | [`path`] | whether the way to a controller is open, asked while a guard holds a change |
//! | [`output_stream`] | the output's own stream |
//!
//! Generated messages are known here, in the outbox and at the channel, nowhere else in the agent. Losing the
//! controller changes nothing for the executor but a message that says so.

pub mod copies;
pub mod dial;
pub mod documents;
pub mod ending;
pub mod live;
pub mod messages;
pub mod opened;
pub mod output_stream;
pub mod owner;
pub mod packages;
pub mod path;
pub mod session;
pub mod state;

pub use ending::status_detail;
pub use owner::{Link, LinkError};
