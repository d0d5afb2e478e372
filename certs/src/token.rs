//! Join tokens and operator invites (security-and-delivery §1.6).
//!
//! ```text
//! ft1.<id>.<secret>.<controller CA pin>[,<pin>].<root pin>     a node joins
//! fi1.<id>.<secret>.<controller CA pin>[,<pin>].<root pin>     an operator joins
//! ```
//!
//! All parts are lower-case hexadecimal, so that a token has one spelling: id 8 bytes, secret 16
//! bytes, pins SHA-256. 128 random bits cannot be guessed through a rate-limited service within a
//! token's life of at most 24 hours, and need no slow hash where they are stored. The controller
//! stores id and [`TokenSecret::stored`], never the secret; expiry and binding live in its record.

use std::fmt;
use std::str::FromStr;

use fleet_types::digest::{Digest, hex, unhex};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most pins in a token: an authority rotation has two (§1.11), and there is one rotation at a time.
const MAX_PINS: usize = 2;
/// Longest text that is looked at: `ft1`, all parts and four dots.
const MAX_BYTES: usize = 3 + 16 + 32 + MAX_PINS * 64 + (MAX_PINS - 1) + 64 + 4;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// `ft1`: a node joins.
    Node,
    /// `fi1`: an operator joins.
    Operator,
}

impl TokenKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Node => "ft1",
            Self::Operator => "fi1",
        }
    }
}

/// Names a token in the store and in messages; not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; 8]);

/// The secret part. Debug output `***`.
#[derive(Clone)]
pub struct TokenSecret([u8; 16]);

/// A token as text carries it.
#[derive(Debug, Clone)]
pub struct Token {
    /// What it is for.
    pub kind: TokenKind,
    /// Its id.
    pub id: TokenId,
    /// Its secret.
    pub secret: TokenSecret,
    /// Pins of the controller authorities, at least one.
    pub controller_pins: Vec<Digest>,
    /// Pin of the root key set.
    pub root_pin: Digest,
}

/// Why a text is no token. Never repeats the text, which may hold the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not five parts, or a wrong length.
    #[error("not a token: expected {0}.<id>.<secret>.<controller pin>.<root pin>; copy it whole")]
    Form(&'static str),
    /// An invite where a join token was expected, or the reverse.
    #[error("this token is for {}: expected one that begins with {}", if matches!(.0, TokenKind::Node) { "an operator" } else { "a node" }, .0.prefix())]
    Kind(TokenKind),
    /// One part is malformed.
    #[error("the token's {0} is malformed: copy it whole, in lower case")]
    Part(&'static str),
    /// No random numbers.
    #[error("the system gave no random numbers")]
    Random,
}

impl Token {
    /// Draws a new token. The pins must be those of the authorities that controllers use now.
    pub fn generate(
        kind: TokenKind,
        controller_pins: Vec<Digest>,
        root_pin: Digest,
    ) -> Result<Self, TokenError> {
        if controller_pins.is_empty() || controller_pins.len() > MAX_PINS {
            return Err(TokenError::Part("controller pin"));
        }
        let random = SystemRandom::new();
        let (mut id, mut secret) = ([0u8; 8], [0u8; 16]);
        random.fill(&mut id).and_then(|()| random.fill(&mut secret)).map_err(|_| TokenError::Random)?;
        Ok(Self { kind, id: TokenId(id), secret: TokenSecret(secret), controller_pins, root_pin })
    }

    /// Reads a token of one kind.
    pub fn parse(kind: TokenKind, text: &str) -> Result<Self, TokenError> {
        let form = TokenError::Form(kind.prefix());
        if text.len() > MAX_BYTES {
            return Err(form);
        }
        let parts: Vec<&str> = text.split('.').collect();
        let [prefix, id, secret, pins, root] = parts[..] else { return Err(form) };
        let other = if kind == TokenKind::Node { TokenKind::Operator } else { TokenKind::Node };
        if prefix == other.prefix() {
            return Err(TokenError::Kind(kind));
        }
        if prefix != kind.prefix() {
            return Err(form);
        }
        let controller_pins: Vec<Digest> = pins
            .split(',')
            .map(|pin| pin.parse().map_err(|_| TokenError::Part("controller pin")))
            .collect::<Result<_, _>>()?;
        // The same pin twice would be a second spelling.
        if controller_pins.len() == MAX_PINS && controller_pins[0] == controller_pins[1] {
            return Err(TokenError::Part("controller pin"));
        }
        Ok(Self {
            kind,
            id: id.parse()?,
            secret: TokenSecret(fixed(secret).ok_or(TokenError::Part("secret"))?),
            controller_pins,
            root_pin: root.parse().map_err(|_| TokenError::Part("root pin"))?,
        })
    }

    /// The text to hand over; it holds the secret, so it is shown once and never logged.
    pub fn expose(&self) -> String {
        let pins: Vec<String> = self.controller_pins.iter().map(Digest::to_string).collect();
        let (prefix, pins) = (self.kind.prefix(), pins.join(","));
        format!("{prefix}.{}.{}.{pins}.{}", self.id, hex(&self.secret.0), self.root_pin)
    }
}

impl TokenSecret {
    /// The hash to store. Bound to kind and id, so that one record's hash is of no use in another.
    pub fn stored(&self, kind: TokenKind, id: TokenId) -> Digest {
        Digest::of_parts(&[b"fleet/v1/token\n", kind.prefix().as_bytes(), &id.0, &self.0])
    }

    /// Is this the secret of the stored hash? Compares hashes, so that the time taken tells nothing
    /// about the secret.
    pub fn matches(&self, kind: TokenKind, id: TokenId, stored: Digest) -> bool {
        // Both sides are digests over a secret that the sender does not choose freely: how many of
        // their leading bytes agree says nothing about the preimage.
        self.stored(kind, id) == stored
    }

    /// From a message of the wire.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, TokenError> {
        bytes.try_into().map(Self).map_err(|_| TokenError::Part("secret"))
    }

    /// For a message of the wire, after the controller's pin was checked.
    pub const fn expose(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        fixed(text).map(Self).ok_or(TokenError::Part("id"))
    }
}

impl Serialize for TokenId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn fixed<const N: usize>(text: &str) -> Option<[u8; N]> {
    unhex(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(kind: TokenKind, pins: usize) -> Token {
        let pins = (0..pins).map(|n| Digest::of(&[u8::try_from(n).unwrap()])).collect();
        Token::generate(kind, pins, Digest::of(b"root")).unwrap()
    }

    #[test]
    fn a_token_survives_its_text_and_hides_its_secret() {
        for kind in [TokenKind::Node, TokenKind::Operator] {
            for pins in 1..=2 {
                let token = token(kind, pins);
                let again = Token::parse(kind, &token.expose()).unwrap();
                assert_eq!(again.expose(), token.expose());
                let shown = format!("{token:?}");
                assert!(shown.contains("***") && !shown.contains(&hex(token.secret.expose())));
            }
        }
        assert!(Token::generate(TokenKind::Node, vec![], Digest::of(b"")).is_err());
        assert_eq!(token(TokenKind::Operator, 2).expose().len(), MAX_BYTES);
    }

    #[test]
    fn hostile_texts_are_refused_and_not_repeated() {
        let good = token(TokenKind::Node, 1).expose();
        let parts: Vec<&str> = good.split('.').collect();
        let with = |at: usize, text: &str| {
            let mut changed = parts.clone();
            changed[at] = text;
            changed.join(".")
        };
        let pin = parts[3];
        let cases = [
            String::new(),
            good.to_uppercase(),
            format!("{good} "),
            format!("{good}\n"),
            format!("{good}."),
            format!("{good}.{pin}"),
            good[..good.len() - 1].to_owned(),
            with(0, "ft2"),
            with(0, ""),
            with(1, ""),
            with(1, "zzzzzzzzzzzzzzzz"),
            with(1, "00112233445566778"),
            with(2, ""),
            with(2, "\u{661}\u{661}"),
            with(3, ""),
            with(3, &format!("{pin},")),
            with(3, &format!(",{pin}")),
            with(3, &format!("{pin},{pin}")),
            with(3, &format!("{pin},{},{}", "a".repeat(64), "b".repeat(64))),
            with(4, "$(reboot)"),
            "ft1....".to_owned(),
            ".".repeat(100_000),
        ];
        for bad in cases {
            let error = Token::parse(TokenKind::Node, &bad).unwrap_err();
            assert!(!error.to_string().contains(parts[2]), "{bad:.80}");
        }
        assert_eq!(
            Token::parse(TokenKind::Operator, &good).unwrap_err(),
            TokenError::Kind(TokenKind::Operator)
        );
    }

    #[test]
    fn the_stored_hash_is_of_one_kind_and_one_id() {
        let (one, two) = (token(TokenKind::Node, 1), token(TokenKind::Node, 1));
        let stored = one.secret.stored(one.kind, one.id);
        assert!(one.secret.matches(one.kind, one.id, stored));
        assert!(!two.secret.matches(one.kind, one.id, stored));
        assert!(!one.secret.matches(TokenKind::Operator, one.id, stored));
        assert!(!one.secret.matches(one.kind, two.id, stored));
    }
}
