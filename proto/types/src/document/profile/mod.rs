//! The profile: what a kind of node is made of, and what "healthy" means for it.
//!
//! Everything a procedure may touch is declared here by id; procedures refer to ids only. The types
//! say what is possible, reference/profile.toml says what it means. They must never act: tasks of the
//! executor read them, `fleet-documents` checks what needs more than one table.

mod health;
mod node_profile;
mod programs;
mod upkeep;
mod watch;

pub use health::{
    Check, CheckKind, CommandRef, Interfaces, InterfacesWord, MaxRestarts, OnDown, Service, ServiceExpect,
    ServiceType, Status, StatusNetwork,
};
pub use node_profile::{Paper, Profile};
pub use programs::{
    Backup, BackupCopy, BackupKind, Command, CommandOutput, Database, Engine, Format, Keep, OnInvalid,
    Package, PackageManager, Purge, ReindexScope, RestoreTest, Validator, ValidatorKind, VerifyMethod,
};
pub use upkeep::{
    ApplyMount, Archive, Cadence, CreateFile, Delete, Hardening, HardeningKind, HardeningReport, Log,
    Persist, RemoveEmptyDirectories, Rotate, RotateAfter, RotateEvery, Ruleset, RulesetKind, Tuning,
    TuningKind,
};
pub use watch::{
    Alert, Contact, Dashboard, Fact, Link, Metric, MetricStore, Report, ReportScope, Section, Tools,
};
