//! The load simulator behind `fleet-sim`.
