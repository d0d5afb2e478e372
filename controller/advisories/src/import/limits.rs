//! How much of everything an import reads. Pure; for the importer.

/// Bounds of an import. What goes past one is refused by name, never cut in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file. The tracker of Debian has 70 MiB.
    pub file_bytes: usize,
    /// Bytes of one document of OSV. The largest of a kernel have 3 MiB.
    pub document_bytes: usize,
    /// Bytes of all files, unpacked. OSV's Debian archive has 400 MiB.
    pub total_bytes: usize,
    /// Files, those within archives counted. OSV's Debian archive has 50,000.
    pub files: usize,
    /// Advisories in all.
    pub advisories: usize,
    /// Packages of one advisory. Those of a Red Hat kernel have some hundred.
    pub packages: usize,
    /// Events of one range, and versions that are listed one by one. Ubuntu lists some thousand of its kernel.
    pub versions: usize,
    /// CVEs of one advisory. A kernel update names up to a thousand.
    pub cves: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 256 << 20,
            document_bytes: 16 << 20,
            total_bytes: 1 << 30,
            files: 500_000,
            advisories: 500_000,
            packages: 20_000,
            versions: 20_000,
            cves: 10_000,
        }
    }
}

/// Bytes of a name: an id, a package. The longest package of Debian has 70.
pub(super) const MAX_NAME_BYTES: usize = 128;
/// Characters of a summary that are kept.
pub(super) const SUMMARY_CHARS: usize = 200;
