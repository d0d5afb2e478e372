//! The executor: policy, journal, runs, tasks, host; no network.
