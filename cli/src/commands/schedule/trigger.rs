//! `fleetctl schedule trigger`: an ordinary signed run, now, of what a schedule would start at its time.

use fleet_types::label::Selector;
use fleet_types::request::Verb;
use fleet_types::scheduled_work::{self, Called};
use fleet_types::standing_order;

use crate::args::TriggerArgs;
use crate::commands::run::order::{self, Work};
use crate::commands::run::start;
use crate::error::{ExitCode, Failure};
use crate::session::Session;
use crate::settings::TargetFlags;
use crate::targets;

/// Looks the schedule up in the newest revision of its file, then goes on as `run start` does.
pub async fn run(session: &mut Session<'_>, args: &TriggerArgs) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    let name = &args.schedule;
    let file = order::schedule_file(&client, &name.file).await?.document;
    let Some(schedule) = file.schedules.iter().find(|schedule| schedule.id == name.id) else {
        let known: Vec<&str> = file.schedules.iter().map(|schedule| schedule.id.as_str()).collect();
        let what = format!("file \"{}\" has no schedule \"{}\"", name.file, name.id);
        return Err(Failure::new(ExitCode::NotFound, "not-found", what)
            .fix(format!("schedules of this file: {}", known.join(", "))));
    };
    let procedure = order::procedure(&client, &schedule.procedure).await?;
    let profile = order::profile(&client, &procedure.document.profile).await?;
    let policy = match schedule.rollout_policy.as_ref().filter(|_| procedure.document.changes) {
        Some(policy) => Some(order::rollout_policy(&client, policy).await?),
        None => None,
    };
    let called = Called { procedure: &procedure.document, profile: &profile.document, policy: None };
    let selector = scheduled_work::selector(schedule, &called).ok_or_else(|| {
        let what = format!("nothing says which nodes schedule \"{}\" is for", schedule.id);
        Failure::new(ExitCode::Usage, "no-target", what)
            .fix("write a selector at the schedule, its procedure or the profile")
    })?;
    let selector: Selector = selector.parse().map_err(|error: fleet_types::label::LabelError| {
        Failure::usage("the selector cannot be read").because(&error)
    })?;
    let flags = TargetFlags { selectors: vec![selector], ..TargetFlags::default() };
    let chosen = targets::resolve(&client, &flags, "schedule trigger").await?;
    let work = (Work::Applied(Box::new(procedure)), &profile);
    let params = standing_order::params(schedule);
    let prepared = order::prepared(session, chosen, work, params, &args.how, Verb::Run)?;
    let prepared = match &policy {
        Some(policy) => prepared.by_policy(session, policy, &args.how)?,
        None => prepared,
    };
    start::go(session, &client, prepared).await
}
