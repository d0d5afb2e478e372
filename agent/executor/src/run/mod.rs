//! Runs: carrying admitted work out, step by step, and the way back.
//!
//! `life` goes through the steps, `step` through the tries of one, `saga` undoes and finishes, `guarded` has what can cut the node off confirmed or put back, `path` asks for the way to a controller, `held` stops again what a start of the machine brought up, `task_thread`
//! calls a task and bounds it, `limits` adds up how long all of it may take, `output` keeps what tasks print, `draft` is what a run ends with. A run writes
//! the journal before each act and sends nothing itself: it tells the dispatcher, which made it.

mod draft;
mod guarded;
mod held;
mod life;
mod limits;
mod output;
mod path;
mod planning;
mod restart;
mod saga;
mod step;
mod task_thread;

pub use draft::{Draft, End, Ending, RunEvent, cut_parts, fit};
pub use life::{Run, RunSurroundings, Work};
pub use limits::{Deadlines, Shares};
pub use output::{OutputHub, OutputPiece, StepOutput};
pub use path::{PathDesk, PathQuestion, Way};
pub use task_thread::{Abandoned, Called, on_thread};
