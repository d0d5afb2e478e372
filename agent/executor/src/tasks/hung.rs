//! Looks of health checks that went over their limit and have not ended yet: a check is not started again beside one.
//!
//! Kept for the whole process, because several jobs may look at the same check. A look lives as long as its thread holds
//! its token, in whatever way that ends. Called by `health.check`.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Held by the thread of a look.
pub(super) type Token = Arc<()>;

/// Those that nobody waits for any longer, by node and check; as many as there are threads that hang.
static HUNG: Mutex<Vec<(String, Weak<()>)>> = Mutex::new(Vec::new());

/// Does a look of this check hang?
pub(super) fn is_hung(check: &str) -> bool {
    let mut hung = HUNG.lock().unwrap_or_else(PoisonError::into_inner);
    hung.retain(|(_, look)| look.strong_count() > 0);
    hung.iter().any(|(of, _)| of == check)
}

/// Nobody waits for this look any longer: it hangs until its thread ends.
pub(super) fn overran(check: String, look: Weak<()>) {
    HUNG.lock().unwrap_or_else(PoisonError::into_inner).push((check, look));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_hangs_until_the_last_of_its_looks_that_overran_is_back() {
        let (one, two, in_time) = (Token::default(), Token::default(), Token::default());
        let check = "a node/a check of this test";
        overran(check.to_owned(), Arc::downgrade(&one));
        overran(check.to_owned(), Arc::downgrade(&two));
        drop(in_time);
        assert!(is_hung(check), "one that came back in time says nothing of the others");
        let broke = std::thread::spawn(move || {
            assert_eq!(Token::strong_count(&one), 2, "of its own: it breaks off here, with the token");
        });
        assert!(broke.join().is_err());
        assert!(is_hung(check) && !is_hung("another"));
        let back = Arc::downgrade(&two);
        drop(two);
        assert!(!is_hung(check));
        overran(check.to_owned(), back);
        assert!(!is_hung(check), "it is back");
    }
}
