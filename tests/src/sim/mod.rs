//! The load simulator behind `fleet-sim`.
//!
//! | file | what lives there |
//! |---|---|
//! | [`memory`] | what a process holds, from the kernel's own sums |

pub mod memory;
