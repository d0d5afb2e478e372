//! Stories of a real controller process with scripted partners; each ends with the whole log checked.
//!
//! | file | tells |
//! |---|---|
//! | [`submitting`] | T01: a submit and its retry make one run |
//! | [`offering`] | T02: offers, accepts, a controller killed in between |
//! | [`reporting`] | T05, T06: reports, lost acknowledgements, late ones |
//! | [`limits`] | the cap and the pair rule over six nodes |
//! | [`ending`] | cancel, expiry, failures |
//! | [`links`] | fencing, numbering, reconcile, silence |
//! | [`strangers`] | T31-T33: certificates and identities that open nothing |
//! | [`crowding`] | crowds of connections that keep nobody out |
//! | [`holding`] | how long streams, calls and idle connections are held |
//! | [`joining`] | T34: tokens |
//! | [`outputs`] | whose output of steps is taken |
//! | [`identity`] | old images, copies, forged reports: held until an operator decides |
//! | [`hostile`] | T29, T30, T38: bytes and texts that no honest client sends |
//! | [`forge`] | certificates that nobody would issue, for the stories of strangers |
//! | [`starting`] | starts that must fail, and how |
//! | [`storm`] | T22: random kills under load |

mod crowding;
mod ending;
mod forge;
mod holding;
mod hostile;
mod identity;
mod joining;
mod limits;
mod links;
mod offering;
mod outputs;
mod reporting;
mod starting;
mod storm;
mod strangers;
mod submitting;
