//! The versions of Debian (`deb-version(7)`): epoch, upstream version, revision. Pure; anyone may call it.

use std::cmp::Ordering;

use super::format::{VersionProblem, only};

/// The largest epoch that dpkg takes.
const MAX_EPOCH: u64 = 2_147_483_647;

/// What `dpkg --validate-version` says. Blanks around a version, which dpkg cuts off, are refused: in a file of
/// advisories they are a mistake.
pub(super) fn check(version: &str) -> Result<(), VersionProblem> {
    let (epoch, rest) = version.split_once(':').map_or((None, version), |(epoch, rest)| (Some(epoch), rest));
    if let Some(epoch) = epoch {
        if epoch.is_empty() {
            return Err(VersionProblem::Epoch("is empty"));
        }
        if !epoch.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(VersionProblem::Epoch("is no number"));
        }
        if epoch.parse::<u64>().map_or(true, |epoch| epoch > MAX_EPOCH) {
            return Err(VersionProblem::Epoch("is too large"));
        }
    }
    let (upstream, revision) =
        rest.rsplit_once('-').map_or((rest, None), |(upstream, revision)| (upstream, Some(revision)));
    if upstream.is_empty() {
        return Err(VersionProblem::EmptyPart("version after the epoch"));
    }
    let start = version.len() - rest.len();
    let of_upstream = |c: char| c.is_ascii_alphanumeric() || ".-+~:".contains(c);
    only(version, start, upstream, of_upstream)?;
    if !upstream.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(VersionProblem::NoDigitFirst);
    }
    match revision {
        Some("") => Err(VersionProblem::EmptyPart("revision after the last hyphen")),
        Some(revision) => only(version, start + upstream.len() + 1, revision, |c| {
            c.is_ascii_alphanumeric() || ".+~".contains(c)
        }),
        None => Ok(()),
    }
}

/// The order of two versions.
pub fn order(a: &str, b: &str) -> Ordering {
    let ((epoch_a, upstream_a, revision_a), (epoch_b, upstream_b, revision_b)) = (split(a), split(b));
    epoch_a
        .cmp(&epoch_b)
        .then_with(|| compare_part(upstream_a, upstream_b))
        .then_with(|| compare_part(revision_a, revision_b))
}

fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch.parse().unwrap_or(0), upstream, revision)
}

/// Parts without digits and numbers, in turn.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    while !(a.is_empty() && b.is_empty()) {
        let (text_a, text_b) = (text(&mut a), text(&mut b));
        // One place more than the longer: the end of a text has a weight of its own.
        for place in 0..=text_a.len().max(text_b.len()) {
            let order = weight(text_a.as_bytes().get(place)).cmp(&weight(text_b.as_bytes().get(place)));
            if order.is_ne() {
                return order;
            }
        }
        let (number_a, number_b) = (number(&mut a), number(&mut b));
        // Without leading zeroes, more digits are a larger number of any size.
        let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn text<'a>(rest: &mut &'a str) -> &'a str {
    take(rest, |c| !c.is_ascii_digit())
}

fn number<'a>(rest: &mut &'a str) -> &'a str {
    take(rest, |c| c.is_ascii_digit()).trim_start_matches('0')
}

/// Cuts off what stands first in `rest` and is wanted.
pub(super) fn take<'a>(rest: &mut &'a str, wanted: impl Fn(char) -> bool) -> &'a str {
    let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
    let (taken, left) = rest.split_at(end);
    *rest = left;
    taken
}

/// A tilde sorts before the end, letters before everything else.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}
