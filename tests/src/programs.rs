//! Where the programs under test are: beside the test executable, in the same target directory.
//!
//! Tests of this crate start real processes; cargo builds another package's programs only when it is told to.
//! So a missing one is an error that says which command builds it.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// The directory `target/<profile>` that this executable was built into.
pub fn target_directory() -> Result<PathBuf> {
    let own = std::env::current_exe().context("the own program has no path")?;
    let mut folder = own.parent().context("the own program lies in no folder")?;
    // Tests lie in deps/ below it, and so do examples in theirs.
    if folder.file_name().is_some_and(|name| name == "deps" || name == "examples") {
        folder = folder.parent().context("deps lies in no folder")?;
    }
    Ok(folder.to_owned())
}

/// The program `name` of `package`, built with the same profile as this one.
pub fn program(name: &str, package: &str) -> Result<PathBuf> {
    let folder = target_directory()?;
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    let release = if folder.ends_with("release") { " --release" } else { "" };
    bail!("{} is not there; build it first: cargo build{release} -p {package}", path.display())
}
