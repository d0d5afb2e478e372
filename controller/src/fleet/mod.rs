//! Connected agents and what is known of nodes in memory.
//!
//! | file | what lives there |
//! |---|---|
//! | [`node_cache`] | every node by id and name, presence, health, and the counts a site |
//! | [`sessions`] | live sessions: link epochs, bounded outboxes, live job states |
//! | [`findings`] | the advisories that are known, and which concern which node |
//! | [`instances`] | which starts of an agent have connected |
//! | [`adopted`] | jobs of a lost store that the audit log was told of |
//! | [`open_runs`] | the engines of the open runs |
//! | [`package_lists`] | which node has which list of packages |
//! | [`report_heads`] | the newest report of each node |
//! | [`waiting_ticks`] | what the scheduler waits for |
//! | [`wave_signer`] | signs waves of assignments with the dispatch key |
//!
//! Nothing here is durable and nothing here is decided: the store and the runner do that.

pub mod adopted;
pub mod findings;
pub mod instances;
pub mod node_cache;
pub mod open_runs;
pub mod package_lists;
pub mod report_heads;
pub mod sessions;
pub mod waiting_ticks;
pub mod wave_signer;
