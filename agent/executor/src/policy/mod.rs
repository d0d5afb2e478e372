//! Policy: the only way to changing work (security-and-delivery §1.16, §1.17).
//!
//! `gate` decides whether an assignment is this node's to carry out; a run can be made from its [`Admitted`]
//! only. `authority` checks who ordered it, `local` is the node owner's file, `judge` applies it to resolved
//! steps, `owner` reads it again whenever it counts, `packages` holds its
//! rules about them, `tick` what a standing order allows, `trust` keeps root keys and bundle. Evaluated for all steps when
//! a job is accepted, and again before each step that changes the node; the way back of something begun is never
//! refused here.

mod authority;
mod gate;
mod glob;
mod judge;
mod local;
mod owner;
mod packages;
mod refusal;
mod tick;
mod trust;

pub use authority::{
    LinkTrust, Opened, Sealed, check_assignment, check_revisions, open_documents, open_request, procedure_of,
    revisions, work_of,
};
pub use gate::{Admitted, Bound, Candidate, Verdict, admit};
pub use judge::{NodeConditions, judge};
pub use local::{
    DisruptiveLimit, LocalPolicy, LocalWindow, Mode, OverrideWindow, PolicyError, Reboot, RequireSignature,
};
pub use owner::{OwnersPolicy, PolicyReader};
pub use packages::{PackageRules, package_rules};
pub use refusal::Refusal;
pub use tick::{Due, Standing, due_again, file_of, used};
pub use trust::{TrustStore, TrustStoreError, install};
