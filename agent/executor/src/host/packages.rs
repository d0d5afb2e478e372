//! Packages: the trait and its types.
//!
//! One backend drives apt and dpkg; the trait speaks of packages alone, so that another manager fits behind it. A change
//! is a list of exact builds, put in place from archives that the node keeps, without a network and all at once. It must
//! never choose a version by itself: what it proposes is shown in a plan, what it carries out was noted before.
//! Called by tasks, and for what a node is like by `facts` and the dispatcher.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fleet_types::digest::Digest;
use fleet_types::packages::{Available, Package};
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::tasks::{CancelFlag, OutputSink, StepIdentity};

/// One exact build of a package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Build {
    /// Name; with the architecture behind a colon where that is not the node's own.
    pub name: String,
    /// Version as the package manager writes it.
    pub version: String,
    /// Architecture that it was built for.
    pub architecture: String,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// How a package stands in the node's database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Installed and configured.
    Installed,
    /// Removed; its configuration is still there.
    Removed,
    /// Neither: an installation began and did not end. The package manager's word for it.
    Unfinished(String),
}

/// A package that the node's database knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledPackage {
    /// What is there.
    pub build: Build,
    /// How it stands.
    pub standing: Standing,
    /// Does somebody hold it at its version?
    pub held: bool,
}

/// Packages by name.
pub type InstalledPackages = BTreeMap<String, InstalledPackage>;

/// Which way a change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// It was not there.
    Added,
    /// To a higher version.
    Upgraded,
    /// To a lower version.
    Downgraded,
    /// The same build once more.
    Reinstalled,
    /// It goes.
    Removed,
}

impl Direction {
    /// The word in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "installed",
            Self::Upgraded => "upgraded",
            Self::Downgraded => "downgraded",
            Self::Reinstalled => "reinstalled",
            Self::Removed => "removed",
        }
    }
}

/// One package of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageChange {
    /// Its name.
    pub name: String,
    /// What is there now.
    pub from: Option<Build>,
    /// What is to be there.
    pub to: Option<Build>,
    /// Which way it goes.
    pub direction: Direction,
    /// Who publishes the new build, as their signed index says; empty when nobody that this node knows does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// Is it published as a security update?
    #[serde(default)]
    pub security: bool,
    /// Bytes of its archive, where known.
    #[serde(default)]
    pub archive_bytes: u64,
    /// Bytes that it takes when installed, where known.
    #[serde(default)]
    pub installed_bytes: u64,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// These packages: at this version, else the newest that the node would choose.
    Named(Vec<(String, Option<String>)>),
    /// Whatever is newer and removes nothing.
    AllUpdates,
}

/// How a kept archive was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptFrom {
    /// From the publisher, checked against their signed index.
    Publisher,
    /// From the package manager's own cache.
    Cache,
    /// Put together again from the installed files.
    Repacked,
}

impl KeptFrom {
    /// In words, for plans and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publisher => "from the publisher",
            Self::Cache => "from the package manager's cache",
            Self::Repacked => "repacked from the installed files",
        }
    }
}

/// An archive that the node keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What is in it.
    pub build: Build,
    /// Its size.
    pub bytes: u64,
    /// How it was come by.
    pub from: KeptFrom,
    /// Who published it, as noted when it was fetched.
    pub origins: Vec<String>,
}

/// Why packages could not be looked at or changed, as far as callers and operators tell cases apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageFault {
    /// The node has no package manager that this build speaks to.
    NoManager,
    /// Another program works on the database.
    LockHeld,
    /// The database is inconsistent: an earlier installation did not end.
    Unfinished,
    /// Somebody holds a package that would change.
    Held,
    /// A package asks a question about its configuration.
    ConfigQuestion,
    /// There is not enough room.
    LittleSpace,
    /// The archive of packages cannot be reached.
    Unreachable,
    /// The archive is not signed.
    Unsigned,
    /// It is signed by a key that this node does not trust, or not by the key that it says.
    WronglySigned,
    /// Its signed statement is too old.
    Expired,
    /// Its publisher has another name than before.
    Renamed,
    /// What came is not what the signed index says, or a kept archive is not as it was kept.
    Altered,
    /// A script of a package failed.
    Script,
    /// The database knows no such package, or no archive has it.
    NoPackage,
    /// No archive has that version.
    NoVersion,
    /// Packages that it needs cannot be had.
    Dependencies,
    /// An archive that is needed is not kept on the node.
    NotKept,
    /// What would change is not what was planned.
    Differs,
    /// It did not end in time.
    TimedOut,
    /// It was asked to stop.
    Cancelled,
    /// Nobody saw how it ended.
    Interrupted,
    /// Anything else.
    Other,
}

impl PackageFault {
    /// Stable name of the cause in reports.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoManager => "package_manager_missing",
            Self::LockHeld => "package_lock_held",
            Self::Unfinished => "package_database_inconsistent",
            Self::Held => "package_held",
            Self::ConfigQuestion => "package_config_question",
            Self::LittleSpace => "little_space",
            Self::Unreachable => "archive_unreachable",
            Self::Unsigned => "archive_unsigned",
            Self::WronglySigned => "archive_wrongly_signed",
            Self::Expired => "archive_expired",
            Self::Renamed => "archive_renamed",
            Self::Altered => "archive_altered",
            Self::Script => "package_script_failed",
            Self::NoPackage => "package_unknown",
            Self::NoVersion => "package_version_unknown",
            Self::Dependencies => "package_dependencies",
            Self::NotKept => "package_not_kept",
            Self::Differs => "package_plan_differs",
            Self::TimedOut => "package_timed_out",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "package_change_interrupted",
            Self::Other => "package_failed",
        }
    }

    /// What to do.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::NoManager => "packages of this node are not handled by this build",
            Self::LockHeld => "wait for the other program, or retry on lock_busy",
            Self::Unfinished => {
                "look at `dpkg --audit`, finish with `dpkg --configure -a`, then start a new run"
            }
            Self::Held => "say hold = true at the package in the profile, or release it on the node",
            Self::ConfigQuestion => "settle the configuration file by hand, or change the package",
            Self::LittleSpace => "free space on the node",
            Self::Unreachable => "look at the node's way to the archive",
            Self::Unsigned | Self::WronglySigned => "look at the archive's key on the node; change nothing",
            Self::Expired => "look at the mirror and at the node's clock",
            Self::Renamed => {
                "look at who publishes the archive now, then accept it with `apt-get update --allow-releaseinfo-change`"
            }
            Self::Altered => "look for somebody between the node and its archive; fetch the package anew",
            Self::Script => "look at the output of the package's script",
            Self::NoPackage | Self::NoVersion => "run package.refresh, or correct the name or version",
            Self::Dependencies => "look at what the package needs",
            Self::NotKept => "run package.download before",
            Self::Differs => "plan again: the node or its archive has changed",
            Self::TimedOut => "give the step more time",
            Self::Interrupted => "look at `dpkg --audit`",
            Self::Cancelled | Self::Other => "look at the output of the step",
        }
    }
}

/// Why packages could not be looked at or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PackageError {
    /// The kind of failure.
    pub fault: PackageFault,
    /// What, where.
    pub message: String,
    /// The words of the program, if one said any.
    pub evidence: String,
}

impl PackageError {
    /// An error without words of a program.
    pub fn new(fault: PackageFault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into(), evidence: String::new() }
    }
}

/// On whose behalf programs are started, and their bounds.
#[derive(Clone, Copy)]
pub struct PackageWork<'a> {
    /// The step.
    pub step: &'a StepIdentity,
    /// Takes what programs print.
    pub output: &'a dyn OutputSink,
    /// Ends what only reads. A change is never ended by it (security-and-delivery §2.11).
    pub cancel: &'a CancelFlag,
    /// When the step's time is over.
    pub until: Instant,
}

/// Result of a look or change.
pub type PackageResult<T> = Result<T, PackageError>;

/// Packages of the node.
pub trait Packages: Send + Sync {
    /// The package manager; none where this build speaks to none on this node.
    fn manager(&self) -> Option<&'static str>;

    /// Why the database is not consistent, from its files alone; none when it is, or there is none. Cheap.
    fn damage(&self) -> Option<String>;

    /// What the database knows.
    fn installed(&self, work: PackageWork<'_>) -> PackageResult<InstalledPackages>;

    /// The installed packages with what they were built from, from the database's own files. Cheap.
    fn listed(&self) -> PackageResult<Vec<Package>>;

    /// What the node's archives have that is newer than what is installed, holds passed over, by the lists on the node.
    fn available(&self, work: PackageWork<'_>) -> PackageResult<BTreeMap<String, Available>>;

    /// The packages that files belong to; one that belongs to none is left out.
    fn owners(&self, paths: &BTreeSet<String>) -> BTreeMap<String, String>;

    /// The packages that were installed for others only.
    fn automatic(&self, work: PackageWork<'_>) -> PackageResult<BTreeSet<String>>;

    /// What the package manager itself finds wrong with the database; empty when all is well.
    fn audit(&self, work: PackageWork<'_>) -> PackageResult<Vec<String>>;

    /// Fetches the lists of what archives have.
    fn refresh(&self, work: PackageWork<'_>) -> PackageResult<()>;

    /// What would change, by the lists on the node, with what it needs.
    fn resolve(&self, wanted: &Wanted, work: PackageWork<'_>) -> PackageResult<Vec<PackageChange>>;

    /// The archive that is kept of this build. One that is not as it was kept is an error.
    fn kept(&self, build: &Build) -> PackageResult<Option<Kept>>;

    /// Keeps an archive of this build: the one that is kept already, from the package manager's cache, from its publisher
    /// if `fetch`, else put together from the installed files where it is the installed one.
    fn keep(&self, build: &Build, fetch: bool, work: PackageWork<'_>) -> PackageResult<Kept>;

    /// The configuration files of these builds, of kept archives and of installed packages.
    fn config_files(&self, builds: &[Build], work: PackageWork<'_>) -> PackageResult<BTreeSet<PathBuf>>;

    /// Sets the content of a file aside, so that it can be put back; none where nothing is there. A folder, link or device
    /// is no configuration file and is an error.
    fn set_aside(&self, path: &Path) -> PackageResult<Option<SetAside>>;

    /// Puts back what was set aside.
    fn put_back(&self, path: &Path, content: &SetAside) -> PackageResult<()>;

    /// What this change would do, from kept archives alone.
    fn rehearse(&self, changes: &[PackageChange], work: PackageWork<'_>)
    -> PackageResult<Vec<PackageChange>>;

    /// Carries a change out, from kept archives alone. It is not ended by a cancel; `part` names its program.
    fn change(&self, changes: &[PackageChange], part: &str, work: PackageWork<'_>) -> PackageResult<()>;

    /// Takes away what removed packages left of their configuration.
    fn purge(&self, names: &[String], part: &str, work: PackageWork<'_>) -> PackageResult<()>;

    /// Finishes what an interrupted installation left.
    fn repair(&self, part: &str, work: PackageWork<'_>) -> PackageResult<()>;

    /// Sets what is held and what was installed for others only, among these packages.
    fn mark(&self, marks: &Marks, part: &str, work: PackageWork<'_>) -> PackageResult<()>;
}

/// A file whose content was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Its content.
    pub sha256: Digest,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub modified: Timestamp,
}

/// Marks of packages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The packages that this is about.
    pub names: BTreeSet<String>,
    /// Held at their version.
    pub held: BTreeSet<String>,
    /// Installed for others only.
    pub automatic: BTreeSet<String>,
}
