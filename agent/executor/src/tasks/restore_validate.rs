//! Files of an archive are validated before they are put in place: W05. Reads only. Called by `backup.restore`.

use fleet_types::document::ids::Id;
use fleet_types::document::profile::Validator;
use fleet_types::report::TaskReport;

use super::archive_error::ArchiveError;
use super::config_validate::{Candidate, validate};
use super::contract::TaskContext;
use super::deadline::Deadline;
use super::service_state::names;

/// Lets each validator look at the candidates for the places that it declares; all that is wrong goes into the report.
pub(super) fn check(
    context: &TaskContext<'_>,
    validators: &[(&Id, &Validator)],
    candidates: &[Candidate],
    report: &mut TaskReport,
) -> Result<(), ArchiveError> {
    let mut invalid = Vec::new();
    for (id, validator) in validators {
        Deadline::of(context).check()?;
        let found = validate(context, id, validator, Some(candidates), report)
            .map_err(|error| ArchiveError::Invalid(error.to_string()))?;
        invalid.extend((!found.is_empty()).then_some(*id));
        report.problems.extend(found);
    }
    if invalid.is_empty() {
        return Ok(());
    }
    Err(ArchiveError::Invalid(format!("what is in the archive is not valid by {}", names(invalid))))
}
