//! What a process holds in memory, from the kernel's own sums (proc(5), `smaps_rollup`).

use anyhow::{Context as _, Result};

/// Proportional set size of a process in bytes.
pub fn pss_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss in smaps_rollup")?;
    let kibibytes = line.trim().trim_end_matches("kB").trim();
    Ok(kibibytes.parse::<u64>().context("Pss is no number")? * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_holds_something() {
        let own = super::pss_bytes(std::process::id()).unwrap();
        assert!((1 << 20..1 << 32).contains(&own), "{own}");
    }
}
