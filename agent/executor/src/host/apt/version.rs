//! The order of Debian versions (`deb-version(7)`): epoch, upstream version, revision. Pure.

use std::cmp::Ordering;

/// Compares two versions.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
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

fn take<'a>(rest: &mut &'a str, wanted: impl Fn(char) -> bool) -> &'a str {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs that `dpkg --compare-versions` of dpkg 1.21.22 answered.
    const PAIRS: &str = include_str!("../../../tests/data/debian-versions.csv");

    #[test]
    fn the_order_is_the_one_of_dpkg() {
        let mut pairs = 0;
        for line in PAIRS.lines().skip(1).filter(|line| !line.is_empty()) {
            let fields: Vec<&str> = line.split(',').collect();
            let [a, sign, b, ..] = fields.as_slice() else { panic!("{line}") };
            let expected = match *sign {
                "<" => Ordering::Less,
                "=" => Ordering::Equal,
                _ => Ordering::Greater,
            };
            assert_eq!(compare(a, b), expected, "{line}");
            assert_eq!(compare(b, a), expected.reverse(), "{line}");
            pairs += 1;
        }
        assert!(pairs >= 100, "{pairs}");
    }
}
