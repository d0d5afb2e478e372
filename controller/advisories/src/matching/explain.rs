//! Why a finding matched, in words: what was compared with what, and what would end it. Pure.

use super::finding::{Finding, Standing};
use crate::advisory::{End, KnownBy, Range};

impl Finding<'_> {
    /// The reason, one line.
    pub fn why(&self) -> String {
        let Self { affected, package, version, .. } = self;
        let what = match affected.known_by {
            KnownBy::Source => format!("{} is built from source {}", package.name, affected.package),
            KnownBy::Binary => format!("{} is installed", package.name),
        };
        let compared = match self.standing {
            Standing::ServicesRunOldFiles { running } => running,
            _ => version,
        };
        let range = affected.ranges.iter().find(|range| range.holds(compared, affected.format));
        let holds = range.map_or_else(
            || format!("{compared} is one of the versions that it lists"),
            |range| bounds(compared, range),
        );
        format!("{what}; {holds}, in the order of {} for {}", affected.format, affected.distribution)
    }

    /// How it stands, one line.
    pub fn stands(&self) -> String {
        match self.standing {
            Standing::ServicesRunOldFiles { running } => {
                format!("fixed in {}; services still run the old file of {running}", self.version)
            }
            Standing::RebootPending { installed } => {
                format!("fixed, reboot pending: {installed} is installed, {} runs", self.version)
            }
            Standing::FixInArchive { available } => {
                format!("a fix is in this node's archive: {} from {}", available.version, available.origin)
            }
            Standing::FixNotInArchive { fixed } if !self.archives_known => {
                format!("fixed in {fixed}; whether this node's archives have that is not known")
            }
            Standing::FixNotInArchive { fixed } => {
                format!("fixed in {fixed}, which this node's archives do not have")
            }
            Standing::NoFix => "no fix is known yet".to_owned(),
        }
    }
}

fn bounds(version: &str, range: &Range) -> String {
    let from = range.introduced.as_ref().map(|from| format!("is not before {from}, where it began, and "));
    let from = from.unwrap_or_default();
    match &range.end {
        End::Fixed(fixed) => format!("{version} {from}is before {fixed}, where it is fixed"),
        End::LastAffected(last) => format!("{version} {from}is not after {last}, the last that is affected"),
        End::Open => format!("{version} {from}is affected, and no version is named that is not"),
    }
}
