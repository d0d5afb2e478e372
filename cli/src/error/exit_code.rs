//! Exit codes: the table of the user documentation, frozen by a test below. A code is never reused.

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// Done, or nothing to do.
    Done = 0,
    /// Unexpected failure.
    Unexpected = 1,
    /// Usage: arguments or files that cannot be understood, invalid documents included.
    Usage = 2,
    /// Partly: some nodes failed.
    Partly = 3,
    /// Not found, or no node matched.
    NotFound = 4,
    /// Confirmation needed or refused; nothing was done.
    Confirmation = 5,
    /// Blocked by a gate, window, policy or sign-off.
    Blocked = 6,
    /// The run failed, was aborted or rolled back.
    RunFailed = 7,
    /// Timed out waiting; the work goes on.
    TimedOut = 8,
    /// The controller cannot be reached.
    NotReachable = 9,
    /// Not signed in, expired, not allowed.
    NotAllowed = 10,
    /// Conflict or stale plan.
    Conflict = 11,
    /// Verification failed: audit, signature, backup.
    Verification = 12,
    /// Differences found, only with `--detailed-exitcode` or `config fmt --check`.
    Differences = 20,
    /// Interrupted.
    Interrupted = 130,
}

impl ExitCode {
    /// All codes.
    pub const ALL: [Self; 15] = [
        Self::Done,
        Self::Unexpected,
        Self::Usage,
        Self::Partly,
        Self::NotFound,
        Self::Confirmation,
        Self::Blocked,
        Self::RunFailed,
        Self::TimedOut,
        Self::NotReachable,
        Self::NotAllowed,
        Self::Conflict,
        Self::Verification,
        Self::Differences,
        Self::Interrupted,
    ];

    /// The number that the process exits with.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_frozen() {
        let table: Vec<_> = ExitCode::ALL.iter().map(|code| format!("{} {code:?}", code.number())).collect();
        assert_eq!(
            table.join("\n"),
            "0 Done\n1 Unexpected\n2 Usage\n3 Partly\n4 NotFound\n5 Confirmation\n6 Blocked\n7 RunFailed\n\
             8 TimedOut\n9 NotReachable\n10 NotAllowed\n11 Conflict\n12 Verification\n20 Differences\n\
             130 Interrupted"
        );
    }
}
