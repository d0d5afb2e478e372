//! Cleans up after a `fleetctl dev` that was killed: its processes, its nodes' units, its temporary folder.
//!
//! Called by [`super::run()`] before anything is started. It touches what [`super::ledger`] noted, what names a
//! private root of that fleet, and folders that [`super::place`] calls abandoned; nothing else.

use std::path::Path;

use super::ledger::{ProcessLedger, end_below};
use super::place::{PREFIX, Place};

/// Ends what a fleet in this folder left running; says how many processes that were.
pub fn end_processes(place: &Place, hurry: &dyn Fn() -> bool) -> usize {
    // Agents first, or they would start again what is ended below.
    let noted = ProcessLedger::open(&place.path("processes.json")).end_all(hurry);
    noted + end_below(&place.path("nodes"), hurry)
}

/// Removes abandoned fleets below `parent`; says what was done.
pub fn sweep(parent: &Path, hurry: &dyn Fn() -> bool) -> Vec<String> {
    let mut said = Vec::new();
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Some(place) = Place::abandoned(&entry.path()) else { continue };
        let ended = end_processes(&place, hurry);
        let folder = place.folder().display();
        let removed = match place.remove_if_temporary() {
            Ok(true) => format!("removed {folder}"),
            Ok(false) => format!("kept {folder}"),
            Err(error) => format!("{folder} cannot be removed: {error}"),
        };
        if ended > 0 || place.marker().is_temporary {
            said.push(format!(
                "cleaned up after a fleet that was killed: {ended} processes ended, {removed}"
            ));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::super::process::{Process, wait_for};
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn a_killed_fleet_is_cleaned_up_and_a_running_one_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let running = Place::temporary(parent.path(), 6, false).unwrap();
        let killed = Place::temporary(parent.path(), 6, false).unwrap();
        let folder = killed.folder().to_owned();
        let mut left =
            Process::start(Command::new("/bin/sh").args(["-c", "sleep 600"]), &killed.log("controller"))
                .unwrap();
        ProcessLedger::open(&killed.path("processes.json")).note(left.mark().unwrap()).unwrap();
        drop(killed);
        let said = sweep(parent.path(), &|| false);
        assert!(said.len() == 1 && said[0].contains("1 processes ended, removed"), "{said:?}");
        assert!(wait_for(Duration::from_secs(30), &|| false, || left.ended()).is_some());
        assert!(!folder.exists() && running.folder().exists());
        assert!(sweep(parent.path(), &|| false).is_empty());
    }
}
