//! Packages through apt and dpkg.
//!
//! `backend` carries the trait out, `programs` starts the programs and names the causes of their failures, `parse` reads
//! what they print, `store` keeps archives, `copies` keeps contents of
//! configuration files, `repack` makes one from installed files, `database` looks at dpkg's files
//! without a program. Nothing outside of this folder knows apt's words.

mod backend;
mod copies;
mod database;
mod listed;
mod parse;
mod programs;
mod repack;
mod store;

pub(super) use backend::AptPackages;
