//! Use cases: validate, write, ring. Each takes a caller that the edge has authorised by the access table
//! and checks the rules about objects itself.
//!
//! | file | what lives there |
//! |---|---|
//! | [`caller`] | who calls, for rules and audit |
//! | [`idempotency`] | the same call twice has the same answer |
//! | [`enrolment`] | join tokens, first certificates of nodes |
//! | [`operators`] | people: invites, first certificates, the list |
//! | [`certificates`] | which of them are good; renewal |
//! | [`limits`] | of what operators send |
//! | [`inventory`] | nodes: connects, and what is known of them |
//! | [`presence`] | which nodes were there: across stops of the controller |
//! | [`node_jobs`] | ends the open jobs of a node that gets no work any more |
//! | [`holds`] | nodes that get no work: held, released, removed |
//! | [`rejoin`] | coming back with a certificate that has ended |
//! | [`revocation`] | nodes and operators who are shut out for good, and the list of certificates |
//! | [`places`] | limits that are new, and the jobs in flight |
//! | [`packages`] | what packages nodes have |
//! | [`advisories`], [`findings`], [`patches`] | what is published; what of it concerns which node; by when |
//! | [`finding_holds`] | what may stay for a while, and who answers for it |
//! | [`patch_plan`] | whether deadlines can be held by a policy |
//! | [`trust`] | the trust bundle, and one that waits for signatures |
//! | [`documents`] | apply, list, show |
//! | [`runs`] | start, cancel |
//! | [`standing_orders`] | what operators sign so that schedules may start work |
//! | [`ticks`] | the run that a tick of a schedule makes |
//! | [`schedules`] | how schedules stand; pausing them, and what was missed |
//! | [`jobs`], [`reports`] | what nodes say of jobs: live states and reconcile; reports at the end |
//! | [`output`] | output of steps: whose is taken, what is read |
//! | [`views`], [`run_views`], [`backups`] | what operators see |
//! | [`hints`] | what may have been meant by a name that nobody has |
//! | [`audit`] | the log's pages, bytes and root |
//! | [`retention`], [`upkeep`] | how long things are kept; what happens by itself |
//! | [`upgrades`] | what stores of earlier releases lack |
//!
//! Services never call the runner and never hold a stream.

pub mod advisories;
pub mod audit;
pub mod backups;
pub mod caller;
pub mod certificates;
pub mod copies;
pub mod documents;
pub mod enrolment;
pub mod finding_holds;
pub mod findings;
pub mod hints;
pub mod holds;
pub mod idempotency;
pub mod inventory;
pub mod jobs;
pub mod limits;
mod matcher;
pub mod node_jobs;
pub mod operators;
pub mod output;
pub mod packages;
pub mod patch_plan;
pub mod patches;
pub mod places;
pub mod presence;
pub mod rejoin;
pub mod reports;
mod response_times;
pub mod retention;
pub mod revocation;
pub mod rollouts;
pub mod run_views;
pub mod runs;
pub mod schedules;
mod signatures;
pub mod standing_orders;
pub mod ticks;
pub mod trust;
pub mod upgrades;
pub mod upkeep;
pub mod views;
