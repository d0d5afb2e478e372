//! Colour: never the only sign of anything, and none where it is not wanted.

use super::Tone;
use crate::environment::Environment;

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal that can, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Even into a pipe.
    Always,
    /// None.
    Never,
}

/// Paints or leaves alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// For a stream that is or is no terminal. `--color` wins over `NO_COLOR` (no-color.org).
    pub fn new(choice: ColorChoice, is_terminal: bool, environment: &Environment) -> Self {
        let able = environment.get("NO_COLOR").is_none() && environment.get("TERM") != Some("dumb");
        Self {
            on: match choice {
                ColorChoice::Always => true,
                ColorChoice::Never => false,
                ColorChoice::Auto => is_terminal && able,
            },
        }
    }

    /// Never paints.
    pub const fn plain() -> Self {
        Self { on: false }
    }

    /// Text in the colour of its tone; `text` must be escaped already.
    pub fn tone(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "1;31",
            Tone::Dim => "2",
            Tone::Head => "1",
        };
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Text of something bad.
    pub fn bad(self, text: &str) -> String {
        self.tone(Tone::Bad, text)
    }

    /// Does it paint?
    pub const fn is_on(self) -> bool {
        self.on
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_types::time::Timestamp;

    #[test]
    fn no_color_is_honoured_and_a_flag_wins() {
        let now = || Timestamp::clamped(0);
        let wish = Environment::fixed(&[("NO_COLOR", "1")], now);
        let none = Environment::fixed(&[], now);
        let dumb = Environment::fixed(&[("TERM", "dumb")], now);
        assert!(Paint::new(ColorChoice::Auto, true, &none).is_on());
        assert!(!Paint::new(ColorChoice::Auto, false, &none).is_on());
        assert!(!Paint::new(ColorChoice::Auto, true, &wish).is_on());
        assert!(!Paint::new(ColorChoice::Auto, true, &dumb).is_on());
        assert!(Paint::new(ColorChoice::Always, false, &wish).is_on());
        assert!(!Paint::new(ColorChoice::Never, true, &none).is_on());
    }
}
