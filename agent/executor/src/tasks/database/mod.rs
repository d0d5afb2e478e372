//! Databases: how the server is spoken to (`server`, `answer`), what a dump is (`dump`, `manifest`), and what the tasks on
//! databases share.
//!
//! `PostgreSQL`'s own programs do the talking (docs/adr/0028). Called by the tasks named `database.*` and `backup.*`.

mod answer;
mod dump;
mod manifest;
mod scratch;
mod server;
mod tables;

pub(super) use answer::{DatabaseError, Listener, text};
pub(super) use dump::{list, make, origin};
pub(super) use manifest::{DumpManifest, manifest_beside, manifest_of, verify};
pub(super) use scratch::{MARK, Scratch, check_version, restore};
pub(super) use server::{MAINTENANCE, MAX_NAME_BYTES, Server, Session, Work};
pub(super) use tables::{Table, maintain, named};
