//! The agent: core (identity, link, outbox) and the binary.
