//! What a person does at the node's own console, with no controller (O04): hold and release the node, keep or undo the
//! change that a guard holds. They are root there already; what they say is kept and reaches the record with the job.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use fleet_executor::guard::{Console, Decision, Keeper, Pending};

use super::settings::{self, print};
use crate::args::{Configured, Spoken};
use crate::clock;
use crate::config::Config;
use crate::error::{Exit, Failure};

/// Starts no changes any more until it is released; what has begun goes to its end.
pub fn hold(args: &Spoken) -> Result<(), Failure> {
    let config = settings::load(&args.configured)?;
    let file = hold_file(&config);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(|error| Failure::of(Exit::Failed, &error))?;
    }
    let line = format!("held by {}, {}: {}\n", who(), clock::now(), args.reason);
    fs::write(&file, line).map_err(|error| Failure::of(Exit::Failed, &error))?;
    print(format_args!(
        "held: no change starts while {} exists; fleet-agent release ends it",
        file.display()
    ));
    Ok(())
}

/// Ends a hold.
pub fn release(configured: &Configured) -> Result<(), Failure> {
    let config = settings::load(configured)?;
    let file = hold_file(&config);
    match fs::remove_file(&file) {
        Ok(()) => print("released: changes may start again"),
        Err(error) if error.kind() == ErrorKind::NotFound => print("it was not held"),
        Err(error) => return Err(Failure::of(Exit::Failed, &error)),
    }
    Ok(())
}

/// Confirms the change that the guard holds, in the controller's place.
pub fn keep(args: &Spoken) -> Result<(), Failure> {
    let pending = undecided(&args.configured)?;
    let failed = |error: std::io::Error| Failure::of(Exit::Failed, &error);
    pending.say(&spoken(args, Decision::Confirmed)).map_err(failed)?;
    match pending.decide(Decision::Confirmed).map_err(failed)? {
        Decision::Confirmed => print("kept: the guard lets the change stay"),
        Decision::Undoing => return Err(too_late(Decision::Undoing)),
    }
    Ok(())
}

/// Has the guard put its change back as soon as nobody is making it any more.
pub fn undo(args: &Spoken) -> Result<(), Failure> {
    let pending = undecided(&args.configured)?;
    pending.say(&spoken(args, Decision::Undoing)).map_err(|error| Failure::of(Exit::Failed, &error))?;
    print("the guard puts the change back; fleet-agent status says when nothing is pending any more");
    Ok(())
}

/// The change that a guard holds, one at a time, while it may still become one or the other.
fn undecided(configured: &Configured) -> Result<Pending, Failure> {
    let config = settings::load(configured)?;
    let mut all = Pending::all(&Keeper::folder_in(&config.state_directory)).into_iter();
    let pending = all
        .find(Pending::is_armed)
        .ok_or_else(|| Failure::new(Exit::Failed, "no change waits to be confirmed on this node"))?;
    match pending.decision().map_err(|error| Failure::of(Exit::Failed, &error))? {
        None => Ok(pending),
        Some(decision) => Err(too_late(decision)),
    }
}

fn too_late(decision: Decision) -> Failure {
    Failure::new(
        Exit::Failed,
        match decision {
            Decision::Confirmed => "it is confirmed already, and stays; a run undoes it, or you do by hand",
            Decision::Undoing => {
                "the guard has begun to put it back, and goes on; start the run again afterwards"
            }
        },
    )
}

fn hold_file(config: &Config) -> PathBuf {
    let file = &config.policy.hold_file;
    config
        .dev_root
        .as_ref()
        .map_or_else(|| PathBuf::from(file), |root| root.join(file.trim_start_matches('/')))
}

fn spoken(args: &Spoken, wants: Decision) -> Console {
    Console { wants, by: who(), reason: args.reason.clone(), at: clock::now() }
}

/// Who became root, where that is known: `sudo(8)`.
fn who() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    name.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}
