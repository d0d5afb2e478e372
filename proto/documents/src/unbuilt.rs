//! What documents ask for and this build does not do: kept, signed and not acted on. Told once for each reason,
//! with all its places, because a profile has seventy of them and nobody reads seventy lines.

use std::collections::{BTreeMap, BTreeSet};

use crate::position::Position;
use crate::problem::Problem;
use crate::read::Read;

/// Places of one key that are written out.
const SHOWN: usize = 12;

/// One use of something that may not be acted on.
#[derive(Debug, Clone)]
pub(crate) struct Unbuilt {
    /// The key, such as `check.every`, or the action.
    pub what: String,
    /// Where it stands.
    pub path: String,
    /// Why nothing comes of it.
    pub why: Why,
}

/// Why nothing comes of a use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// An action: whether it is built is not known to the schema.
    Action,
    /// The schema says so.
    Schema(&'static str),
}

#[derive(Default)]
struct Group<'r> {
    first: Option<(&'r str, Position)>,
    /// Lines by key and file.
    lines: BTreeMap<&'r str, BTreeMap<&'r str, BTreeSet<usize>>>,
}

/// One warning for each reason. `built` are the actions that this build has.
pub(crate) fn warnings(reads: &[Read], built: &BTreeSet<&str>) -> Vec<Problem> {
    let mut groups: BTreeMap<Why, Group<'_>> = BTreeMap::new();
    for read in reads {
        let unbuilt = read.unbuilt.iter().filter(|one| one.why != Why::Action || !built.contains(&*one.what));
        for one in unbuilt {
            let place = read.places.nearest(&one.path).value;
            let group = groups.entry(one.why).or_default();
            group.first.get_or_insert((read.file.as_str(), place));
            group.lines.entry(&one.what).or_default().entry(&read.file).or_default().insert(place.line);
        }
    }
    groups.into_iter().filter_map(|(why, group)| warning(why, &group)).collect()
}

fn warning(why: Why, group: &Group<'_>) -> Option<Problem> {
    let (file, at) = group.first?;
    let whats: Vec<String> =
        group.lines.iter().map(|(what, files)| format!("{what}{}", shown(files, file))).collect();
    let whats = whats.join(", ");
    let (code, message) = match why {
        Why::Action => ("action-not-built", format!("this build's agents do not have {whats}")),
        Why::Schema(why) => ("not-acted-on", format!("this build does not act on {whats}: {why}")),
    };
    let fix = if why == Why::Action { "a run with such a step is refused when it starts" } else { "" };
    Some(Problem::warning(file, at, code, message, fix))
}

/// ` (12,14; checks.toml:3; 2 more)`: where, with the names of files other than the one that the warning is at.
fn shown(files: &BTreeMap<&str, BTreeSet<usize>>, at: &str) -> String {
    let (mut left, mut parts) = (SHOWN, Vec::new());
    for (file, lines) in files.iter().filter(|(_, lines)| !lines.is_empty()) {
        let taken: Vec<String> = lines.iter().take(left).map(ToString::to_string).collect();
        if !taken.is_empty() {
            left -= taken.len();
            let name = if *file == at { String::new() } else { format!("{file}:") };
            parts.push(format!("{name}{}", taken.join(",")));
        }
    }
    let more = files.values().map(BTreeSet::len).sum::<usize>().saturating_sub(SHOWN);
    let rest = if more == 0 { String::new() } else { format!("; {more} more") };
    format!(" (line {}{rest})", parts.join("; "))
}
