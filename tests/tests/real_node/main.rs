//! Work on real Debian nodes with systemd (tests/lab): installed by hand as an operator would, then used.
//!
//! | module | tells |
//! |---|---|
//! | [`story`] | what all stories begin with |
//! | [`state`] | what of a node is compared before and after |
//! | [`units`] | units, settings, logs |
//! | [`packages`] | updates of one package, broken in two ways, and a power cut |
//! | [`guides`] | the shipped procedures of the maintenance guides, as this build can run them |
//! | [`firewall`] | a node as the firewall of its guide, with a database |
//! | [`zehrasec`] | the `ZehraSec` guide |
//! | [`guard`] | a packet filter that cuts the node off, and then |
//! | [`restart`] | a restart of the machine |
//! | [`installed`] | the packages of a release: installed, upgraded under a job, by a job, removed |

mod firewall;
mod guard;
mod guides;
mod installed;
mod packages;
mod restart;
mod state;
mod story;
mod units;
mod zehrasec;
