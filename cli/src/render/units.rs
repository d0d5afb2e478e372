//! Sizes, lengths and counts in words.

use std::time::Duration;

pub use super::times::length;

/// Bytes with a binary unit and at most one decimal: `512 B`, `1.5 KiB`, `20 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut power = 1u128 << 10;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if u128::from(count) < power << 10 {
            break;
        }
        power <<= 10;
        unit = next;
    }
    let tenths = u128::from(count) * 10 / power;
    if tenths < 100 {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    } else {
        format!("{} {unit}", tenths / 10)
    }
}

/// Milliseconds: `850 ms`, `1.2 s`, `5m03s`.
pub fn milliseconds(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => length(Duration::from_millis(ms)),
    }
}

/// `1 node`, `2 nodes`.
pub fn count(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_words() {
        let sizes = [0, 1023, 1024, 1536, 20 << 20, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "20 MiB", "15 EiB"]);
        assert_eq!([5, 1250, 61_000].map(milliseconds), ["5 ms", "1.2 s", "1m01s"]);
        assert_eq!((count(1, "node"), count(0, "node")), ("1 node".to_owned(), "0 nodes".to_owned()));
    }
}
