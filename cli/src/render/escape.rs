//! Makes foreign text harmless: nothing from a node may move the cursor, recolour or reorder a terminal.
//!
//! Escaped are control characters (C0, DEL, C1), bidirectional controls, other invisible format
//! characters, and separators that some terminals break lines at. All else is shown as it is.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::environment::Environment;

/// Which characters the reader's locale has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// All.
    Unicode,
    /// ASCII alone, as in the locales C and POSIX.
    Ascii,
}

impl Charset {
    /// That of `LC_ALL`, else `LC_CTYPE`, else `LANG` (POSIX, 8.2); where none is set nobody knows, and most have all.
    pub fn of(environment: &Environment) -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| environment.get(name));
        match locale {
            Some("C" | "POSIX") => Self::Ascii,
            _ => Self::Unicode,
        }
    }

    /// What stands where something is left out.
    pub const fn ellipsis(self) -> &'static str {
        match self {
            Self::Unicode => "…",
            Self::Ascii => "...",
        }
    }

    /// The text in these characters, every other one escaped.
    pub fn fit(self, text: &str) -> Cow<'_, str> {
        if self == Self::Unicode || text.is_ascii() {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len() + 8);
        for c in text.chars() {
            match c {
                '…' => out.push_str(self.ellipsis()),
                c if c.is_ascii() => out.push(c),
                c => push_escaped(c, &mut out),
            }
        }
        Cow::Owned(out)
    }
}

/// Is this character never shown as it is?
const fn is_hidden(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn push_escaped(c: char, out: &mut String) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
    }
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(|c| is_hidden(c) && !is_kept(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_hidden(c) && !is_kept(c) { push_escaped(c, &mut out) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Text for one line: a cell, a name, a message.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Text that may have lines and tabs of its own: the output of a step.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// JSON text with every hidden character outside of ASCII written as `\uXXXX`, which means the same to
/// every JSON (and YAML double-quoted) reader. The writer has escaped the ASCII ones but DEL.
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c >= '\u{7f}' && is_hidden(c) {
            let mut units = [0u16; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node could send to play with the reader's terminal.
    pub const HOSTILE: &str =
        "\u{1b}[2J\u{9b}1m\u{202e}gnp.exe\r\nOK\u{0}\u{200b}\u{2066}\u{feff}\u{e0041}\u{7f}";

    #[test]
    fn nothing_hidden_survives() {
        for shown in [line(HOSTILE), Cow::Owned(json(&serde_json::to_string(HOSTILE).unwrap()))] {
            assert!(!shown.contains(is_hidden), "{shown:?}");
        }
        assert!(!lines(HOSTILE).contains(|c| is_hidden(c) && c != '\n'));
        assert_eq!(line("\u{1b}[2J"), "\\u{1b}[2J");
    }

    #[test]
    fn honest_text_is_left_alone() {
        for text in ["München", "日本語", "a\\nb", "ελ", "e\u{301}"] {
            assert!(matches!(line(text), Cow::Borrowed(_)), "{text}");
        }
        assert_eq!(lines("a\tb\nc"), "a\tb\nc");
    }

    #[test]
    fn the_locale_says_which_characters_there_are() {
        let now = || fleet_types::time::Timestamp::clamped(0);
        let of = |variables: &[(&str, &str)]| Charset::of(&Environment::fixed(variables, now));
        assert_eq!(of(&[]), Charset::Unicode);
        assert_eq!(of(&[("LANG", "C.UTF-8")]), Charset::Unicode);
        assert_eq!(of(&[("LANG", "en_GB.UTF-8"), ("LC_ALL", "C")]), Charset::Ascii);
        assert_eq!(of(&[("LANG", "C"), ("LC_CTYPE", "en_GB.UTF-8")]), Charset::Unicode);
        assert_eq!(of(&[("LC_ALL", ""), ("LANG", "POSIX")]), Charset::Ascii);
        assert_eq!(Charset::Ascii.fit("München … 5"), "M\\u{fc}nchen ... 5");
        assert_eq!(Charset::Unicode.fit("München … 5"), "München … 5");
    }

    #[test]
    fn escaped_json_means_the_same() {
        let text = json(&serde_json::to_string(HOSTILE).unwrap());
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), HOSTILE);
    }
}
