//! One import: files in, a set out, or what is wrong with them. Pure; called by whoever read the files.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::kind::Kind;
use super::skipped::{Skipped, Skips};
use super::{Epss, Exploited, Limits, epss, exploited, osv, score_lines, tracker, unpack};
use crate::advisory::{Advisory, Cve, CveScores, GivenScore};
use crate::cvss::Scored;

/// Broken files that are told of; who mends these sees the others next time.
const MAX_REFUSALS: usize = 50;

/// All that is known of what is published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdvisorySet {
    /// By id.
    pub advisories: BTreeMap<String, Advisory>,
    /// Scores that came beside them.
    pub scores: CveScores,
    /// Known to be exploited.
    pub exploited: BTreeMap<Cve, Exploited>,
    /// Estimates.
    pub epss: BTreeMap<Cve, Epss>,
    /// The day that the estimates are of.
    pub epss_of: Option<Timestamp>,
}

/// A file that broke the import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its name; that of one in an archive behind the archive's, with an exclamation mark between.
    pub file: String,
    /// What is wrong, with its place.
    pub reason: String,
}

/// An import that did not come about: nothing of it counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} file(s) cannot be read, so nothing was imported", .0.len())]
pub struct Refused(pub Vec<Refusal>);

/// An import that came about.
#[derive(Debug)]
pub struct Imported {
    /// The set.
    pub set: AdvisorySet,
    /// What was read and not used.
    pub skipped: Vec<Skipped>,
    /// How many files were read, those in archives counted.
    pub files: usize,
}

/// The files of one import.
#[derive(Debug)]
pub struct Importer {
    limits: Limits,
    set: AdvisorySet,
    skips: Skips,
    refusals: Vec<Refusal>,
    files: usize,
    bytes_left: usize,
}

impl Default for Importer {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Importer {
    /// Nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            set: AdvisorySet::default(),
            skips: Skips::default(),
            refusals: Vec::new(),
            files: 0,
            bytes_left: limits.total_bytes,
        }
    }

    /// Reads a file, whatever it is. What is wrong with it is told at the end, together with all others.
    pub fn file(&mut self, name: &str, bytes: &[u8]) {
        if self.refusals.len() >= MAX_REFUSALS {
            return;
        }
        let Some(left) = self.bytes_left.checked_sub(bytes.len()) else {
            let most = self.limits.total_bytes;
            return self.refuse(name, format!("with it the import has more than {most} bytes"));
        };
        self.bytes_left = left;
        if let Err(reason) = self.read(name, bytes, true) {
            self.refuse(name, reason);
        }
    }

    /// The set, or all that was wrong.
    pub fn finish(mut self) -> Result<Imported, Refused> {
        if self.files == 0 && self.refusals.is_empty() {
            self.refuse("", "there is no file to import".to_owned());
        }
        if self.refusals.is_empty() {
            Ok(Imported { set: self.set, skipped: self.skips.into_list(), files: self.files })
        } else {
            Err(Refused(self.refusals))
        }
    }

    fn refuse(&mut self, name: &str, reason: String) {
        self.refusals.push(Refusal { file: name.to_owned(), reason });
    }

    fn read(&mut self, name: &str, bytes: &[u8], may_unpack: bool) -> Result<(), String> {
        self.files += 1;
        if self.files > self.limits.files {
            return Err(format!("the import has more than {} files", self.limits.files));
        }
        if bytes.len() > self.limits.file_bytes {
            return Err(format!("it has {} bytes; at most {} are read", bytes.len(), self.limits.file_bytes));
        }
        match Kind::of(bytes)? {
            Kind::Zip | Kind::Gzip if !may_unpack => {
                Err("an archive within an archive is not read".to_owned())
            }
            Kind::Zip => self.zip(name, bytes),
            Kind::Gzip => {
                let content = unpack::gzip(bytes, self.limits.file_bytes, &mut self.bytes_left)?;
                self.read(name, &content, false)
            }
            Kind::Osv => {
                let advisory = osv::read(name, bytes, &self.limits, &mut self.skips)?;
                self.add(name, advisory)
            }
            Kind::Tracker => {
                for advisory in tracker::read(name, bytes, &mut self.skips)? {
                    self.add(name, advisory)?;
                }
                Ok(())
            }
            Kind::Exploited => {
                let listed = exploited::read(bytes)?;
                insert_once(&mut self.set.exploited, listed)
            }
            Kind::Epss => {
                let (of, estimates) = epss::read(bytes)?;
                self.set.epss_of = of.or(self.set.epss_of);
                insert_once(&mut self.set.epss, estimates)
            }
            Kind::ScoreLines => {
                for (cve, score) in score_lines::read(name, bytes, &mut self.skips)? {
                    self.set.scores.add(cve, score);
                }
                Ok(())
            }
        }
    }

    fn zip(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let (mut left, most) = (self.bytes_left, self.limits.file_bytes);
        let read = unpack::zip(bytes, most, &mut left, &mut |entry, content| {
            let name = format!("{name}!{entry}");
            if let Err(reason) = self.read(&name, content, false) {
                self.refuse(&name, reason);
            }
            if self.refusals.len() < MAX_REFUSALS {
                Ok(())
            } else {
                Err("too much is wrong in it".to_owned())
            }
        });
        self.bytes_left = left;
        read
    }

    /// Takes an advisory. The same one twice is one; of two forms the one that was changed later counts.
    fn add(&mut self, file: &str, advisory: Advisory) -> Result<(), String> {
        if self.set.advisories.len() >= self.limits.advisories {
            return Err(format!("the import has more than {} advisories", self.limits.advisories));
        }
        let mut there = match self.set.advisories.entry(advisory.id.clone()) {
            Entry::Vacant(room) => {
                room.insert(advisory);
                return Ok(());
            }
            Entry::Occupied(there) => there,
        };
        let former = there.get_mut();
        let same = Advisory { file: former.file.clone(), ..advisory.clone() } == *former;
        let reason = match advisory.modified.cmp(&former.modified) {
            _ if same => "the same advisory is there twice",
            std::cmp::Ordering::Equal => {
                let Advisory { id, file, .. } = former;
                return Err(format!(
                    "{id} contradicts {file}: both were modified at the same time, and they differ"
                ));
            }
            std::cmp::Ordering::Less => "a later form of the same advisory is there",
            std::cmp::Ordering::Greater => {
                *former = advisory;
                "a later form of the same advisory is there"
            }
        };
        self.skips.add(file, &there.get().id.clone(), reason);
        Ok(())
    }
}

impl AdvisorySet {
    /// The score of an advisory that counts, and whose it is. None: unknown.
    pub fn score_of<'a>(&'a self, advisory: &'a Advisory) -> Option<(&'a GivenScore, Scored)> {
        self.scores.counting(&advisory.scores, &advisory.cves)
    }

    /// The first of its CVEs that is known to be exploited.
    pub fn exploited_of(&self, advisory: &Advisory) -> Option<(Cve, &Exploited)> {
        advisory.cves.iter().find_map(|cve| self.exploited.get(cve).map(|listed| (*cve, listed)))
    }
}

/// Takes entries. The same one twice is one; two that differ contradict each other.
fn insert_once<V: PartialEq>(into: &mut BTreeMap<Cve, V>, entries: Vec<(Cve, V)>) -> Result<(), String> {
    for (cve, value) in entries {
        match into.entry(cve) {
            Entry::Vacant(room) => {
                room.insert(value);
            }
            Entry::Occupied(there) if *there.get() == value => {}
            Entry::Occupied(_) => return Err(format!("{cve} is there twice, and the two differ")),
        }
    }
    Ok(())
}
