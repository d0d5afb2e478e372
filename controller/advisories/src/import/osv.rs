//! A document in the form of OSV (ossf.github.io/osv-schema). Pure; for the importer.

use std::collections::BTreeSet;

use fleet_types::package_version::PackageFormat;
use fleet_types::time::Timestamp;
use serde::Deserialize;

use super::json;
use super::limits::{Limits, MAX_NAME_BYTES, SUMMARY_CHARS};
use super::skipped::Skips;
use crate::advisory::{Advisory, Affected, Cve, Ecosystem, Event, GivenScore, KnownBy, Range};

#[derive(Deserialize)]
struct Document {
    id: String,
    modified: String,
    published: Option<String>,
    withdrawn: Option<String>,
    summary: Option<String>,
    #[serde(default)]
    aliases: Option<Vec<String>>,
    #[serde(default)]
    upstream: Option<Vec<String>>,
    #[serde(default)]
    related: Option<Vec<String>>,
    #[serde(default)]
    severity: Option<Vec<Severity>>,
    #[serde(default)]
    affected: Option<Vec<AffectedPackage>>,
}

#[derive(Deserialize)]
struct Severity {
    #[serde(rename = "type")]
    kind: String,
    score: String,
}

#[derive(Deserialize)]
struct AffectedPackage {
    package: Option<Package>,
    severity: Option<Vec<Severity>>,
    ranges: Option<Vec<RawRange>>,
    versions: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Package {
    ecosystem: String,
    name: String,
}

#[derive(Deserialize)]
struct RawRange {
    #[serde(rename = "type")]
    kind: String,
    events: Vec<RawEvent>,
}

#[derive(Deserialize)]
struct RawEvent {
    introduced: Option<String>,
    fixed: Option<String>,
    last_affected: Option<String>,
    limit: Option<String>,
}

/// Reads one document. An error is about the whole of it; what it has that cannot be used is skipped with its place.
pub(super) fn read(file: &str, bytes: &[u8], limits: &Limits, skips: &mut Skips) -> Result<Advisory, String> {
    if bytes.len() > limits.document_bytes {
        let (has, most) = (bytes.len(), limits.document_bytes);
        return Err(format!("the document has {has} bytes; at most {most} are read"));
    }
    let document: Document = json::read(bytes)?;
    name("id", &document.id)?;
    let mut reader = Reader { file, limits, skips, scores: Vec::new(), vendor_word: None };
    let by = origin(&document.id);
    reader.severities("severity", &by, document.severity.unwrap_or_default());
    let mut affected = Vec::new();
    let packages = document.affected.unwrap_or_default();
    bounded("affected", packages.len(), limits.packages)?;
    for (number, entry) in packages.into_iter().enumerate() {
        affected.extend(reader.affected(&format!("affected[{number}]"), &by, entry)?);
    }
    let Reader { scores, vendor_word, .. } = reader;
    let cves = cves(
        &document.id,
        &[document.aliases.unwrap_or_default(), document.upstream.unwrap_or_default()].concat(),
        &document.related.unwrap_or_default(),
    );
    bounded("aliases", cves.len(), limits.cves)?;
    Ok(Advisory {
        summary: document.summary.unwrap_or_default().chars().take(SUMMARY_CHARS).collect(),
        file: file.to_owned(),
        published: document.published.as_deref().map(|text| time("published", text)).transpose()?,
        modified: Some(time("modified", &document.modified)?),
        withdrawn: document.withdrawn.as_deref().map(|text| time("withdrawn", text)).transpose()?,
        id: document.id,
        cves,
        scores,
        vendor_word,
        affected,
    })
}

/// Origins that name CVEs only as related mean them all the same; where aliases or upstreams are named, those are meant.
fn cves(id: &str, named: &[String], related: &[String]) -> Vec<Cve> {
    let read = |text: &String| text.parse::<Cve>().ok();
    let own = id.parse::<Cve>().ok();
    let named: BTreeSet<Cve> = named.iter().filter_map(read).chain(own).collect();
    if named.is_empty() {
        return related.iter().filter_map(read).collect::<BTreeSet<Cve>>().into_iter().collect();
    }
    named.into_iter().collect()
}

/// Who gives the scores in it: the letters before the first hyphen of its id.
fn origin(id: &str) -> String {
    match id.split('-').next().unwrap_or_default() {
        "BIT" => "bitnami".to_owned(),
        other => other.to_lowercase(),
    }
}

struct Reader<'a> {
    file: &'a str,
    limits: &'a Limits,
    skips: &'a mut Skips,
    scores: Vec<GivenScore>,
    vendor_word: Option<String>,
}

impl Reader<'_> {
    fn severities(&mut self, place: &str, by: &str, severities: Vec<Severity>) {
        for (number, severity) in severities.into_iter().enumerate() {
            if !severity.kind.starts_with("CVSS_V") {
                self.vendor_word.get_or_insert(severity.score.chars().take(MAX_NAME_BYTES).collect());
                continue;
            }
            let given = GivenScore {
                by: by.to_owned(),
                vector: severity.score.chars().take(crate::cvss::MAX_VECTOR_BYTES + 1).collect(),
                stated: None,
            };
            if let Err(error) = given.read() {
                self.skip(&format!("{place}[{number}].score"), error.to_string());
            }
            if !self.scores.contains(&given) {
                self.scores.push(given);
            }
        }
    }

    fn affected(
        &mut self,
        place: &str,
        by: &str,
        entry: AffectedPackage,
    ) -> Result<Option<Affected>, String> {
        self.severities(&format!("{place}.severity"), by, entry.severity.unwrap_or_default());
        let Some(package) = entry.package else {
            self.skip(place, "it names no package, only commits");
            return Ok(None);
        };
        name(&format!("{place}.package.name"), &package.name)?;
        let (distribution, format) = match Ecosystem::read(&package.ecosystem) {
            Ecosystem::Packages(distribution, format) => (distribution, format),
            Ecosystem::Elsewhere => {
                let ecosystem = &package.ecosystem;
                self.skip(
                    place,
                    format!("packages of {ecosystem} are not installed by dpkg or rpm; its scores count"),
                );
                return Ok(None);
            }
            Ecosystem::Unknown(reason) => {
                self.skip(place, reason);
                return Ok(None);
            }
        };
        let mut ranges = Vec::new();
        for (number, range) in entry.ranges.unwrap_or_default().into_iter().enumerate() {
            let place = format!("{place}.ranges[{number}]");
            bounded(&place, range.events.len(), self.limits.versions)?;
            match range.kind.as_str() {
                "ECOSYSTEM" => match events(range.events).and_then(|events| {
                    Range::from_events(events, format).map_err(|problem| problem.to_string())
                }) {
                    Ok(read) => ranges.extend(read),
                    Err(reason) => self.skip(&place, reason),
                },
                "GIT" => self.skip(&place, "a range of commits says nothing about packages"),
                other => {
                    let other: String = other.chars().take(40).collect();
                    self.skip(&place, format!("a range of type {other:?} is not in the order of {format}"));
                }
            }
        }
        let listed = entry.versions.unwrap_or_default();
        bounded(&format!("{place}.versions"), listed.len(), self.limits.versions)?;
        let mut versions = Vec::new();
        for (number, version) in listed.into_iter().enumerate() {
            match format.check(&version) {
                Ok(()) => versions.push(version),
                Err(problem) => self.skip(&format!("{place}.versions[{number}]"), problem.to_string()),
            }
        }
        if ranges.is_empty() && versions.is_empty() {
            self.skip(place, "it says of no version that it is affected");
            return Ok(None);
        }
        let known_by = match format {
            PackageFormat::Dpkg => KnownBy::Source,
            PackageFormat::Rpm => KnownBy::Binary,
        };
        Ok(Some(Affected { distribution, format, package: package.name, known_by, ranges, versions }))
    }

    fn skip(&mut self, place: &str, reason: impl Into<String>) {
        self.skips.add(self.file, place, reason);
    }
}

fn events(events: Vec<RawEvent>) -> Result<Vec<Event>, String> {
    let mut read = Vec::new();
    for event in events {
        match event {
            RawEvent { introduced: Some(version), fixed: None, last_affected: None, limit: None } => {
                read.push(Event::Introduced(version));
            }
            RawEvent { introduced: None, fixed: Some(version), last_affected: None, limit: None } => {
                read.push(Event::Fixed(version));
            }
            RawEvent { introduced: None, fixed: None, last_affected: Some(version), limit: None } => {
                read.push(Event::LastAffected(version));
            }
            // Says how far a tool need look, not what is affected.
            RawEvent { introduced: None, fixed: None, last_affected: None, limit: Some(_) } => {}
            _ => return Err("an event says one of introduced, fixed, last_affected and limit".to_owned()),
        }
    }
    Ok(read)
}

pub(super) fn name(place: &str, text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > MAX_NAME_BYTES {
        return Err(format!("{place} has {} bytes; 1 to {MAX_NAME_BYTES} are read", text.len()));
    }
    // What people are shown, and what keys are made of.
    match text.chars().find(|c| !c.is_ascii_graphic() && *c != ' ') {
        Some(character) => Err(format!("{place} holds the character {character:?}")),
        None => Ok(()),
    }
}

pub(super) fn bounded(place: &str, count: usize, most: usize) -> Result<(), String> {
    if count > most { Err(format!("{place} has {count} entries; at most {most} are read")) } else { Ok(()) }
}

pub(super) fn time(place: &str, text: &str) -> Result<Timestamp, String> {
    let short: String = text.chars().take(40).collect();
    short.parse().map_err(|error: fleet_types::time::TimeError| format!("{place}: {error}"))
}
