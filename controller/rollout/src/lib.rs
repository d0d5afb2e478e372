//! The rollout engine: pure decisions, no I/O, no clock, no logging.
