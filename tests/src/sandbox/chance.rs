//! Moments and victims that can be had again: a small generator (`SplitMix64`, Steele et al. 2014) with a seed.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// Names the seed of a storm that is to be played again.
pub const SEED_VARIABLE: &str = "FLEET_STORM_SEED";

/// The generator.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// With the seed of the variable, else with a new one; says which.
    pub fn new() -> Result<Self> {
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(text) => text.parse().with_context(|| format!("{SEED_VARIABLE}={text} is no number"))?,
            Err(_) => u64::from(uuid::Uuid::new_v4().as_fields().0),
        };
        eprintln!("again: {SEED_VARIABLE}={seed}");
        Ok(Self(seed))
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The remainder is below a usize.
        usize::try_from((z ^ (z >> 31)) % (end as u64)).unwrap_or(0)
    }

    /// A time below `end`.
    pub fn time(&mut self, end: Duration) -> Duration {
        let millis = self.below(usize::try_from(end.as_millis()).unwrap_or(usize::MAX));
        Duration::from_millis(millis as u64)
    }
}
