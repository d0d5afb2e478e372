//! Finds the programs that a fleet consists of: those of the same build, beside fleetctl itself.
//!
//! Never looks into `PATH`: another version's controller would be a puzzle, not a help.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::{ExitCode, Failure};

/// Where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// `fleet-controller`.
    pub controller: PathBuf,
    /// `fleet-agent`.
    pub agent: PathBuf,
}

impl Programs {
    /// Those beside this executable.
    pub fn beside_own() -> Result<Self, Failure> {
        let own = std::env::current_exe()
            .map_err(|error| Failure::unexpected("the folder of fleetctl cannot be found", &error))?;
        Self::in_folder(own.parent().unwrap_or(Path::new("/")))
    }

    fn in_folder(folder: &Path) -> Result<Self, Failure> {
        let found = Self { controller: folder.join("fleet-controller"), agent: folder.join("fleet-agent") };
        let is_program = |path: &&PathBuf| {
            std::fs::metadata(path)
                .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
        };
        let missing: Vec<_> =
            [&found.controller, &found.agent].into_iter().filter(|path| !is_program(path)).collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let what = "fleetctl dev starts fleet-controller and fleet-agent, which are not both beside it";
        let failure = Failure::new(ExitCode::NotFound, "programs-missing", what);
        Err(missing
            .into_iter()
            .fold(failure, |failure, path| failure.cause(format!("there is no program {}", path.display())))
            .fix(
                "in a checkout: cargo build --locked --bin fleetctl --bin fleet-controller --bin fleet-agent",
            )
            .fix("or in one go: deploy/dev/run.sh"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_to_build() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("fleet-agent");
        std::fs::write(&program, "").unwrap();
        let failure = Programs::in_folder(folder.path()).unwrap_err();
        assert_eq!((failure.exit.number(), failure.causes.len()), (4, 2), "a file is no program yet");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let failure = Programs::in_folder(folder.path()).unwrap_err();
        assert!(failure.causes[0].ends_with("/fleet-controller"), "{failure:?}");
        assert!(failure.fixes[0].contains("cargo build"), "{failure:?}");
    }
}
