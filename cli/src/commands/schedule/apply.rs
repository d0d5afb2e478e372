//! `fleetctl schedule apply`: stores a file as `config apply` does, and signs what its schedules may start.

use fleet_types::document::Document;
use fleet_types::document::schedule::ScheduleFile;
use fleet_types::seal::Envelope;
use fleet_types::standing_order::{STANDING_ORDER_SCHEMA, StandingOrder};
use fleet_types::time::Timestamp;
use fleet_types::view::{AuthoriseItem, AuthoriseView, Authorised};
use serde::Serialize;

use super::wanted::{self, Wanted, WantedOfFile};
use crate::args::AuthoriseArgs;
use crate::commands::config::{self, Ready};
use crate::confirm::{Danger, confirm};
use crate::context::{Revision, Seen};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Cell, Column, Table, Tone, units};
use crate::session::Session;

/// From when and until when the schedules may start work.
type Holds = (Timestamp, Timestamp);

/// Shows what changes and what would be signed for, asks, stores, signs and sends.
pub async fn run(session: &mut Session<'_>, args: &AuthoriseArgs) -> Result<ExitCode, Failure> {
    let ready = Ready::of(session, std::slice::from_ref(&args.file)).await?;
    let file = only_schedules(&ready)?;
    let all = wanted::of_file(&ready.client, &file, args).await?;
    let seen = session.context()?.seen_file();
    Seen::load(&seen)?.check(&all.shown)?;
    let now = (session.environment.now)();
    let holds = (now, now.plus(args.length.length()));
    let preview = preview(session, &ready, &all, holds).await?;
    if session.settings.dry_run {
        session.print(&preview)?;
        return Ok(exit_code(&all.left_out));
    }
    ready.check_reason()?;
    confirm(session, &Danger::Moderate, &in_words(&ready, &all.wanted, holds, session), &preview).await?;
    let stored = ready.store(session).await?;
    let revision = stored_revision(&ready, &stored.items)?;
    match Seen::check_and_keep(&seen, &all.shown) {
        Err(failure) if failure.exit == ExitCode::Verification => return Err(failure),
        // A full disk, or a folder that may only be read, is told and stops nobody.
        Err(failure) => session
            .say(format!("warning: what is signed is not remembered on this machine: {}", failure.what)),
        Ok(()) => {}
    }
    let orders = signed(session, &ready, &all.wanted, revision, holds)?;
    let mut view = ready.client.authorise_schedules(&file.name, &orders).await?;
    view.items.extend(all.left_out);
    session.print(&answer(session, &view))?;
    Ok(exit_code(&view.items))
}

/// The one document of the file.
fn only_schedules(ready: &Ready) -> Result<ScheduleFile, Failure> {
    match &ready.set.documents[..] {
        [one] => match &one.document {
            Document::Schedule(file) => Ok((**file).clone()),
            other => Err(Failure::usage(format!("{} is a {}", one.file, other.kind()))
                .fix("name a file of kind \"schedule\"; others are applied with fleetctl config apply")),
        },
        _ => Err(Failure::usage("one file of schedules is signed for at a time")),
    }
}

fn stored_revision(ready: &Ready, items: &[fleet_types::view::ApplyItem]) -> Result<Revision, Failure> {
    let digest = ready.documents.first().map(|document| document.envelope.digest());
    let stored = items.iter().find(|item| Some(item.digest) == digest);
    stored.map(|item| Revision { revision: item.revision, digest: item.digest }).ok_or_else(|| {
        let what = "what the controller says it stored is not this file; nothing was signed for";
        Failure::new(ExitCode::Verification, "digest-mismatch", what)
            .fix("compare `fleetctl version` with the controller's")
    })
}

fn signed(
    session: &Session<'_>,
    ready: &Ready,
    wanted: &[Wanted],
    file: Revision,
    (not_before, not_after): Holds,
) -> Result<Vec<Envelope>, Failure> {
    let fleet = session.context()?.fleet;
    let order = |one: &Wanted| StandingOrder {
        schema: STANDING_ORDER_SCHEMA.to_owned(),
        fleet,
        file: file.digest,
        file_revision: file.revision,
        schedule: one.schedule.clone(),
        procedure: one.procedure.digest,
        procedure_revision: one.procedure.revision,
        profile: one.profile.digest,
        profile_revision: one.profile.revision,
        rollout_policy: one.policy.as_ref().map(|policy| policy.digest),
        selector: one.selector.clone(),
        max_parallel: one.max_parallel,
        max_failures: one.max_failures,
        not_before,
        not_after,
    };
    wanted.iter().map(|one| ready.signer.standing_order(&order(one))).collect()
}

fn exit_code(items: &[AuthoriseItem]) -> ExitCode {
    let is_refused = items.iter().any(|item| item.what == Authorised::Refused);
    if is_refused { ExitCode::Partly } else { ExitCode::Done }
}

fn in_words(ready: &Ready, wanted: &[Wanted], (_, until): Holds, session: &Session<'_>) -> String {
    let schedules = units::count(wanted.len(), "schedule");
    let sign = format!("let {schedules} start work until {}", session.times().show(until));
    if ready.changed() == 0 { sign } else { format!("apply the changed file and {sign}") }
}

/// What would change and what would be signed for, for `--dry-run`.
#[derive(Serialize)]
struct Preview<'a> {
    until: Timestamp,
    wanted: &'a [Wanted],
    left_out: &'a [AuthoriseItem],
}

async fn preview(
    session: &Session<'_>,
    ready: &Ready,
    all: &WantedOfFile,
    (_, until): Holds,
) -> Result<Answer, Failure> {
    let mut table = Table::new(&[
        Column::whole("SCHEDULE"),
        Column::whole("PROCEDURE"),
        Column::number("NODES NOW"),
        Column::whole("POLICY"),
        Column::text("UNTIL"),
        Column::whole("SELECTOR").wide(),
    ]);
    let until_shown = session.times().show(until);
    for one in &all.wanted {
        let nodes = one.nodes.to_string();
        table.row([
            one.schedule.as_str().into(),
            format!("{} r{}", one.procedure.name, one.procedure.revision).into(),
            // Words count: what gets the labels later is meant from then on.
            if one.nodes == 0 { Cell::toned(Tone::Warn, nodes) } else { nodes.into() },
            one.policy.as_ref().map_or_else(|| "-".into(), |policy| policy.name.as_str().into()),
            until_shown.as_str().into(),
            one.selector.as_str().into(),
        ]);
    }
    for item in &all.left_out {
        table.row([
            item.schedule.as_str().into(),
            "-".into(),
            "-".into(),
            "-".into(),
            Cell::toned(Tone::Bad, format!("left out: {}", item.why.join("; "))),
            "".into(),
        ]);
    }
    let (diff, _) = config::of_documents(&ready.client, &ready.set).await?;
    let preview = Preview { until, wanted: &all.wanted, left_out: &all.left_out };
    let names = all.wanted.iter().map(|one| one.schedule.to_string()).collect();
    let value = Answer::local("fleet/v1/schedule-preview", &preview).value;
    Ok(Answer { value, names, ..diff.table(table, "no schedule of this file is enabled") })
}

fn answer(session: &Session<'_>, view: &AuthoriseView) -> Answer {
    let mut table = Table::new(&[
        Column::whole("SCHEDULE"),
        Column::whole("WHAT"),
        Column::whole("UNTIL"),
        Column::text("WHY"),
    ]);
    for item in &view.items {
        let tone = match item.what {
            Authorised::Authorised => Tone::Good,
            Authorised::Unchanged | Authorised::Withdrawn => Tone::Dim,
            Authorised::Refused => Tone::Bad,
        };
        let until = item.until.map_or_else(|| "-".to_owned(), |until| session.times().show(until));
        table.row([
            format!("{}/{}", view.file, item.schedule).into(),
            Cell::toned(tone, item.what.as_str()),
            until.into(),
            item.why.join("; ").into(),
        ]);
    }
    let names = view.items.iter().map(|item| format!("{}/{}", view.file, item.schedule));
    Answer::of(view).names(names).table(table, "no schedule of this file starts work")
}
