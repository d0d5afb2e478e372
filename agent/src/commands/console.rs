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
    let console = spoken(args);
    fs::write(&file, format!("{console}\n")).map_err(|error| Failure::of(Exit::Failed, &error))?;
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
    let pending = pending(&args.configured)?;
    let failed = |error: std::io::Error| Failure::of(Exit::Failed, &error);
    pending.say(&spoken(args)).map_err(failed)?;
    match pending.decide(Decision::Confirmed).map_err(failed)? {
        Decision::Confirmed => print("kept: the guard lets the change stay"),
        Decision::Undoing => {
            let message = "the guard has begun to put it back, and goes on; start the run again afterwards";
            return Err(Failure::new(Exit::Failed, message));
        }
    }
    Ok(())
}

/// Has the guard put its change back now.
pub fn undo(args: &Spoken) -> Result<(), Failure> {
    let pending = pending(&args.configured)?;
    let failed = |error: std::io::Error| Failure::of(Exit::Failed, &error);
    if pending.decision().map_err(failed)? == Some(Decision::Confirmed) {
        let message = "it is confirmed already, and stays; a run undoes it, or you do by hand";
        return Err(Failure::new(Exit::Failed, message));
    }
    pending.say(&spoken(args)).map_err(failed)?;
    pending.end_now().map_err(failed)?;
    print("the guard puts the change back now; fleet-agent status says when nothing is pending any more");
    Ok(())
}

/// The change that a guard holds; one at a time.
fn pending(configured: &Configured) -> Result<Pending, Failure> {
    let config = settings::load(configured)?;
    let mut all = Pending::all(&Keeper::folder_in(&config.state_directory)).into_iter();
    all.find(Pending::is_armed)
        .ok_or_else(|| Failure::new(Exit::Failed, "no change waits to be confirmed on this node"))
}

fn hold_file(config: &Config) -> PathBuf {
    let file = &config.policy.hold_file;
    config
        .dev_root
        .as_ref()
        .map_or_else(|| PathBuf::from(file), |root| root.join(file.trim_start_matches('/')))
}

fn spoken(args: &Spoken) -> Console {
    // Who became root, where that is known: `sudo(8)`.
    let who = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    Console {
        by: who.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw())),
        reason: args.reason.clone(),
        at: clock::now(),
    }
}
