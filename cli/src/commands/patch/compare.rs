//! `fleetctl patch compare-versions`.

use std::cmp::Ordering;

use fleet_types::package_version::PackageFormat;

use super::lines::{self, Reply};
use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// Compares the versions on stdin; asks nobody.
pub async fn compare_versions(session: &mut Session<'_>, format: PackageFormat) -> Result<ExitCode, Failure> {
    let what = format!("two versions of {format} with a tab between");
    lines::answer(session, &what, &|line| match line
        .map_err(|bad| bad.why)
        .and_then(|line| sign(format, line))
    {
        Ok(sign) => Reply { text: sign.to_owned(), is_error: false },
        Err(why) => Reply { text: format!("error: {why}"), is_error: true },
    })
    .await
}

fn sign(format: PackageFormat, line: &str) -> Result<&'static str, String> {
    let two = line.split_once('\t').filter(|(_, second)| !second.contains('\t'));
    let (first, second) = two.ok_or("the line wants two versions with one tab between")?;
    let check = |which: &str, version| {
        format.check(version).map_err(|problem| format!("the {which} of the two: {problem}"))
    };
    check("first", first)?;
    check("second", second)?;
    Ok(match format.order(first, second) {
        Ordering::Less => "<",
        Ordering::Equal => "=",
        Ordering::Greater => ">",
    })
}
