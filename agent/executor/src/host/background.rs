//! Work that must not be felt: on a thread of its own with the lowest priority. Called by tasks that read and
//! compress much.

/// Lowest priority for the processor; the schedulers of disks derive theirs from it (`ioprio_set(2)`).
const LOWEST: i32 = 19;

/// Does the work and waits for it. Threads that it starts are as low.
pub fn in_background<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Of this thread alone. Where it cannot be lowered the work is still to be done.
            if let Err(error) = rustix::process::setpriority_process(None, LOWEST) {
                tracing::debug!(%error, "work in the background keeps its priority");
            }
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_work_is_low() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let before = priority();
        assert_eq!(in_background(priority), LOWEST);
        assert_eq!(priority(), before);
    }
}
