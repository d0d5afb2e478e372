//! The versions of rpm: epoch, version, release, and `rpmvercmp` with tilde and caret (rpm 4.18).
//! Pure; anyone may call it.

use std::cmp::Ordering;

use super::dpkg::take;
use super::format::{VersionProblem, only};

/// What can be a version of rpm. More is refused than rpm's library refuses, which compares any two texts: what
/// rpm's own check of package files lets into a version, in the form `[epoch:]version[-release]`.
pub(super) fn check(version: &str) -> Result<(), VersionProblem> {
    let rest = match version.split_once(':') {
        // rpm reads an epoch that is left out before its colon as 0.
        Some((epoch, rest)) if epoch.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        Some(_) => return Err(VersionProblem::Epoch("is no number")),
        None => version,
    };
    if rest.is_empty() || rest == "-" {
        return Err(VersionProblem::Empty);
    }
    only(version, version.len() - rest.len(), rest, |c| c.is_ascii_alphanumeric() || "._+~^-".contains(c))
}

/// Whether a release is written down.
pub fn has_release(version: &str) -> bool {
    split(version).2.is_some()
}

/// The version without its release, if it has one.
pub fn without_release(version: &str) -> &str {
    version.rsplit_once('-').map_or(version, |(version, _)| version)
}

/// The order of two versions. A missing epoch is 0; a missing release comes before any.
pub fn order(a: &str, b: &str) -> Ordering {
    let ((epoch_a, version_a, release_a), (epoch_b, version_b, release_b)) = (split(a), split(b));
    segments(epoch_a, epoch_b).then_with(|| segments(version_a, version_b)).then_with(|| {
        match (release_a, release_b) {
            (Some(a), Some(b)) => segments(a, b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        }
    })
}

fn split(version: &str) -> (&str, &str, Option<&str>) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) if epoch.bytes().all(|byte| byte.is_ascii_digit()) => (epoch, rest),
        _ => ("", version),
    };
    let epoch = if epoch.is_empty() { "0" } else { epoch };
    match rest.rsplit_once('-') {
        Some((version, release)) => (epoch, version, Some(release)),
        None => (epoch, rest, None),
    }
}

/// `rpmvercmp`: the order of two versions or two releases, segment by segment.
pub fn segments(mut a: &str, mut b: &str) -> Ordering {
    let separator = |c: char| !c.is_ascii_alphanumeric() && c != '~' && c != '^';
    loop {
        a = a.trim_start_matches(separator);
        b = b.trim_start_matches(separator);
        match (a.strip_prefix('~'), b.strip_prefix('~')) {
            (Some(rest_a), Some(rest_b)) => {
                (a, b) = (rest_a, rest_b);
                continue;
            }
            // A tilde comes before everything, the end too.
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => {}
        }
        match (a.strip_prefix('^'), b.strip_prefix('^')) {
            (Some(rest_a), Some(rest_b)) => {
                (a, b) = (rest_a, rest_b);
                continue;
            }
            // A caret comes after the end and before everything else.
            (Some(_), None) => return if b.is_empty() { Ordering::Greater } else { Ordering::Less },
            (None, Some(_)) => return if a.is_empty() { Ordering::Less } else { Ordering::Greater },
            (None, None) => {}
        }
        if a.is_empty() || b.is_empty() {
            // What has more left is newer.
            return b.is_empty().cmp(&a.is_empty());
        }
        let order = segment(&mut a, &mut b);
        if order.is_ne() {
            return order;
        }
    }
}

/// The next segments, of the kind of the first one: numbers are newer than letters.
fn segment(a: &mut &str, b: &mut &str) -> Ordering {
    if a.starts_with(|c: char| c.is_ascii_digit()) {
        let (a, b) = (take(a, |c| c.is_ascii_digit()), take(b, |c| c.is_ascii_digit()));
        if b.is_empty() {
            return Ordering::Greater;
        }
        let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
        return a.len().cmp(&b.len()).then_with(|| a.cmp(b));
    }
    let (a, b) = (take(a, |c| c.is_ascii_alphabetic()), take(b, |c| c.is_ascii_alphabetic()));
    if b.is_empty() { Ordering::Less } else { a.cmp(b) }
}
