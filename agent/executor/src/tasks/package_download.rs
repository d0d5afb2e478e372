//! `package.download`: keeps the archives that an upgrade will need, and those of the present versions for its way back.
//! Installs nothing. Rows: Z07, W03.

use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;

use super::args;
use super::contract::{Inspect, TaskContext, TaskError, TaskPlan};
use super::deadline::Deadline;
use super::packages::{come_by, failed, resolve, work};
use super::part::{bounded, number, problem, sample};
use crate::host::{Build, KeptFrom, PackageFault};

/// The task.
pub(super) struct PackageDownload;

impl Inspect for PackageDownload {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let changes = resolve(context)?;
        let bytes: u64 = changes.iter().map(|change| change.archive_bytes).sum();
        let count = changes.iter().filter(|change| change.to.is_some()).count();
        let summary = format!("fetch the archives of {count} packages ({bytes} bytes)");
        Ok(TaskPlan { summary, ..TaskPlan::default() })
    }

    fn inspect(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let with_current = args::flag(context, "with_current", true)?;
        let changes = resolve(context)?;
        let packages = context.host.packages();
        let mut report = TaskReport::default();
        let (mut new, mut former, mut bytes) = (Vec::new(), Vec::new(), 0u64);
        let builds = changes.iter().filter_map(|change| change.to.as_ref()).map(|to| (to, true));
        let current = changes.iter().filter_map(|change| change.from.as_ref()).map(|from| (from, false));
        for (build, is_new) in builds.chain(current.filter(|_| with_current)) {
            if let Err(halt) = Deadline::of(context).check() {
                return Err(halt.end(report));
            }
            match packages.keep(build, true, work(context)) {
                Ok(kept) => {
                    bytes += kept.bytes;
                    if is_new { &mut new } else { &mut former }.push(kept.from);
                }
                // The way back is asked for again before anything changes; a full disk or a busy lock ends it now.
                Err(error) if !is_new && error.fault == PackageFault::NotKept => {
                    report.problems.push(not_kept(build, &error.message));
                }
                Err(error) => return Err(failed(&error, report)),
            }
        }
        report.samples.push(sample("packages_kept", "archives", number(bytes), "bytes"));
        report.summary = match (new.is_empty(), former.is_empty()) {
            (true, _) => "nothing to fetch: the packages are as they should be".to_owned(),
            (false, true) => format!("{} archives are kept ({})", new.len(), come_by(&new)),
            (false, false) => {
                let repacked = former.contains(&KeptFrom::Repacked);
                let said = if repacked { "; some are put together again from installed files" } else { "" };
                format!(
                    "{} new archives are kept ({}), and {} former ones ({}){said}",
                    new.len(),
                    come_by(&new),
                    former.len(),
                    come_by(&former)
                )
            }
        };
        Ok(bounded(report))
    }
}

fn not_kept(build: &Build, why: &str) -> fleet_types::report::Problem {
    let mut found = problem(
        Severity::High,
        "package_no_way_back",
        &build.name,
        format!("the present version {} cannot be kept: {why}", build.version),
    );
    "an upgrade of it is refused: there would be no way back".clone_into(&mut found.remedy);
    found
}
