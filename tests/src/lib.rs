//! Sandbox, fakes, end-to-end stories and the load simulator.
