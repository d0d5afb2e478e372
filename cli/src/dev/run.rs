//! The command: what happens in which order, and the orderly end of it all.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fleet_types::id::Name;

use super::context_link::ContextLink;
use super::crew::Crew;
use super::daily::PROCEDURE;
use super::inner::{CONTEXT, Inner};
use super::leftover;
use super::node_spec::{NodeSpec, nodes};
use super::packages::archive::Archive;
use super::place::Place;
use super::programs::Programs;
use super::stage::{Signals, Stage, say};
use crate::args::DevArgs;
use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// How often processes are looked at while the fleet is up: a fifth of the pause before a restart.
const WATCH_EVERY: Duration = Duration::from_millis(200);

/// Starts a whole fleet, runs the daily checks on it, and stays up until Ctrl-C. It listens for signals
/// itself, because ending in order takes longer than dropping a future.
pub async fn run(session: &mut Session<'_>, args: &DevArgs) -> Result<ExitCode, Failure> {
    let since = Instant::now();
    say(session, since, "dev", "a whole fleet on this machine. NOT for production.");
    let programs = Programs::beside_own()?;
    let signals = Signals::listen()?;
    let temporary = PathBuf::from(session.environment.get("TMPDIR").unwrap_or("/tmp"));
    for line in leftover::sweep(&temporary, &|| false) {
        say(session, since, "clean-up", &line);
    }
    let place = match &args.dir {
        Some(folder) => Place::named(folder, args.nodes)?,
        None => Place::temporary(&temporary, args.nodes, args.keep)?,
    };
    let fate = if place.marker().is_temporary { "removed at the end; --keep keeps it" } else { "kept" };
    say(session, since, "folder", &format!("{} ({fate})", place.folder().display()));
    let ended = leftover::end_processes(&place, &|| false);
    if ended > 0 {
        say(session, since, "clean-up", &format!("ended {ended} processes that an earlier start had left"));
    }
    let crew = Crew::new(programs, place.folder());
    let inner = Inner::new(session, &place.path("operator"));
    let mut stage = Stage { session, place, crew, inner, signals, since, filters: Vec::new(), is_up: false };
    let outcome = play(&mut stage, args).await;
    if let Err(failure) = &outcome {
        // Said before the end takes its seconds; the whole of it is shown after.
        stage.tell("failed", &failure.what);
    }
    stop(stage).await;
    outcome
}

/// Everything between having a folder and ending.
async fn play(stage: &mut Stage<'_, '_>, args: &DevArgs) -> Result<ExitCode, Failure> {
    let specs = nodes(stage.place.marker().nodes);
    let operator = operator_name(stage.session);
    let packages = bring_up(stage, &specs, &operator).await?;
    stage.apply_documents().await?;
    stage.place.mark_complete()?;
    stage.is_up = true;
    stage.start_services().await?;
    let code = stage.run_on_all(PROCEDURE, "shown by fleetctl dev").await?;
    let updated = if packages.is_some() { stage.show_updates(&specs).await? } else { 0 };
    let cut_off = stage.show_cut_off(&specs).await?;
    let shown = [stage.show("status", &["status"]).await?, stage.show("audit", &["audit", "verify"]).await?];
    // The runs' own codes first: they are what `--once` is for.
    let code = [code, updated, cut_off, shown[0], shown[1]].into_iter().find(|code| *code != 0).unwrap_or(0);
    let exit = ExitCode::ALL.into_iter().find(|exit| exit.number() == code).unwrap_or(ExitCode::Unexpected);
    let link = if args.once { None } else { link(stage) };
    stage.tell_what_is_simulated(packages.is_some());
    let took = stage.since.elapsed().as_secs_f64();
    if args.once {
        stage.tell("done", format!("in {took:.1} s, exit code {}", exit.number()));
        return Ok(exit);
    }
    let run = stage.newest_run().await?;
    stage.tell_what_to_try(link.as_ref().map(ContextLink::name), &specs, run);
    stage.tell("ready", format!("in {took:.1} s; Ctrl-C stops everything, again to force"));
    stay(stage).await;
    Ok(ExitCode::Done)
}

/// Gives the archive of packages, where nodes have some.
async fn bring_up(
    stage: &mut Stage<'_, '_>,
    specs: &[NodeSpec],
    operator: &str,
) -> Result<Option<Archive>, Failure> {
    let folder = stage.place.folder().to_owned();
    let packages;
    if stage.place.marker().is_complete {
        packages = stage.packages_of_before(specs)?;
        let at = stage.start_controller().await?;
        stage.correct_context(&at)?;
        for node in specs {
            let at = stage.dialled_by(node, specs, &at).await?;
            stage.configure(node, &at)?;
            stage.start_agent(node)?;
        }
    } else {
        refuse_half_made(&folder)?;
        // Beside the rest: it takes longer than anything else.
        let making = stage.begin_packages()?;
        let invite = stage.make_fleet(operator).await?;
        let at = stage.start_controller().await?;
        stage.sign_in(&invite, &at).await?;
        packages = match making {
            Some(making) => Some(stage.packages_made(making).await?),
            None => None,
        };
        for node in specs {
            let at = stage.dialled_by(node, specs, &at).await?;
            stage.join(node, packages.as_ref(), &at).await?;
            stage.start_agent(node)?;
        }
    }
    stage.all_online(specs).await?;
    stage.tell("nodes", format!("{} of {} are online", specs.len(), specs.len()));
    Ok(packages)
}

fn refuse_half_made(folder: &Path) -> Result<(), Failure> {
    if folder.join("controller").exists() {
        let what = format!("the fleet in {} was not finished when it was made", folder.display());
        return Err(Failure::new(ExitCode::Conflict, "dev-folder", what)
            .fix(format!("remove it and begin anew: rm -r {}", folder.display())));
    }
    Ok(())
}

/// This user's name where it can be an operator's.
fn operator_name(session: &Session<'_>) -> String {
    let names = ["USER", "LOGNAME"].iter().filter_map(|name| session.environment.get(name));
    names.into_iter().find(|name| name.parse::<Name>().is_ok()).unwrap_or("operator").to_owned()
}

/// Makes the context known to this user. That it cannot be done is told and no reason to end.
fn link(stage: &mut Stage<'_, '_>) -> Option<ContextLink> {
    let add = || -> Result<Option<ContextLink>, Failure> {
        let name: Name =
            CONTEXT.parse().map_err(|error| Failure::unexpected("the context has a bad name", &error))?;
        let own = stage.own_contexts()?.choose(Some(&name))?;
        ContextLink::add(stage.session.contexts()?, &own.entry, &own.folder)
    };
    match add() {
        Ok(link) => link,
        Err(failure) => {
            stage.tell("context", format!("not added to your config.toml: {}", failure.what));
            None
        }
    }
}

/// Until somebody wants it to end.
async fn stay(stage: &mut Stage<'_, '_>) {
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // The fleet is up: a process that ended is told and started again, never a failure.
            _ = ticks.tick() => drop(stage.watch()),
            () = stage.signals.next() => return,
        }
    }
}

/// Ends everything in order; a second signal makes it quick.
async fn stop(stage: Stage<'_, '_>) {
    let Stage { session, place, mut crew, mut signals, since, .. } = stage;
    say(session, since, "stop", "agents, units, controller; Ctrl-C again to force");
    let hurry = crew.hurry();
    let (done, mut ended) = tokio::sync::oneshot::channel();
    // A thread of its own, because waiting for processes blocks, and signals are still to be heard.
    let ending = std::thread::spawn(move || {
        let said = crew.stop();
        let _ = done.send(said);
    });
    let said = loop {
        tokio::select! {
            said = &mut ended => break said.unwrap_or_default(),
            () = signals.next() => hurry.up(),
        }
    };
    // It has ended, or panicked; either way the crew has been let go of.
    let _ = ending.join();
    for line in said {
        say(session, since, "stop", &line);
    }
    let line = match place.remove_if_temporary() {
        Ok(true) => format!("everything is stopped, {} is removed", place.folder().display()),
        Ok(false) => format!("everything is stopped; again: fleetctl dev --dir {}", place.folder().display()),
        Err(error) => {
            format!("everything is stopped; {} cannot be removed: {error}", place.folder().display())
        }
    };
    say(session, since, "stop", &line);
}
