//! Several scores of one CVE, each with its source, and the one that counts. Pure; anyone may call it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Cve;
use crate::cvss::{self, Score, Scored};

/// A score as somebody gave it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenScore {
    /// Who: `cna` (the assigner), `adp`, or the origin of the advisory.
    pub by: String,
    /// The vector as written; it may be none that a version accepts.
    pub vector: String,
    /// The number that was stated beside it.
    pub stated: Option<Score>,
}

impl GivenScore {
    /// What the vector says. The stated number is never taken instead: it may be another version's, or a mistake.
    pub fn read(&self) -> Result<Scored, cvss::BadVector> {
        cvss::score(&self.vector)
    }
}

/// All scores by CVE.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CveScores(BTreeMap<Cve, Vec<GivenScore>>);

impl CveScores {
    /// Adds one; what is there already is not doubled.
    pub fn add(&mut self, cve: Cve, score: GivenScore) {
        let scores = self.0.entry(cve).or_default();
        if let Err(place) = scores.binary_search(&score) {
            scores.insert(place, score);
        }
    }

    /// Adds all of another.
    pub fn join(&mut self, other: Self) {
        for (cve, scores) in other.0 {
            for score in scores {
                self.add(cve, score);
            }
        }
    }

    /// All that are known of this CVE.
    pub fn of(&self, cve: Cve) -> &[GivenScore] {
        self.0.get(&cve).map_or(&[], Vec::as_slice)
    }

    /// How many CVEs have one.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one that counts among these: see [`counting`].
    pub fn counting<'a>(
        &'a self,
        own: &'a [GivenScore],
        cves: &'a [Cve],
    ) -> Option<(&'a GivenScore, Scored)> {
        counting(own.iter().chain(cves.iter().flat_map(|cve| self.of(*cve))))
    }
}

/// The score that counts is the highest that a vector gives, whoever gave it: too early is better than too late. Among
/// equals the newest version of CVSS, then the first source by name. Vectors that no version accepts do not count; where
/// none is left, the score is unknown.
fn counting<'a>(scores: impl Iterator<Item = &'a GivenScore>) -> Option<(&'a GivenScore, Scored)> {
    scores.filter_map(|given| given.read().ok().map(|scored| (given, scored))).max_by(
        |(a, read_a), (b, read_b)| {
            read_a
                .score
                .cmp(&read_b.score)
                .then(read_a.version.cmp(&read_b.version))
                .then_with(|| b.by.cmp(&a.by))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(by: &str, vector: &str, stated: &str) -> GivenScore {
        GivenScore { by: by.to_owned(), vector: vector.to_owned(), stated: stated.parse().ok() }
    }

    #[test]
    fn the_highest_vector_counts_and_never_the_stated_number() {
        let cve: Cve = "CVE-2024-3094".parse().unwrap();
        let mut scores = CveScores::default();
        assert_eq!(scores.counting(&[], &[cve]), None);
        scores.add(cve, given("cna", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:X", "10.0"));
        assert_eq!(scores.counting(&[], &[cve]), None, "a vector that cannot be read is no score");
        scores.add(cve, given("cna", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:L/I:N/A:N", "9.9"));
        scores.add(cve, given("adp", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", ""));
        scores.add(cve, given("adp", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", ""));
        assert_eq!(scores.of(cve).len(), 3);
        let cves = [cve];
        let (by, read) = scores.counting(&[], &cves).unwrap();
        assert_eq!((by.by.as_str(), read.score.to_string().as_str()), ("adp", "9.8"));
        let own = [given("osv", "CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", "")];
        assert_eq!(scores.counting(&own, &cves).unwrap().0.by, "osv");
    }
}
