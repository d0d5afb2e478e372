//! Looks of health checks that went over their limit and have not ended yet: a check is not started again beside one.
//!
//! Counted for the whole process, because several jobs may look at the same check. Called by `health.check`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many hang, by node and check.
static HUNG: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

fn hung() -> MutexGuard<'static, BTreeMap<String, usize>> {
    HUNG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does a look of this check hang?
pub(super) fn is_hung(check: &str) -> bool {
    hung().contains_key(check)
}

/// One look, held by whoever waits for it.
pub(super) struct Look {
    check: String,
    state: Mutex<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Under,
    Hung,
    Back,
}

impl Look {
    /// A look that begins, and what its thread holds until it ends.
    pub(super) fn begin(check: String) -> (Arc<Self>, ComesBack) {
        let look = Arc::new(Self { check, state: Mutex::new(State::Under) });
        (Arc::clone(&look), ComesBack(look))
    }

    /// Nobody waits for it any longer: it hangs until its thread ends.
    pub(super) fn overran(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Under {
            *state = State::Hung;
            *hung().entry(self.check.clone()).or_default() += 1;
        }
    }
}

/// Ends with the thread of a look, in whatever way that ends.
pub(super) struct ComesBack(Arc<Look>);

impl Drop for ComesBack {
    fn drop(&mut self) {
        let Look { check, state } = &*self.0;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Hung {
            let mut hung = hung();
            if let Some(count) = hung.get_mut(check) {
                *count -= 1;
            }
            hung.retain(|_, count| *count > 0);
        }
        *state = State::Back;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_hangs_until_the_last_of_its_looks_that_overran_is_back() {
        let begin = || Look::begin("a node/a check of this test".to_owned());
        let ((first, one), (second, two), (_in_time, three)) = (begin(), begin(), begin());
        let hangs = || is_hung(&first.check);
        first.overran();
        second.overran();
        drop(three);
        assert!(hangs(), "one that came back in time says nothing of the others");
        let broke = std::thread::spawn(move || {
            let _back = one;
            panic!("of its own");
        });
        assert!(broke.join().is_err());
        assert!(hangs());
        drop(two);
        assert!(!hangs());
        second.overran();
        assert!(!hangs(), "it is back");
    }
}
