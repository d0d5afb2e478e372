//! A URL becomes a store.
//!
//! The controller's configuration names the store by URL; a backend that this build lacks says so by name.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::contract::KvStore;
use crate::error::StoreError;
use crate::memory_store::MemoryStore;
use crate::sled_store::open_with_probe;

/// Opens the store of a URL: `memory:` (kept nowhere) or `sled:/absolute/path`. `probe_command` is for sled, see
/// [`open_with_probe`].
pub async fn open(url: &str, probe_command: Option<Command>) -> Result<Arc<dyn KvStore>, StoreError> {
    let invalid = |reason: String| Err(StoreError::Invalid { reason });
    let Some((scheme, rest)) = url.split_once(':') else {
        return invalid(format!("store URL {url:?} has no scheme; write memory: or sled:/path"));
    };
    match scheme {
        "memory" if rest.is_empty() => Ok(Arc::new(MemoryStore::new())),
        "memory" => {
            invalid(format!("store URL {url:?} has a path; a store in memory has none, write memory:"))
        }
        "sled" => {
            let path = Path::new(rest.strip_prefix("//").unwrap_or(rest));
            if !path.is_absolute() {
                return invalid(format!(
                    "store URL {url:?} needs an absolute path, such as sled:/var/lib/fleet/store"
                ));
            }
            Ok(open_with_probe(path, probe_command).await?)
        }
        // The rest of the URL may hold a password and is not repeated.
        "postgres" | "postgresql" => invalid(
            "this build has no PostgreSQL backend yet; write sled:/path for one controller with a local disk"
                .to_owned(),
        ),
        _ => invalid(format!("store URL scheme {scheme:?} is not known; write memory: or sled:/path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refusal(url: &str) -> String {
        open(url, None).await.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn urls_that_cannot_be_opened_say_why() {
        for (url, word) in [
            ("", "no scheme"),
            ("/var/lib/fleet", "no scheme"),
            ("memory:/x", "has a path"),
            ("sled:relative", "absolute path"),
            ("sled:", "absolute path"),
            ("postgres://user:secret@db/fleet", "no PostgreSQL backend"),
            ("postgresql:x", "no PostgreSQL backend"),
            ("redis:x", "\"redis\" is not known"),
        ] {
            let text = refusal(url).await;
            assert!(text.contains(word), "{url}: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[tokio::test]
    async fn known_urls_open() {
        open("memory:", None).await.unwrap().ping().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        for url in [format!("sled:{}/a", dir.path().display()), format!("sled://{}/b", dir.path().display())]
        {
            let store = open(&url, None).await.unwrap();
            store.ping().await.unwrap();
            store.close().await.unwrap();
        }
    }
}
