//! CVSS 2.0, 3.0, 3.1 and 4.0: from a vector to a score and its band.
//!
//! For: everything that asks how urgent a hole is. Must never: turn what cannot be read into a number. A vector
//! that no version accepts is refused with reason and place; whoever shows it says `unknown`, never 0 or 10.
//!
//! | file | holds |
//! |---|---|
//! | `grammar` | which metrics and values each version has |
//! | `vector` | reading and scoring a vector |
//! | `score` | tenths, and the bands that decide about hours |

mod grammar;
mod score;
mod vector;

pub use grammar::CvssVersion;
pub use score::{BadScore, Band, Score};
pub use vector::{BadVector, MAX_VECTOR_BYTES, Scored, VectorProblem, score};
