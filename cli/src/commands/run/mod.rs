//! `fleetctl run`.

mod cancel;
mod dispatch;
mod end;
mod list;
mod logs;
mod order;
mod plan;
mod plan_blocks;
mod planned;
mod show;
mod start;
mod task;
mod wait;
mod what;

pub use dispatch::run;
