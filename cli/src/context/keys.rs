//! Ed25519 private keys on disk: PKCS #8 in PEM (RFC 7468), mode 0600.
//!
//! The content key is made here, at login, and never leaves. A key that others may read is refused.

use std::path::Path;

use fleet_certs::files::{self, FileError};
use fleet_types::seal::SigningKey;

use crate::error::{ExitCode, Failure};

/// Name of the content key's file in the folder of a context.
pub const CONTENT_KEY: &str = "content-key.pem";

/// Reads a key from a file.
pub fn load_signing_key(path: &Path) -> Result<SigningKey, Failure> {
    let text = files::read_secret(path).map_err(|error| unusable(path, &error))?;
    SigningKey::from_pem(&text).map_err(|_| {
        let what = format!("{} holds no Ed25519 key in PKCS #8 PEM form", path.display());
        Failure::new(ExitCode::Usage, "bad-key", what)
    })
}

/// Reads the content key, or makes it where there is none: an invite answers the key that it saw first,
/// so a repeated login must come with the same one.
pub fn make_or_load_content_key(path: &Path) -> Result<SigningKey, Failure> {
    match files::read_secret(path) {
        Err(FileError::Missing { .. }) => {}
        _ => return load_signing_key(path),
    }
    let (key, pkcs8) = SigningKey::generate()
        .map_err(|error| Failure::unexpected("the content key cannot be made", &error))?;
    files::write_secret(path, &SigningKey::pkcs8_to_pem(&pkcs8)).map_err(|error| unusable(path, &error))?;
    Ok(key)
}

fn unusable(path: &Path, error: &FileError) -> Failure {
    let failure = Failure::new(ExitCode::NotAllowed, "bad-key", error.to_string()).because(error);
    match error {
        FileError::Missing { .. } if path.ends_with(CONTENT_KEY) => {
            failure.fix("sign in again: fleetctl login INVITE")
        }
        FileError::Missing { .. } => failure.fix("give the path of a key file that exists"),
        FileError::TooOpen { .. } => {
            failure.fix(format!("chmod 600 {}, and think about who may have read it", path.display()))
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content-key.pem");
        let made = make_or_load_content_key(&path).unwrap().public();
        assert_eq!(make_or_load_content_key(&path).unwrap().public(), made);
        assert_eq!(load_signing_key(&path).unwrap().public(), made);
    }

    #[test]
    fn what_is_no_key_of_ours_alone_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        make_or_load_content_key(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load_signing_key(&path).unwrap_err().code, "bad-key");
        assert!(make_or_load_content_key(&path).is_err(), "it is not replaced either");
        files::write_secret(&path, &SigningKey::pkcs8_to_pem(b"no key")).unwrap();
        assert_eq!(load_signing_key(&path).unwrap_err().exit, ExitCode::Usage);
    }
}
