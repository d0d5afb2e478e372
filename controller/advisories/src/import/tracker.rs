//! The security tracker of Debian: source package, CVE, release, and where it is fixed. Pure; for the importer.

use std::collections::BTreeMap;

use fleet_types::package_version::PackageFormat;
use serde::Deserialize;

use super::json::{self, Table};
use super::limits::SUMMARY_CHARS;
use super::osv::name;
use super::skipped::Skips;
use crate::advisory::{Advisory, Affected, Cve, Distribution, Event, KnownBy, Range};

/// What an advisory made of it is called: its ids are CVEs, which other origins have too.
pub(super) const PREFIX: &str = "DEBIAN-TRACKER-";

#[derive(Deserialize)]
struct Issue {
    description: Option<String>,
    releases: Option<Table<Release>>,
}

#[derive(Deserialize)]
struct Release {
    status: String,
    fixed_version: Option<String>,
    urgency: Option<String>,
}

/// Reads the whole tracker: an advisory for each CVE.
pub(super) fn read(file: &str, bytes: &[u8], skips: &mut Skips) -> Result<Vec<Advisory>, String> {
    let packages: Table<Table<Issue>> = json::read(bytes)?;
    let mut advisories: BTreeMap<Cve, Advisory> = BTreeMap::new();
    for (package, issues) in packages.0 {
        name("a package", &package)?;
        for (id, issue) in issues.0 {
            let place = format!("{package} {}", id.chars().take(40).collect::<String>());
            let Ok(cve) = id.parse::<Cve>() else {
                skips.add(file, &place, "it has no CVE id yet");
                continue;
            };
            let advisory = advisories.entry(cve).or_insert_with(|| Advisory {
                id: format!("{PREFIX}{cve}"),
                cves: vec![cve],
                summary: issue.description.unwrap_or_default().chars().take(SUMMARY_CHARS).collect(),
                file: file.to_owned(),
                published: None,
                modified: None,
                withdrawn: None,
                scores: Vec::new(),
                vendor_word: None,
                affected: Vec::new(),
            });
            for (code_name, release) in issue.releases.map_or_else(Vec::new, |releases| releases.0) {
                let place = format!("{place} {}", code_name.chars().take(40).collect::<String>());
                match affected(&package, &code_name, &release) {
                    Ok(Some(affected)) => {
                        advisory.affected.push(affected);
                        if let Some(urgency) = release.urgency {
                            advisory.vendor_word.get_or_insert(urgency.chars().take(40).collect());
                        }
                    }
                    // Fixed before the release came out, or never in it.
                    Ok(None) => {}
                    Err(reason) => skips.add(file, &place, reason),
                }
            }
        }
    }
    Ok(advisories.into_values().collect())
}

fn affected(package: &str, code_name: &str, release: &Release) -> Result<Option<Affected>, String> {
    let distribution = Distribution::of_debian(code_name).ok_or_else(|| {
        format!("release {:?} is not known", code_name.chars().take(40).collect::<String>())
    })?;
    let mut events = vec![Event::Introduced("0".to_owned())];
    match (release.status.as_str(), release.fixed_version.as_deref()) {
        // The tracker's word for "not affected".
        ("resolved", Some("0")) => return Ok(None),
        ("resolved", Some(version)) => events.push(Event::Fixed(version.to_owned())),
        ("resolved", None) => return Err("it is resolved, and no version is named".to_owned()),
        ("open", _) => {}
        ("undetermined", _) => return Err("whether it is affected is not determined yet".to_owned()),
        (other, _) => {
            return Err(format!("status {:?} is not known", other.chars().take(40).collect::<String>()));
        }
    }
    let format = PackageFormat::Dpkg;
    let ranges = Range::from_events(events, format).map_err(|problem| problem.to_string())?;
    let package = package.to_owned();
    Ok(Some(Affected {
        distribution,
        format,
        package,
        known_by: KnownBy::Source,
        ranges,
        versions: Vec::new(),
    }))
}
