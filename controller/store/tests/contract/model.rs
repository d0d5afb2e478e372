//! Random histories on memory and sled at once, against a model of a few lines that knows only the contract.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::keys::{fresh_write_id, key};
use fleet_store::{
    Batch, Direction, Key, KvStore, LogName, MemoryStore, SledSettings, SledStore, StoreError, WriteId,
};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

/// What a batch says about one key.
#[derive(Debug, Clone)]
enum Word {
    Put(u8),
    Delete,
    Create(u8),
    ReplaceSeen(u8),
    ReplaceStale(u8),
    Untouched,
}

#[derive(Debug, Clone)]
enum Step {
    /// A word on each of six keys, and records to append to the two logs.
    Commit(Vec<Word>, Vec<bool>),
    Scan {
        after: usize,
        limit: usize,
        is_ascending: bool,
    },
    Reopen,
}

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        2 => any::<u8>().prop_map(Word::Put),
        2 => Just(Word::Delete),
        2 => any::<u8>().prop_map(Word::Create),
        2 => any::<u8>().prop_map(Word::ReplaceSeen),
        1 => any::<u8>().prop_map(Word::ReplaceStale),
        12 => Just(Word::Untouched),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (vec(word(), 6), vec(any::<bool>(), 0..3)).prop_map(|(words, logs)| Step::Commit(words, logs)),
        6 => (0..6_usize, 1..5_usize, any::<bool>())
            .prop_map(|(after, limit, is_ascending)| Step::Scan { after, limit, is_ascending }),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    keys: BTreeMap<Key, (WriteId, Vec<u8>)>,
    logs: [Vec<WriteId>; 2],
}

fn key_of(number: usize) -> Key {
    key(format!("k/{number}"))
}

fn log_of(is_second: bool) -> LogName {
    LogName::new(if is_second { "log-b" } else { "log-a" }).unwrap()
}

impl Model {
    /// The batch of a step as each store gets it; built anew for each, because a batch is used up.
    fn batch(&self, id: WriteId, words: &[Word], logs: &[bool]) -> Batch {
        let stale = WriteId::from_bytes([0xee; 16]);
        let mut batch = Batch::new(id);
        for (number, word) in words.iter().enumerate() {
            let k = key_of(number);
            let seen = self.keys.get(&k).map_or(stale, |(seen, _)| *seen);
            batch = match word {
                Word::Put(value) => batch.put(k, [*value]),
                Word::Delete => batch.delete(k),
                Word::Create(value) => batch.create(k, [*value]),
                Word::ReplaceSeen(value) => batch.replace(k, seen, [*value]),
                Word::ReplaceStale(value) => batch.replace(k, stale, [*value]),
                Word::Untouched => batch,
            };
        }
        logs.iter().fold(batch, |batch, is_second| {
            batch.append(log_of(*is_second), |index| index.to_string().into_bytes())
        })
    }

    /// What the contract says must come of it: the indices, or nothing.
    fn apply(&mut self, id: WriteId, words: &[Word], logs: &[bool]) -> Option<Vec<u64>> {
        let is_empty = logs.is_empty() && words.iter().all(|word| matches!(word, Word::Untouched));
        let fails = |(number, word): (usize, &Word)| match word {
            Word::Create(_) => self.keys.contains_key(&key_of(number)),
            Word::ReplaceSeen(_) => !self.keys.contains_key(&key_of(number)),
            Word::ReplaceStale(_) => true,
            _ => false,
        };
        if is_empty || words.iter().enumerate().any(fails) {
            return None;
        }
        for (number, word) in words.iter().enumerate() {
            match word {
                Word::Put(value) | Word::Create(value) | Word::ReplaceSeen(value) => {
                    self.keys.insert(key_of(number), (id, vec![*value]));
                }
                Word::Delete => {
                    self.keys.remove(&key_of(number));
                }
                Word::ReplaceStale(_) | Word::Untouched => {}
            }
        }
        let mut indices = Vec::new();
        for is_second in logs {
            let log = &mut self.logs[usize::from(*is_second)];
            indices.push(log.len() as u64);
            log.push(id);
        }
        Some(indices)
    }

    fn page(&self, after: &Key, limit: usize, is_ascending: bool) -> Vec<(Key, WriteId)> {
        let ids = |(key, (id, _)): (&Key, &(WriteId, Vec<u8>))| (key.clone(), *id);
        if is_ascending {
            self.keys.iter().filter(|(key, _)| *key > after).map(ids).take(limit).collect()
        } else {
            self.keys.iter().rev().filter(|(key, _)| *key < after).map(ids).take(limit).collect()
        }
    }
}

async fn check_everything(model: &Model, store: &dyn KvStore) {
    let page = store.scan(b"k/", None, 1000, Direction::Ascending).await.unwrap();
    let stored: BTreeMap<_, _> =
        page.into_iter().map(|(key, entry)| (key, (entry.write_id, entry.value))).collect();
    assert_eq!(stored, model.keys);
    for (is_second, expected) in [false, true].into_iter().zip(&model.logs) {
        let log = log_of(is_second);
        assert_eq!(store.log_len(&log).await.unwrap(), expected.len() as u64);
        let page = store.scan(&log.record_prefix(), None, 1000, Direction::Ascending).await.unwrap();
        let ids: Vec<WriteId> = page.iter().map(|(_, entry)| entry.write_id).collect();
        assert_eq!(&ids, expected);
        for (index, (record_key, entry)) in (0..).zip(&page) {
            assert_eq!(log.index_of(record_key), Some(index));
            assert_eq!(entry.value, index.to_string().into_bytes());
        }
    }
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let open = || SledStore::open(SledSettings::new(dir.path()));
    let memory: Arc<dyn KvStore> = Arc::new(MemoryStore::new());
    let mut sled: Arc<dyn KvStore> = open().await.unwrap();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Commit(words, logs) => {
                let id = fresh_write_id();
                let in_memory = memory.commit(model.batch(id, &words, &logs)).await;
                let in_sled = sled.commit(model.batch(id, &words, &logs)).await;
                assert_eq!(in_memory, in_sled);
                let expected = model.apply(id, &words, &logs);
                assert_eq!(in_sled.as_ref().ok().map(|committed| &committed.appended), expected.as_ref());
                if let Err(error) = in_sled {
                    assert!(
                        matches!(error, StoreError::Conflict { .. } | StoreError::Invalid { .. }),
                        "{error}"
                    );
                }
            }
            Step::Scan { after, limit, is_ascending } => {
                let direction = if is_ascending { Direction::Ascending } else { Direction::Descending };
                for store in [&memory, &sled] {
                    let page = store.scan(b"k/", Some(&key_of(after)), limit, direction).await.unwrap();
                    let found: Vec<_> = page.into_iter().map(|(key, entry)| (key, entry.write_id)).collect();
                    assert_eq!(found, model.page(&key_of(after), limit, is_ascending));
                }
            }
            Step::Reopen => {
                sled.close().await.unwrap();
                sled = open().await.unwrap();
            }
        }
    }
    check_everything(&model, &*memory).await;
    check_everything(&model, &*sled).await;
    sled.close().await.unwrap();
}

proptest! {
    // 48 histories of up to 40 steps: a few seconds on a disk with real syncs.
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_sled_do_what_the_contract_says(steps in vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
