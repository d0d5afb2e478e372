//! The memory store under the suite of all backends.

use std::sync::Arc;

use fleet_store::{KvStore, MemoryStore};

fn open() -> std::future::Ready<(Arc<dyn KvStore>, ())> {
    std::future::ready((Arc::new(MemoryStore::new()), ()))
}

crate::conformance::suite!(open());
