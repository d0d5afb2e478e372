//! Parts of an import by what they are of, so that a newer one of one origin replaces that one alone; and several put
//! together again. Pure; for the controller.

use std::collections::btree_map::Entry;

use fleet_types::time::Timestamp;

use super::{AdvisorySet, tracker};

/// What a part is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Documents of OSV.
    Osv,
    /// The security tracker of Debian.
    Tracker,
    /// Scores beside the advisories.
    Scores,
    /// Known exploited.
    Exploited,
    /// Estimates.
    Epss,
}

impl Part {
    /// The word that it is called by.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Osv => "osv",
            Self::Tracker => "debian-tracker",
            Self::Scores => "scores",
            Self::Exploited => "kev",
            Self::Epss => "epss",
        }
    }
}

impl AdvisorySet {
    /// How many entries it has, of whatever kind.
    pub fn entries(&self) -> usize {
        self.advisories.len() + self.scores.len() + self.exploited.len() + self.epss.len()
    }

    /// The newest instant that stands in it: how old it is, whenever it was imported.
    pub fn newest(&self) -> Option<Timestamp> {
        let advisories = self.advisories.values().filter_map(|one| one.modified.max(one.published));
        advisories.chain(self.exploited.values().map(|listed| listed.added)).chain(self.epss_of).max()
    }

    /// Its parts; none of them is empty.
    pub fn split(mut self) -> Vec<(Part, Self)> {
        let of_tracker = |id: &str| id.starts_with(tracker::PREFIX);
        let (tracker, osv) =
            std::mem::take(&mut self.advisories).into_iter().partition(|(id, _)| of_tracker(id));
        let part = |part: Part, set: Self| (part, set);
        let parts = [
            part(Part::Osv, Self { advisories: osv, ..Self::default() }),
            part(Part::Tracker, Self { advisories: tracker, ..Self::default() }),
            part(Part::Scores, Self { scores: self.scores, ..Self::default() }),
            part(Part::Exploited, Self { exploited: self.exploited, ..Self::default() }),
            part(Part::Epss, Self { epss: self.epss, epss_of: self.epss_of, ..Self::default() }),
        ];
        parts.into_iter().filter(|(_, set)| set.entries() > 0).collect()
    }

    /// Adds another. Of one advisory that both have the one that was changed later counts; of all else the first.
    pub fn join(&mut self, other: Self) {
        for (id, advisory) in other.advisories {
            match self.advisories.entry(id) {
                Entry::Vacant(room) => {
                    room.insert(advisory);
                }
                Entry::Occupied(mut there) if there.get().modified < advisory.modified => {
                    there.insert(advisory);
                }
                Entry::Occupied(_) => {}
            }
        }
        self.scores.join(other.scores);
        for (cve, listed) in other.exploited {
            self.exploited.entry(cve).or_insert(listed);
        }
        for (cve, estimate) in other.epss {
            self.epss.entry(cve).or_insert(estimate);
        }
        self.epss_of = self.epss_of.max(other.epss_of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::Importer;

    fn set(files: &[&str]) -> AdvisorySet {
        let mut importer = Importer::default();
        for (number, file) in files.iter().enumerate() {
            importer.file(&number.to_string(), file.as_bytes());
        }
        importer.finish().unwrap().set
    }

    #[test]
    fn an_import_is_split_by_origin_and_put_together_again() {
        let osv = r#"{"id":"A-1","modified":"2024-10-24T00:00:00Z","summary":"old"}"#;
        let newer = r#"{"id":"A-1","modified":"2024-10-25T00:00:00Z","summary":"new"}"#;
        let tracker = r#"{"openssl":{"CVE-2024-3094":{"releases":{"bookworm":{"status":"open"}}}}}"#;
        let kev = r#"{"catalogVersion":"1","count":1,"vulnerabilities":[{"cveID":"CVE-2024-3094","dateAdded":"2024-10-26"}]}"#;
        let epss = "cve,epss,percentile\nCVE-2024-3094,0.1,0.2\n";
        let whole = set(&[osv, tracker, kev, epss]);
        assert_eq!(
            (whole.entries(), whole.newest().unwrap().to_string()),
            (4, "2024-10-26T00:00:00Z".to_owned())
        );
        let parts = whole.clone().split();
        let names: Vec<&str> = parts.iter().map(|(part, _)| part.as_str()).collect();
        assert_eq!(names, ["osv", "debian-tracker", "kev", "epss"]);
        let mut joined = AdvisorySet::default();
        for (_, set) in parts {
            joined.join(set);
        }
        assert_eq!(joined, whole);
        joined.join(set(&[newer]));
        assert_eq!(joined.advisories["A-1"].summary, "new");
        joined.join(set(&[osv]));
        assert_eq!(joined.advisories["A-1"].summary, "new");
    }
}
