//! Encrypting a file to the owners of keys, in the format that `age` reads (age-encryption.org/v1, X25519 recipients).
//!
//! The sending half alone: nothing here can decrypt, and no key of ours is ever kept. Built on the primitives of `ring`, which
//! is here anyway (docs/adr/0034). Memory is two chunks, however large the file is. Called by `backup_copy`.

use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// First line of the format.
const VERSION: &str = "age-encryption.org/v1";
/// What the key of a recipient's stanza is derived for.
const INFO: &[u8] = b"age-encryption.org/v1/X25519";
/// Plain bytes of a chunk.
const CHUNK: usize = 64 * 1024;
/// Most recipients: a few people and a safe; more is a file given by mistake.
pub(super) const MAX_RECIPIENTS: usize = 20;

/// The public half of somebody's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipient([u8; 32]);

impl Recipient {
    /// Reads `age1…`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("\"{text}\" is no recipient of age: {why}");
        let read = CheckedHrpstring::new::<Bech32>(text).map_err(|e| wrong(&e.to_string()))?;
        if Hrp::parse("age").map_or(true, |age| read.hrp() != age) {
            return Err(wrong("it begins otherwise than age1; keys of other kinds are not supported"));
        }
        let bytes: Vec<u8> = read.byte_iter().collect();
        bytes.try_into().map(Self).map_err(|_| wrong("it has not 32 bytes"))
    }
}

fn failed(_: ring::error::Unspecified) -> io::Error {
    io::Error::other("the machine gives no random numbers, or a recipient is no point of the curve")
}

fn derived(salt: &[u8], secret: &[u8], info: &[u8]) -> Result<[u8; 32], ring::error::Unspecified> {
    let mut key = [0; 32];
    Salt::new(HKDF_SHA256, salt).extract(secret).expand(&[info], HKDF_SHA256)?.fill(&mut key)?;
    Ok(key)
}

fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, ring::error::Unspecified> {
    Ok(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key)?))
}

/// The stanza by which one recipient finds the file's key.
fn stanza(
    recipient: &Recipient,
    file_key: &[u8; 16],
    random: &SystemRandom,
) -> Result<String, ring::error::Unspecified> {
    let ours = EphemeralPrivateKey::generate(&X25519, random)?;
    let share = ours.compute_public_key()?;
    let salt = [share.as_ref(), &recipient.0].concat();
    let theirs = UnparsedPublicKey::new(&X25519, &recipient.0);
    let key = agree_ephemeral(ours, &theirs, |secret| derived(&salt, secret, INFO))??;
    let mut body = file_key.to_vec();
    // The key is used this once.
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    cipher(&key)?.seal_in_place_append_tag(nonce, Aad::empty(), &mut body)?;
    let (share, body) = (STANDARD_NO_PAD.encode(share), STANDARD_NO_PAD.encode(body));
    Ok(format!("-> X25519 {share}\n{body}\n"))
}

/// Encrypts all that `from` gives, for each of the recipients; there must be one.
pub(super) fn encrypt(recipients: &[Recipient], mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    if recipients.is_empty() {
        return Err(io::Error::other("there is nobody to encrypt it to"));
    }
    let random = SystemRandom::new();
    let (mut file_key, mut nonce) = ([0; 16], [0; 16]);
    random.fill(&mut file_key).map_err(failed)?;
    random.fill(&mut nonce).map_err(failed)?;
    let mut header = format!("{VERSION}\n");
    for recipient in recipients {
        header.push_str(&stanza(recipient, &file_key, &random).map_err(failed)?);
    }
    header.push_str("---");
    let mac_key = derived(&[], &file_key, b"header").map_err(failed)?;
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &mac_key), header.as_bytes());
    to.write_all(format!("{header} {}\n", STANDARD_NO_PAD.encode(mac)).as_bytes())?;
    to.write_all(&nonce)?;
    let payload = cipher(&derived(&nonce, &file_key, b"payload").map_err(failed)?).map_err(failed)?;
    // A chunk is known to be the last one only when nothing follows it.
    let mut chunk = next_chunk(&mut from)?;
    for number in 0u64.. {
        let following = if chunk.len() == CHUNK { next_chunk(&mut from)? } else { Vec::new() };
        let is_last = following.is_empty();
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&number.to_be_bytes());
        nonce[11] = u8::from(is_last);
        let nonce = Nonce::assume_unique_for_key(nonce);
        payload.seal_in_place_append_tag(nonce, Aad::empty(), &mut chunk).map_err(failed)?;
        to.write_all(&chunk)?;
        if is_last {
            break;
        }
        chunk = following;
    }
    to.flush()
}

fn next_chunk(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK + CHACHA20_POLY1305.tag_len());
    from.take(CHUNK as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key whose private half opens one file, since it is forgotten then.
    fn key_pair() -> (EphemeralPrivateKey, Recipient) {
        let key = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).unwrap();
        let public: [u8; 32] = key.compute_public_key().unwrap().as_ref().try_into().unwrap();
        (key, Recipient(public))
    }

    fn encrypted(recipients: &[Recipient], plain: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        encrypt(recipients, plain, &mut file).unwrap();
        file
    }

    /// The receiving half, written from the format's description.
    fn decrypt(key: EphemeralPrivateKey, own: &Recipient, file: &[u8], which: usize) -> Option<Vec<u8>> {
        let end = file.windows(4).position(|at| at == b"\n---").unwrap() + 1;
        let text = std::str::from_utf8(&file[..end]).unwrap();
        let mut lines = text.lines().skip(1 + 2 * which);
        let share = STANDARD_NO_PAD.decode(lines.next()?.strip_prefix("-> X25519 ")?).unwrap();
        let mut body = STANDARD_NO_PAD.decode(lines.next()?).unwrap();
        let salt = [share.as_slice(), &own.0].concat();
        let wrap =
            agree_ephemeral(key, &UnparsedPublicKey::new(&X25519, &share), |s| derived(&salt, s, INFO))
                .unwrap()
                .unwrap();
        let zero = Nonce::assume_unique_for_key([0; 12]);
        let file_key = cipher(&wrap).unwrap().open_in_place(zero, Aad::empty(), &mut body).ok()?.to_vec();
        let mac_key = hmac::Key::new(hmac::HMAC_SHA256, &derived(&[], &file_key, b"header").unwrap());
        let line = file[end..].iter().position(|byte| *byte == b'\n').unwrap() + end;
        let mac = STANDARD_NO_PAD.decode(&file[end + 4..line]).unwrap();
        hmac::verify(&mac_key, &file[..end + 3], &mac).ok()?;
        let (nonce, payload) = file[line + 1..].split_at(16);
        let opening = cipher(&derived(nonce, &file_key, b"payload").unwrap()).unwrap();
        let chunks: Vec<&[u8]> = payload.chunks(CHUNK + 16).collect();
        let mut plain = Vec::new();
        for (number, chunk) in chunks.iter().enumerate() {
            let mut nonce = [0; 12];
            nonce[3..11].copy_from_slice(&(number as u64).to_be_bytes());
            nonce[11] = u8::from(number + 1 == chunks.len());
            let mut chunk = chunk.to_vec();
            let nonce = Nonce::assume_unique_for_key(nonce);
            plain.extend_from_slice(opening.open_in_place(nonce, Aad::empty(), &mut chunk).ok()?);
        }
        Some(plain)
    }

    #[test]
    fn each_recipient_reads_it_and_nobody_else_does() {
        let (first, one) = key_pair();
        let (second, two) = key_pair();
        let (stranger, three) = key_pair();
        let file = encrypted(&[one.clone(), two.clone()], b"the rules");
        assert!(!file.windows(9).any(|window| window == b"the rules"));
        assert_eq!(decrypt(first, &one, &file, 0).unwrap(), b"the rules");
        assert_eq!(decrypt(second, &two, &file, 1).unwrap(), b"the rules");
        assert_eq!(decrypt(stranger, &three, &file, 0), None);
        assert!(encrypt(&[], b"x".as_slice(), io::sink()).is_err(), "never in the clear");
    }

    #[test]
    fn files_of_every_length_end_as_they_should_and_a_change_is_noticed() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let plain: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[0]).collect();
            let (key, own) = key_pair();
            let file = encrypted(std::slice::from_ref(&own), &plain);
            assert!(decrypt(key, &own, &file, 0) == Some(plain), "{length}");
        }
        let (key, own) = key_pair();
        let mut file = encrypted(std::slice::from_ref(&own), b"the rules");
        *file.last_mut().unwrap() ^= 1;
        assert_eq!(decrypt(key, &own, &file, 0), None);
    }

    #[test]
    fn recipients_are_told_from_what_looks_like_them() {
        // From the documentation of age.
        let good = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
        assert!(Recipient::parse(good).is_ok());
        for (bad, why) in [
            ("", "no recipient"),
            ("age1…", "no recipient"),
            (&good.replace("ql3", "q13"), "no recipient"),
            (&good[..good.len() - 1], "no recipient"),
            ("ssh-ed25519 AAAA", "no recipient"),
            ("AGE-SECRET-KEY-1QQPQQQQ", "no recipient"),
        ] {
            let error = Recipient::parse(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
