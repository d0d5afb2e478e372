//! Text that must not be shown: private keys and token secrets (security-and-delivery §1.20).
//!
//! It has no `Display`, no `Serialize`, and its debug output is `***`. Whoever needs the text says so
//! with [`Secret::expose`], which is easy to search for.

use std::fmt;

/// Secret text.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes ownership of the text.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text; never for logs, errors, reports or arguments.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Secret {
    /// Compares digests, so that the time taken says nothing about the text.
    fn eq(&self, other: &Self) -> bool {
        use fleet_types::digest::Digest;
        Digest::of(self.0.as_bytes()) == Digest::of(other.0.as_bytes())
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_the_text() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "*** Some(***)");
        assert_eq!(secret.expose(), "hunter2");
    }
}
