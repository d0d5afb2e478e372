//! Packages of a fleet while it is brought up: its archive is made beside everything else, each new node gets its database.
//!
//! A machine without Debian's programs has a fleet without packages, and it is told so; a program that is there and fails
//! ends the start like anything else that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::node_spec::NodeSpec;
use super::packages::archive::Archive;
use super::packages::product::releases;
use super::packages::programs::{Caller, PackagingError, missing};
use super::stage::Stage;
use crate::error::{ExitCode, Failure};

/// The folder of the archive in the fleet's.
const FOLDER: &str = "packages";
/// Three small packages take a second; each program has a limit of its own.
const LIMIT: Duration = Duration::from_mins(5);

/// An archive that a thread is making. Letting go of it ends the thread.
#[derive(Debug)]
pub struct Making {
    given_up: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Archive, PackagingError>>>,
}

impl Drop for Making {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its end is as good as its failure: nobody wants the archive.
            let _ = thread.join();
        }
    }
}

impl Stage<'_, '_> {
    /// Begins to make the archive of a new fleet; none where packages cannot be handled, which is told.
    pub fn begin_packages(&mut self) -> Result<Option<Making>, Failure> {
        if !self.can_handle_packages() {
            return Ok(None);
        }
        self.place.make(FOLDER)?;
        let folder = self.place.path(FOLDER);
        let caller = Caller::new(&folder.join("log"));
        let given_up = Arc::clone(&caller.given_up);
        let now = (self.session.environment.now)();
        let thread = std::thread::spawn(move || Archive::make(&folder, &releases(), now, &caller));
        Ok(Some(Making { given_up, thread: Some(thread) }))
    }

    /// The archive, once it is made.
    pub async fn packages_made(&mut self, mut making: Making) -> Result<Archive, Failure> {
        let log = self.place.path(FOLDER).join("log");
        let made = self
            .until("the archive of packages", LIMIT, |_| {
                let thread = making.thread.take_if(|thread| thread.is_finished())?;
                Some(thread.join().map_err(|_| {
                    Failure::new(ExitCode::Unexpected, "dev-step", "making the archive of packages panicked")
                }))
            })
            .await?;
        let archive = made.map_err(|error| {
            Failure::unexpected("the archive of packages cannot be made", &error)
                .fix(format!("all that the programs said, with --keep or --dir: {}", log.display()))
        })?;
        self.tell("packages", "made zehrasec 1.0, 1.1 and 1.2, signed; nodes begin with 1.0");
        Ok(archive)
    }

    /// The archive of a fleet that was made before; none where it has none, which is told.
    pub fn packages_of_before(&mut self, nodes: &[NodeSpec]) -> Result<Option<Archive>, Failure> {
        if !self.can_handle_packages() {
            return Ok(None);
        }
        let Some(archive) = Archive::open(&self.place.path(FOLDER)) else {
            self.tell("packages", "not handled: this fleet was made without them");
            return Ok(None);
        };
        for node in nodes {
            archive
                .point_to(&self.place.node(&node.name).join("root"))
                .map_err(|error| Failure::unexpected("a node cannot be told of its packages", &error))?;
        }
        Ok(Some(archive))
    }

    fn can_handle_packages(&mut self) -> bool {
        let missing = missing();
        if !missing.is_empty() {
            let names = missing.join(", ");
            self.tell(
                "packages",
                format!("not handled here: this machine has no {names} (Debian and Ubuntu have)"),
            );
            return false;
        }
        if !Archive::can_be_in(self.place.folder()) {
            self.tell("packages", "not handled here: apt cannot work in a folder with this name");
            return false;
        }
        true
    }
}
