//! An error of sled ends the store for good.
//!
//! After an I/O error sled's handle cannot be trusted any more (security-and-delivery §4.3): every later call is
//! refused, and the process is told to exit so that a fresh one opens the store again. It must never be cleared.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use crate::error::StoreError;

/// Whether the store has failed, and why. Shared by readers, writer and the waiting controller.
pub(crate) struct Failure {
    path: PathBuf,
    reason: watch::Sender<Option<String>>,
}

impl Failure {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), reason: watch::Sender::new(None) }
    }

    /// Sets the failure; the first reason stays.
    pub(crate) fn set(&self, reason: &str) {
        let is_first = self.reason.send_if_modified(|current| {
            let is_first = current.is_none();
            if is_first {
                *current = Some(reason.to_owned());
            }
            is_first
        });
        if is_first {
            tracing::error!(path = %self.path.display(), reason, "the store has failed and must be opened again");
        }
    }

    /// Refuses when the store has failed.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.reason.borrow().as_deref().map_or(Ok(()), |reason| Err(self.error(reason)))
    }

    /// Whether the store has failed.
    pub(crate) fn is_set(&self) -> bool {
        self.reason.borrow().is_some()
    }

    /// Waits for the failure.
    pub(crate) async fn wait(&self) -> StoreError {
        let mut receiver = self.reason.subscribe();
        loop {
            if let Err(error) = self.check() {
                return error;
            }
            if receiver.changed().await.is_err() {
                // Cannot happen while self holds the sender.
                return self.error("nobody can tell any more whether it works");
            }
        }
    }

    /// Runs a piece of sled work. Its errors and its panics are failures of the store.
    pub(crate) fn guard<T>(&self, work: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
        self.check()?;
        let error = match run_caught(&self.path, work) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        self.set(&error.to_string());
        Err(match error {
            damage @ StoreError::Corrupt { .. } => damage,
            other => self.error(&other.to_string()),
        })
    }

    fn error(&self, reason: &str) -> StoreError {
        StoreError::Unavailable {
            reason: format!(
                "{} has failed and must be opened by a new process: {reason}",
                self.path.display()
            ),
        }
    }
}

/// Runs sled work and names its errors; a panic of sled is damage it did not expect.
pub(crate) fn run_caught<T>(path: &Path, work: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(name_error(path, &error)),
        Err(panic) => Err(StoreError::Corrupt {
            what: format!("{} cannot be read ({})", path.display(), panic_text(panic.as_ref())),
        }),
    }
}

/// sled's error as ours.
pub(crate) fn name_error(path: &Path, error: &sled::Error) -> StoreError {
    match error {
        sled::Error::Io(io_error) => name_io_error(path, io_error),
        sled::Error::Corruption { at, .. } => {
            let place = at.map(|pointer| format!(" at {pointer}")).unwrap_or_default();
            StoreError::Corrupt { what: format!("{}{place} does not match its checksum", path.display()) }
        }
        other => StoreError::Corrupt { what: format!("{} cannot be used ({other})", path.display()) },
    }
}

/// An error of the file system as ours.
pub(crate) fn name_io_error(path: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        // sled reports its lock as an error of kind "other" with this text.
        io::ErrorKind::Other if error.to_string().contains("could not acquire lock") => {
            StoreError::Busy { path: path.to_owned() }
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full {
            path: path.to_owned(),
            free_bytes: super::space::free_bytes(path).unwrap_or(0),
            floor_bytes: 0,
        },
        _ => StoreError::Unavailable {
            reason: format!(
                "{} cannot be read or written ({error}); check its file system and its owner",
                path.display()
            ),
        },
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("panic without a text").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> &'static Path {
        Path::new("/var/lib/fleet/store")
    }

    #[tokio::test]
    async fn the_first_error_ends_the_store_for_good() {
        let failure = Failure::new(path());
        assert_eq!(failure.guard(|| Ok(7)), Ok(7));
        let failed =
            failure.guard(|| Err::<(), _>(sled::Error::Io(io::Error::from(io::ErrorKind::StorageFull))));
        assert!(
            matches!(&failed, Err(StoreError::Unavailable { reason }) if reason.contains("free some space"))
        );
        let later = failure.guard(|| -> sled::Result<()> { panic!("must not run any more") });
        assert_eq!(later, failed);
        assert_eq!(failure.wait().await, failed.unwrap_err());
    }

    #[tokio::test]
    async fn who_waits_is_told_when_it_fails() {
        let failure = std::sync::Arc::new(Failure::new(path()));
        let waiting = tokio::spawn({
            let failure = failure.clone();
            async move { failure.wait().await }
        });
        tokio::task::yield_now().await;
        failure.set("it burns");
        assert!(waiting.await.unwrap().to_string().contains("it burns"));
    }

    #[test]
    fn a_panic_of_sled_is_damage_and_ends_the_store() {
        let failure = Failure::new(path());
        let panicked = failure.guard(|| -> sled::Result<()> { panic!("segment {} is odd", 3) });
        assert!(matches!(&panicked, Err(StoreError::Corrupt { what }) if what.contains("segment 3 is odd")));
        assert!(matches!(failure.check(), Err(StoreError::Unavailable { .. })));
    }
}
