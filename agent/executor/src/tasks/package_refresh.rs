//! `package.refresh`: fetches the lists of what the archives have. Installs nothing. Rows: Z07, W03.

use fleet_types::report::TaskReport;

use super::contract::{Inspect, TaskContext, TaskError, TaskPlan};
use super::packages::{plain, work};

/// The task.
pub(super) struct PackageRefresh;

impl Inspect for PackageRefresh {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        // A node without a package manager says so now.
        context.host.packages().installed(work(context)).map_err(plain)?;
        Ok(TaskPlan { summary: "fetch the lists of packages".to_owned(), ..TaskPlan::default() })
    }

    fn inspect(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        context.host.packages().refresh(work(context)).map_err(plain)?;
        Ok(TaskReport { summary: "the lists of packages are fresh".to_owned(), ..TaskReport::default() })
    }
}
