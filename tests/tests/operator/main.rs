//! What an operator sees when something is not as it should be: certificates, clocks, exit codes, lasting calls.
//!
//! | file | tells |
//! |---|---|
//! | [`clocks`] | a certificate that has ended, a clock that is off on either side |
//! | [`exit_codes`] | 6, 8, 10, 11 and 130 against a real controller |
//! | [`frozen`] | T34 with real nodes: a token that two keys were shown for |
//! | [`rewritten`] | 12: a log that was rewritten, a remembered root that does not fit |
//! | [`shipped`] | the profiles under `deploy/profiles`, applied |
//! | [`live`] | `status --watch` |

mod clocks;
mod exit_codes;
mod frozen;
mod live;
mod rewritten;
mod shipped;
