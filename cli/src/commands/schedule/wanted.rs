//! What would be signed for the schedules of a file: each with its documents by digest, or why nobody can sign for it.

use fleet_types::document::Id;
use fleet_types::document::procedure::Procedure;
use fleet_types::document::profile::Profile;
use fleet_types::document::rollout_policy::RolloutPolicy;
use fleet_types::document::schedule::{Schedule, ScheduleFile};
use fleet_types::request::MAX_NODES;
use fleet_types::scheduled_work::{self, Called};
use fleet_types::view::{AuthoriseItem, Authorised};
use serde::Serialize;

use crate::args::AuthoriseArgs;
use crate::client::Client;
use crate::commands::run::order::{self, Shown};
use crate::context::Sighting;
use crate::error::{ExitCode, Failure};

/// A schedule that can be signed for.
#[derive(Debug, Serialize)]
pub struct Wanted {
    /// Its id in the file.
    pub schedule: Id,
    /// The procedure's name, number and digest.
    pub procedure: Named,
    /// The profile's.
    pub profile: Named,
    /// The rollout policy's.
    pub policy: Option<Named>,
    /// The words for the nodes.
    pub selector: String,
    /// How many nodes that means now.
    pub nodes: usize,
    /// At most so many at once.
    pub max_parallel: u32,
    /// No new starts after so many failures.
    pub max_failures: Option<u32>,
}

/// A document as it is signed for.
#[derive(Debug, Serialize)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its number under the name.
    pub revision: u32,
    /// Its digest.
    pub digest: fleet_types::digest::Digest,
}

impl Named {
    fn of<D>(name: &fleet_types::id::Name, shown: &Shown<D>) -> Self {
        Self { name: name.to_string(), revision: shown.number(), digest: shown.digest() }
    }
}

/// What a file of schedules wants.
#[derive(Debug, Default)]
pub struct WantedOfFile {
    /// What can be signed for.
    pub wanted: Vec<Wanted>,
    /// What cannot, with why.
    pub left_out: Vec<AuthoriseItem>,
    /// The documents that were shown for it.
    pub shown: Sighting,
}

struct Documents {
    procedure: Shown<Procedure>,
    profile: Shown<Profile>,
    policy: Option<Shown<RolloutPolicy>>,
}

/// Looks up all schedules of a file that are switched on.
pub async fn of_file(
    client: &Client,
    file: &ScheduleFile,
    args: &AuthoriseArgs,
) -> Result<WantedOfFile, Failure> {
    let mut all = WantedOfFile::default();
    all.shown.is_accepted = args.accept_changed;
    for schedule in file.schedules.iter().filter(|schedule| schedule.enabled) {
        let why = match documents(client, schedule).await {
            Ok(documents) => match of_documents(client, schedule, &documents, args).await? {
                Ok(wanted) => {
                    let Documents { procedure, profile, policy } = &documents;
                    all.shown.documents.extend([procedure.sighted(), profile.sighted()]);
                    all.shown.documents.extend(policy.iter().map(Shown::sighted));
                    all.wanted.push(wanted);
                    continue;
                }
                Err(why) => why,
            },
            Err(failure) if failure.exit == ExitCode::NotFound => vec![failure.what.clone()],
            Err(failure) => return Err(failure),
        };
        all.left_out.push(AuthoriseItem {
            schedule: schedule.id.clone(),
            what: Authorised::Refused,
            until: None,
            why,
        });
    }
    Ok(all)
}

async fn documents(client: &Client, schedule: &Schedule) -> Result<Documents, Failure> {
    let procedure = order::procedure(client, &schedule.procedure).await?;
    let profile = order::profile(client, &procedure.document.profile).await?;
    let policy = match &schedule.rollout_policy {
        Some(name) => Some(order::rollout_policy(client, name).await?),
        None => None,
    };
    Ok(Documents { procedure, profile, policy })
}

async fn of_documents(
    client: &Client,
    schedule: &Schedule,
    documents: &Documents,
    args: &AuthoriseArgs,
) -> Result<Result<Wanted, Vec<String>>, Failure> {
    let Documents { procedure, profile, policy } = documents;
    let called = Called {
        procedure: &procedure.document,
        profile: &profile.document,
        policy: policy.as_ref().map(|policy| &policy.document),
    };
    let why = scheduled_work::why_not(schedule, &called);
    let Some(selector) = scheduled_work::selector(schedule, &called).filter(|_| why.is_empty()) else {
        return Ok(Err(why));
    };
    let nodes = client.resolve_targets(selector.clone(), vec![]).await?.nodes.len();
    Ok(Ok(Wanted {
        schedule: schedule.id.clone(),
        procedure: Named::of(&procedure.document.name, procedure),
        profile: Named::of(&profile.document.name, profile),
        policy: policy.as_ref().map(|policy| Named::of(&policy.document.name, policy)),
        selector,
        nodes,
        // What changes nodes has a policy, whose rings say how many go at once; what only reads goes to all.
        max_parallel: args.max_parallel.unwrap_or(u32::try_from(MAX_NODES).unwrap_or(u32::MAX)),
        max_failures: args.max_failures.filter(|limit| *limit > 0),
    }))
}
