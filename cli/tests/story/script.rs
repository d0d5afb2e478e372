//! The script of the controller that is played: what it has, and how it behaves.

use std::collections::{BTreeMap, VecDeque};

use fleet_types::digest::Digest;
use fleet_types::document::procedure::Procedure;
use fleet_types::report::StepReport;
use fleet_types::request::Request as RunRequest;
use fleet_types::run::RunState;
use fleet_types::seal::{Envelope, PublicKey};
use fleet_types::standing_order::StandingOrder;
use fleet_types::trust::{SignedBundle, TrustBundle};
use fleet_types::view;

use crate::certifying::Renewal;
use crate::fixtures;

/// What a watch of a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Breaks before it has said anything.
    Breaks,
    /// Stays silent for ever.
    Hangs,
}

/// The script.
pub struct State {
    pub bundle: TrustBundle,
    pub signed: SignedBundle,
    /// The next one, as long as it lacks signatures.
    pub proposal: Option<SignedBundle>,
    /// Who belongs to the fleet.
    pub people: Vec<view::OperatorItem>,
    pub content_key: Option<PublicKey>,
    pub documents: BTreeMap<(String, String), (Envelope, Vec<u8>, u32)>,
    /// The nodes have each other's ids.
    pub swapped: bool,
    /// Enrolled nodes of the fleet, as it says.
    pub enrolled: u32,
    pub started: Vec<RunRequest>,
    /// What schedules may start.
    pub authorised: Vec<StandingOrder>,
    /// Procedures that came with a request.
    pub made: Vec<Procedure>,
    /// How runs end.
    pub end: RunState,
    /// What watches do before they work.
    pub watches: VecDeque<Watch>,
    /// Stored audit records.
    pub audit: Vec<Vec<u8>>,
    /// Archives that reports have named.
    pub backups: Vec<view::BackupItem>,
    /// Their encrypted copies, by digest of the archive.
    pub copies: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Output of a job: step, bytes.
    pub output: Vec<(String, Vec<u8>)>,
    /// Streams of output end with an error after so many parts.
    pub output_breaks_after: Option<usize>,
    /// Alters what the node's report says of its steps.
    pub edit_report: fn(&mut Vec<StepReport>),
    pub cancelled: Vec<String>,
    pub keys: Vec<String>,
    /// What was ordered about nodes, with its reason.
    pub orders: Vec<String>,
    /// How renewals go.
    pub renewal: Renewal,
    /// Digests of the keys that a certificate was asked for.
    pub asked_for: Vec<Digest>,
}

impl State {
    pub fn new(bundle: TrustBundle, signed: SignedBundle) -> Self {
        Self {
            bundle,
            signed,
            proposal: None,
            people: Vec::new(),
            content_key: None,
            documents: BTreeMap::new(),
            swapped: false,
            enrolled: u32::try_from(fixtures::nodes().len()).unwrap(),
            started: Vec::new(),
            authorised: Vec::new(),
            made: Vec::new(),
            end: RunState::Succeeded,
            watches: VecDeque::new(),
            audit: Vec::new(),
            backups: fixtures::backups(),
            copies: BTreeMap::new(),
            output: Vec::new(),
            output_breaks_after: None,
            edit_report: |_| {},
            cancelled: Vec::new(),
            keys: Vec::new(),
            orders: Vec::new(),
            renewal: Renewal::NotBuilt,
            asked_for: Vec::new(),
        }
    }
}
