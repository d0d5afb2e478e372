//! Checks of single texts by their kind: zones, dates, units; and how texts are quoted in messages.

use fleet_types::action::nearest;
use fleet_types::time::Timestamp;

/// A text from a file for a message: in quotes, at most 64 characters, control and bidirectional
/// characters escaped (security-and-delivery §1.19).
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars().take(64) {
        let hidden = c.is_control()
            || matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if hidden || c == '"' { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out.push_str(if text.chars().nth(64).is_some() { "…\"" } else { "\"" });
    out
}

/// The name that was perhaps meant, or else what there is to say otherwise.
pub(crate) fn did_you_mean<'n>(
    word: &str,
    names: impl IntoIterator<Item = &'n str>,
    otherwise: impl FnOnce() -> String,
) -> String {
    nearest(word, names).map_or_else(otherwise, |meant| format!("did you mean \"{meant}\"?"))
}

/// Whether a text may be shown: no control characters (but tabs and line breaks) and nothing that turns
/// the reading direction.
pub(crate) fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

/// `site` or an IANA zone.
pub(crate) fn check_zone(text: &str) -> Result<(), String> {
    if text == fleet_calendar::SITE {
        return Ok(());
    }
    check_iana(text).map_err(|why| format!("{why}, or \"site\""))
}

/// An IANA zone.
pub(crate) fn check_iana(text: &str) -> Result<(), String> {
    if fleet_calendar::is_zone(text) {
        return Ok(());
    }
    let zones = fleet_calendar::suggestions();
    let meant = nearest(text, zones.iter().map(String::as_str));
    let meant = meant.map_or_else(String::new, |meant| format!("did you mean \"{meant}\"? "));
    Err(format!("{meant}write an IANA name such as \"Europe/Berlin\" or \"UTC\""))
}

/// A day as `2026-11-22`.
pub(crate) fn check_day(text: &str) -> Result<(), String> {
    match text.parse::<jiff::civil::Date>() {
        Ok(day) if text.len() == 10 && (2000..2100).contains(&day.year()) => Ok(()),
        _ => Err("write a day of the years 2000 to 2099 such as \"2026-11-22\"".to_owned()),
    }
}

/// An instant as `2026-12-28T00:00:00Z`.
pub(crate) fn check_instant(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "write an instant such as \"2026-12-28T00:00:00Z\"".to_owned())
}

/// A systemd unit with its suffix.
pub(crate) fn check_unit(text: &str) -> Result<(), String> {
    let good = text.len() <= 255
        && !text.starts_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@' | b':' | b'\\'))
        && [".service", ".timer", ".socket", ".target", ".mount", ".path"]
            .iter()
            .any(|s| text.len() > s.len() && text.ends_with(s));
    if good { Ok(()) } else { Err("write a unit with its suffix, such as \"nginx.service\"".to_owned()) }
}

/// An offset such as `-14d` or `2h`.
pub(crate) fn check_offset(text: &str) -> Result<(), String> {
    text.strip_prefix('-')
        .unwrap_or(text)
        .parse::<fleet_types::time::Span>()
        .map(|_| ())
        .map_err(|_| "write a duration, with \"-\" in front for before: \"-14d\"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_hold_no_control_characters() {
        assert_eq!(quoted("a\u{1b}]0;x\u{202e}\"b"), "\"a\\u{1b}]0;x\\u{202e}\\u{22}b\"");
        assert_eq!(quoted(&"x".repeat(70)), format!("\"{}…\"", "x".repeat(64)));
    }

    #[test]
    fn texts_by_kind() {
        for good in ["site", "UTC", "Europe/Berlin", "Etc/GMT+5"] {
            assert!(check_zone(good).is_ok(), "{good}");
        }
        assert!(check_zone("Europe/Berlim").unwrap_err().starts_with("did you mean \"Europe/Berlin\"? "));
        for bad in ["", "Mars/Olympus", "/etc/localtime", "../UTC", "UTC\0", "local"] {
            assert!(check_zone(bad).is_err(), "{bad}");
        }
        assert!(check_day("2026-11-22").is_ok());
        for bad in ["2026-02-30", "22.11.2026", "1999-01-01", "2026-11-22T00:00:00"] {
            assert!(check_day(bad).is_err(), "{bad}");
        }
        assert!(check_unit("a@b.service").is_ok());
        for bad in ["nginx", "-a.service", "a b.service", ".service", "a.service\n"] {
            assert!(check_unit(bad).is_err(), "{bad}");
        }
        assert!(check_offset("-14d").is_ok() && check_offset("--1d").is_err() && check_offset("").is_err());
    }
}
