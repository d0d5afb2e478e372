//! What a fleet believes in: the bundle of authorities and keys, who signs it, and what a controller's authority says of its
//! dispatch key.
//!
//! `bundle` is what is signed, `signed` decides whether it counts, `dispatch` vouches for a controller's key. The controller
//! stores and hands out bundles; it cannot make one.

mod bundle;
mod dispatch;
mod signed;

pub use bundle::{
    Authority, BUNDLE_SCHEMA, ContentKey, FenceReset, MAX_DELEGATION, MAX_FENCE_RESETS, OperatorKeyAuthority,
    OperatorRole, TrustBundle,
};
pub use dispatch::{DispatchStatement, SignedDispatch, dispatch_signed_bytes};
pub use signed::{Proposal, RootKeys, RootSignature, SignedBundle, TrustError};
