//! Thresholds of checks: a warning comes before the critical limit, or nobody ever sees it.

use fleet_types::document::profile::{CheckKind, Profile};

use crate::reporter::Reporter;

pub(crate) fn check(reporter: &mut Reporter<'_>, profile: &Profile) {
    for (id, check) in &profile.checks {
        let (Some(warn), Some(critical)) = (&check.warn, &check.critical) else { continue };
        // Free space and days left are bad when they are few.
        let falls = matches!(check.kind, CheckKind::DiskFree | CheckKind::CertExpiry);
        let reversed = |cores: u32| {
            let (warn, critical) = (warn.thousandths(cores), critical.thousandths(cores));
            if falls { warn <= critical } else { warn >= critical }
        };
        // One of both may count cores: wrong is what is wrong on every machine.
        if reversed(1) && reversed(1024) {
            let word = if falls { "above" } else { "below" };
            let message = format!("[check.{id}] has warn = {warn} and critical = {critical}: it never warns");
            let path = format!("check/{id}/warn");
            reporter.error(&path, "bad-value", message, format!("write a warn {word} critical"));
        }
    }
}
