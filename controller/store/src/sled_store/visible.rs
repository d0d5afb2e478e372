//! What readers see: durable values only.
//!
//! sled shows a batch as soon as it is applied, before it is on the disk. If somebody acted on such a value and the
//! process died, the act would have no cause. So while a group is on its way to the disk, the values it replaces are
//! held here and shown instead. The lock is taken for writing only to hold back and to reveal, never during a flush;
//! a page is read under one lock and so is consistent in itself.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::commit_plan::Writes;
use crate::contract::Direction;
use crate::scan_range::ScanRange;

/// Sealed bytes of a page with their keys.
pub(crate) type SealedPage = Vec<(Vec<u8>, Vec<u8>)>;

/// The store has been closed.
pub(crate) struct Closed;

/// The tree with the values that are held back.
pub(crate) struct Visible {
    state: RwLock<State>,
}

struct State {
    /// `None` once the store is closed.
    db: Option<sled::Db>,
    /// For each key of the group under way: what it held before.
    held_back: Writes,
}

impl Visible {
    pub(crate) fn new(db: sled::Db) -> Self {
        Self { state: RwLock::new(State { db: Some(db), held_back: Writes::new() }) }
    }

    /// The sealed bytes of a key.
    pub(crate) fn get(&self, key: &[u8]) -> sled::Result<Result<Option<Vec<u8>>, Closed>> {
        let state = self.read();
        let Some(db) = &state.db else { return Ok(Err(Closed)) };
        if let Some(before) = state.held_back.get(key) {
            return Ok(Ok(before.clone()));
        }
        Ok(Ok(db.get(key)?.map(|sealed| sealed.to_vec())))
    }

    /// One page.
    pub(crate) fn page(
        &self,
        range: &ScanRange,
        limit: usize,
        direction: Direction,
    ) -> sled::Result<Result<SealedPage, Closed>> {
        let state = self.read();
        let Some(db) = &state.db else { return Ok(Err(Closed)) };
        let stored = db.range::<&[u8], _>(range.bounds());
        let stored =
            stored.filter(|found| !matches!(found, Ok((key, _)) if state.held_back.contains_key(&**key)));
        let before = state.held_back.range::<[u8], _>(range.bounds());
        let before = before.filter_map(|(key, sealed)| Some((key.clone(), sealed.clone()?)));
        let mut page;
        match direction {
            Direction::Ascending => {
                page = collect(stored.take(limit))?;
                page.extend(before.take(limit));
                page.sort_unstable();
            }
            Direction::Descending => {
                page = collect(stored.rev().take(limit))?;
                page.extend(before.rev().take(limit));
                page.sort_unstable_by(|a, b| b.cmp(a));
            }
        }
        page.truncate(limit);
        Ok(Ok(page))
    }

    /// From now on readers see these values instead of the tree's.
    pub(crate) fn hold_back(&self, before: Writes) {
        self.write().held_back = before;
    }

    /// The group is durable: readers see the tree.
    pub(crate) fn reveal(&self) {
        self.write().held_back = Writes::new();
    }

    /// Takes the tree away; later reads find the store closed.
    pub(crate) fn take(&self) -> Option<sled::Db> {
        self.write().db.take()
    }

    // The state is changed by single assignments only, so a panic of a reader inside sled leaves it whole.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn collect(found: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>) -> sled::Result<SealedPage> {
    found.map(|entry| entry.map(|(key, sealed)| (key.to_vec(), sealed.to_vec()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(visible: &Visible, limit: usize, direction: Direction) -> Vec<String> {
        let range = ScanRange::new(b"k/", None, direction).unwrap();
        let page = visible.page(&range, limit, direction).unwrap().ok().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        page.into_iter().map(|(key, sealed)| format!("{}={}", text(key), text(sealed))).collect()
    }

    #[test]
    fn readers_see_the_state_before_the_group_until_it_is_revealed() {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::open(dir.path()).unwrap();
        for (key, value) in [("k/b", "old"), ("k/c", "old"), ("k/d", "old"), ("l", "old")] {
            db.insert(key, value).unwrap();
        }
        let visible = Visible::new(db.clone());
        let old = |value: &str| Some(value.as_bytes().to_vec());
        visible.hold_back(Writes::from([
            (b"k/a".to_vec(), None),
            (b"k/b".to_vec(), old("old")),
            (b"k/c".to_vec(), old("old")),
            (b"l".to_vec(), old("old")),
        ]));
        db.insert("k/a", "new").unwrap();
        db.insert("k/b", "new").unwrap();
        db.remove("k/c").unwrap();
        db.remove("l").unwrap();

        assert_eq!(visible.get(b"k/a").unwrap().ok().unwrap(), None);
        assert_eq!(visible.get(b"k/b").unwrap().ok().unwrap(), old("old"));
        assert_eq!(visible.get(b"k/c").unwrap().ok().unwrap(), old("old"));
        assert_eq!(page(&visible, 9, Direction::Ascending), ["k/b=old", "k/c=old", "k/d=old"]);
        assert_eq!(page(&visible, 2, Direction::Ascending), ["k/b=old", "k/c=old"]);
        assert_eq!(page(&visible, 2, Direction::Descending), ["k/d=old", "k/c=old"]);

        visible.reveal();
        assert_eq!(visible.get(b"k/c").unwrap().ok().unwrap(), None);
        assert_eq!(page(&visible, 9, Direction::Ascending), ["k/a=new", "k/b=new", "k/d=old"]);
        drop(visible.take());
        assert!(visible.get(b"k/a").unwrap().is_err());
    }
}
