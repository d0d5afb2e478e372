//! `fleetctl run` and `fleetctl rollout`.

mod cancel;
mod dispatch;
mod end;
mod list;
mod logs;
pub(super) mod order;
mod plan;
mod plan_blocks;
mod planned;
mod rings;
mod show;
pub(super) mod start;
mod steer;
mod task;
mod wait;
mod what;

pub use dispatch::{rollout, run};
