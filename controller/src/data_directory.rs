//! The controller's own directory: nobody else's business, and without keys that a controller must not have.
//!
//! Content keys and root keys make work and trust; a controller that finds one in its directory refuses to start
//! (security-and-delivery §1.2). They are looked for by the names that `fleetctl login` and `init` give them, and
//! by content: whatever a file is called, in a bundle of others or alone, a private key whose public half the
//! trust bundle or the root keys list is found.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet_types::seal::PublicKey;
use fleet_types::trust::{RootKeys, TrustBundle};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// Keys are small; larger files are the store's, or archives that nobody keeps here.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// Looked at before the search is given up; the store has a handful of files, keys and configuration a dozen.
const MAX_FILES: usize = 10_000;
/// Before the seed in every PKCS#8 form of an Ed25519 key (RFC 8410 §7): the algorithm, and two octet strings.
const ED25519_SEED: [u8; 9] = [0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const SEED_BYTES: usize = 32;
const PEM_BEGIN: &[u8] = b"-----BEGIN PRIVATE KEY-----";
const PEM_END: &[u8] = b"-----END";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be made or looked at.
    #[error("directory {} cannot be used", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others may look into it or write to it.
    #[error("directory {} may be used by others than its owner (mode {mode:04o}): run chmod 700 {}", path.display(), path.display())]
    TooOpen {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to another account.
    #[error("directory {} belongs to user {owner}, and the controller runs as user {own}: start it as that user, or change the owner", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Ours.
        own: u32,
    },
    /// A content or root key lies where the controller keeps its data.
    #[error("{} holds a {what} key: a controller must not have one; move it to the operator's machine and delete it here", path.display())]
    ForeignKey {
        /// The file.
        path: PathBuf,
        /// Content or root.
        what: &'static str,
    },
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> DirectoryError {
    let path = path.to_owned();
    |source| DirectoryError::Io { path, source }
}

/// Makes the directory, or takes one that is there, for its owner alone.
pub fn make_private(path: &Path) -> Result<(), DirectoryError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io(path))?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io(path))
}

/// The directory and the one with the keys must be for our account alone.
pub fn check_private(directory: &Path) -> Result<(), DirectoryError> {
    // The kernel gives it to whoever the process runs as.
    let own = fs::metadata("/proc/self").map_err(io(Path::new("/proc/self")))?.uid();
    for path in [directory.to_owned(), directory.join("pki")] {
        let about = match fs::metadata(&path) {
            Ok(about) => about,
            // What is missing is told by whoever needs it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io(&path)(error)),
        };
        let (mode, owner) = (about.mode() & 0o7777, about.uid());
        if owner != own {
            return Err(DirectoryError::Foreign { path, owner, own });
        }
        if mode & 0o077 != 0 {
            return Err(DirectoryError::TooOpen { path, mode });
        }
    }
    Ok(())
}

/// Refuses content keys that the bundle lists and the fleet's root keys, wherever in the directory they are.
pub fn refuse_foreign_keys(
    directory: &Path,
    bundle: &TrustBundle,
    roots: &RootKeys,
) -> Result<(), DirectoryError> {
    let contents = bundle.content_keys.iter().map(|listed| (listed.key, "content"));
    let listed: BTreeMap<PublicKey, &'static str> =
        contents.chain(roots.keys.iter().map(|key| (*key, "root"))).collect();
    // Text that programs wrote, and as much as they liked.
    let output = directory.join("output");
    let (mut open, mut files) = (vec![directory.to_owned()], 0);
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if path != output {
                    open.push(path);
                }
                continue;
            }
            files += 1;
            if files > MAX_FILES {
                tracing::warn!("{} has many files: not all were searched for keys", directory.display());
                return Ok(());
            }
            let what = by_name(&path).or_else(|| by_content(&read(&path)?, &listed));
            if let Some(what) = what {
                return Err(DirectoryError::ForeignKey { path, what });
            }
        }
    }
    Ok(())
}

fn by_name(path: &Path) -> Option<&'static str> {
    match path.file_name()?.to_str()? {
        "content-key.pem" => Some("content"),
        "root.key" | "root-key.pem" => Some("root"),
        _ => None,
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let about = fs::metadata(path).ok()?;
    if !about.is_file() || about.len() > MAX_FILE_BYTES {
        return None;
    }
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn by_content(bytes: &[u8], listed: &BTreeMap<PublicKey, &'static str>) -> Option<&'static str> {
    let in_der = |der: &[u8]| {
        places(der, &ED25519_SEED).find_map(|at| {
            let seed = der.get(at + ED25519_SEED.len()..)?.get(..SEED_BYTES)?;
            let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
            let public = PublicKey::from_slice(pair.public_key().as_ref()).ok()?;
            listed.get(&public).copied()
        })
    };
    in_der(bytes).or_else(|| {
        places(bytes, PEM_BEGIN).find_map(|at| {
            let rest = bytes.get(at + PEM_BEGIN.len()..)?;
            let end = places(rest, PEM_END).next()?;
            let text: Vec<u8> = rest[..end].iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
            in_der(&STANDARD.decode(text).ok()?)
        })
    })
}

fn places<'a>(bytes: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    bytes.windows(wanted.len()).enumerate().filter(move |(_, window)| *window == wanted).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use fleet_types::id::OperatorId;
    use fleet_types::seal::SigningKey;
    use fleet_types::trust::{ContentKey, OperatorRole};

    use super::*;
    use crate::testing::TestContext;

    #[tokio::test]
    async fn a_listed_key_is_found_whatever_its_file_is_called() {
        let test = TestContext::new().await;
        let ((content, content_bytes), (stranger, stranger_bytes)) =
            (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let (root, root_bytes) = SigningKey::generate().unwrap();
        let mut bundle = test.context.identities.trust.get().0.clone();
        bundle.content_keys = vec![ContentKey {
            key: content.public(),
            operator: OperatorId::from_uuid(uuid::Uuid::from_u128(1)),
            person: "ada".parse().unwrap(),
            role: OperatorRole::Operator,
        }];
        let roots = RootKeys { keys: vec![root.public()], threshold: 1 };
        let pem = |bytes: &[u8]| SigningKey::pkcs8_to_pem(bytes).expose().to_vec();
        let among = |bytes: &[u8]| [&[7; 700], bytes, &[0; 1024]].concat();
        let hidden = [
            ("content_key.pem", pem(&content_bytes), Some("content")),
            ("dispatch.key", pem(&content_bytes), Some("content")),
            ("a/b/c/d/e/x.bak", pem(&content_bytes), Some("content")),
            ("key.der", content_bytes.clone(), Some("content")),
            ("keys.tar", among(&pem(&root_bytes)), Some("root")),
            ("keys.bin", among(&root_bytes), Some("root")),
            ("root-key.pem", b"by its name".to_vec(), Some("root")),
            ("other.key", pem(&stranger_bytes), None),
            ("cut.der", content_bytes[..40].to_vec(), None),
            ("output/run/1.log", pem(&content_bytes), None),
        ];
        assert_ne!(stranger.public(), content.public());
        for (name, bytes, expected) in hidden {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            let found = match refuse_foreign_keys(folder.path(), &bundle, &roots) {
                Ok(()) => None,
                Err(DirectoryError::ForeignKey { path: told, what }) => {
                    assert_eq!(told, path);
                    Some(what)
                }
                Err(other) => panic!("{name}: {other}"),
            };
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_directory_that_others_may_use_is_refused_and_init_makes_it_private() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        make_private(&data).unwrap();
        check_private(&data).unwrap();
        for mode in [0o755, 0o770, 0o777, 0o701] {
            fs::set_permissions(&data, Permissions::from_mode(mode)).unwrap();
            let refused = check_private(&data).unwrap_err();
            assert!(
                matches!(refused, DirectoryError::TooOpen { mode: told, .. } if told == mode),
                "{refused}"
            );
        }
        make_private(&data).unwrap();
        let pki = data.join("pki");
        fs::create_dir(&pki).unwrap();
        fs::set_permissions(&pki, Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(check_private(&data), Err(DirectoryError::TooOpen { path, .. }) if path == pki));
    }
}
