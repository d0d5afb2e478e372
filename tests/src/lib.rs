//! Sandbox, fakes and stories: the real programs as processes, scripted partners at the protocol.
//!
//! | module | holds |
//! |---|---|
//! | [`wait`], [`clock`] | waiting with a reason and a limit; the wall clock |
//! | [`programs`], [`own_process`], [`controller_process`] | the programs under test; one of them, a controller: killed and started again |
//! | [`channel`], [`raw_call`] | TLS connections of fakes; calls with bytes that no honest client sends |
//! | [`operator_client`], [`orders`] | an operator as fleetctl is one; documents and signed requests |
//! | [`fake_agent`] | a scripted agent that speaks the real protocol |
//! | [`test_fleet`] | controller, operator and agents together, and how stories begin and end |
//! | [`audit_check`] | the whole log and all reports compared, at the end of every story |
//! | [`sandbox`] | a fleet of real programs only: controller, agents, fleetctl; killed and started again |
//! | [`lab`] | real Debian nodes with systemd |
//! | [`small_disk`] | a disk that a story fills |
//! | [`sim`] | the load simulator behind `fleet-sim` |
//!
//! Stories stand in `tests/`. Nothing here is linked into a product program.

pub mod audit_check;
pub mod channel;
pub mod clock;
pub mod controller_process;
pub mod fake_agent;
pub mod lab;
pub mod operator_client;
pub mod orders;
pub mod own_process;
pub mod programs;
pub mod raw_call;
pub mod sandbox;
pub mod sim;
pub mod small_disk;
pub mod test_fleet;
pub mod wait;
