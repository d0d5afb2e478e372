//! What a scripted agent does: honest and quick by default; each field is one way of being otherwise.

use std::time::Duration;

use fleet_types::job::Outcome;

/// How long a job takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// It ends at once.
    AtOnce,
    /// It ends after this.
    For(Duration),
    /// It ends when the story says so.
    Hold,
}

/// One agent's script. Stories change it while the agent runs.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a knob of its own; any combination makes sense")]
pub struct Script {
    /// How long jobs take.
    pub work: Work,
    /// How jobs end.
    pub outcome: Outcome,
    /// Answer assignments? One that does not is online and silent.
    pub answers: bool,
    /// Do what a cancel asks for?
    pub obeys_cancel: bool,
    /// Send reports of ended jobs? They stay in the journal until this is true.
    pub sends_reports: bool,
    /// Times that each report is sent at once.
    pub report_copies: u32,
    /// Acknowledgements that get lost on their way.
    pub acks_to_drop: u32,
    /// Break the link once, after so many messages of the controller.
    pub disconnect_after: Option<u32>,
    /// Connect, and again after a loss?
    pub connects: bool,
    /// Send heartbeats?
    pub heartbeats: bool,
    /// Fetch and check the signed request before accepting, as agents do?
    pub fetches: bool,
    /// An unacknowledged report is sent again after this.
    pub resend: Duration,
    /// Pause between two tries to connect.
    pub pause: Duration,
    /// Actions that hello names.
    pub actions: Vec<String>,
    /// Which start of the agent hello names.
    pub start_id: String,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            work: Work::AtOnce,
            outcome: Outcome::Succeeded,
            answers: true,
            obeys_cancel: true,
            sends_reports: true,
            report_copies: 1,
            acks_to_drop: 0,
            disconnect_after: None,
            connects: true,
            heartbeats: true,
            fetches: true,
            resend: Duration::from_millis(300),
            pause: Duration::from_millis(100),
            actions: vec!["metrics.collect".to_owned(), "metrics.prune".to_owned()],
            start_id: String::new(),
        }
    }
}
