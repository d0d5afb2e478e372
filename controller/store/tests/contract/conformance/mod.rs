//! The suite that every backend passes: what the contract says, as code.
//!
//! Each case takes a store, uses keys of its own and panics with what it expected. A backend that was not run through
//! all of them counts as failed: [`suite!`] makes one test of each.

mod committing;
mod fixture;
mod logs;
mod objects;
mod reading;

pub use committing::*;
pub use logs::*;
pub use objects::*;
pub use reading::*;

/// One multi-threaded `#[tokio::test]` for each case, against the store that `$open` makes. `$open` is an expression of a future
/// that gives `(Arc<dyn KvStore>, guard)`; the guard lives until the test ends (a temporary directory, say).
macro_rules! suite {
    ($open:expr) => {
        $crate::conformance::suite!(@cases $open;
            what_was_put_is_read_back, a_deleted_key_is_absent, keys_and_values_are_any_bytes,
            scans_are_ordered_and_paged, scans_run_backwards, scans_stay_inside_their_prefix,
            page_sizes_are_limited, preconditions_decide, a_refused_batch_changes_nothing,
            the_second_create_conflicts, limits_are_kept, a_batch_may_be_as_large_as_its_limits,
            batches_that_contradict_themselves_are_invalid, one_of_many_writers_wins_each_round,
            each_request_of_a_group_passes_or_fails_alone, counting_loses_nothing,
            the_write_id_tells_the_outcome, records_are_numbered_from_zero,
            a_refused_append_uses_no_number, logs_are_contiguous_under_concurrency,
            records_that_cannot_be_made_fail_alone, several_records_in_one_commit,
            objects_of_all_sizes_come_back, damaged_objects_are_named, objects_are_deleted_whole,
            objects_may_become_shorter_and_longer,
        );
    };
    (@cases $open:expr; $($case:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                let (store, _guard) = $open.await;
                $crate::conformance::$case(store.clone()).await;
                store.close().await.expect("a store closes after its test");
            }
        )+
    };
}

pub(crate) use suite;
