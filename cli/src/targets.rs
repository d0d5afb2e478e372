//! Which nodes a command means: flags to a question for the controller, its answer to a list to sign.
//!
//! There is never a default target for a change. `-l` and `--site` narrow each other down; `--node`
//! names nodes; `--all` is all of them; the three ways exclude each other, so that what is shown is
//! what was said.

use std::collections::BTreeSet;

use fleet_types::time::Timestamp;
use fleet_types::view::{Presence, Skipped, Target};

use crate::client::Client;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Cell, Column, Table, Tone, units};
use crate::settings::TargetFlags;

/// The chosen nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// How they were chosen, for people: a selector, or `name=…` terms.
    pub selector: String,
    /// The nodes, sorted by id, at least one.
    pub nodes: Vec<Target>,
    /// Nodes that were meant and can get no work now, by name.
    pub skipped: Vec<Skipped>,
    /// All enrolled nodes of the fleet, chosen or not.
    pub enrolled: u32,
    /// The controller's time, where it tells.
    pub as_of: Option<Timestamp>,
}

/// A selector for lists, where saying nothing means everything. One call a site.
pub fn list_selectors(flags: &TargetFlags) -> Result<Vec<String>, Failure> {
    exclusive(flags)?;
    if !flags.nodes.is_empty() {
        return Ok(flags.nodes.iter().map(|name| format!("name={name}")).collect());
    }
    Ok(selectors(flags))
}

/// Asks the controller which nodes are meant by a changing command `what`.
pub async fn resolve(client: &Client, flags: &TargetFlags, what: &str) -> Result<Chosen, Failure> {
    if flags.is_empty() {
        return Err(Failure::new(
            ExitCode::Usage,
            "no-target",
            format!("\"{what}\" is about nodes and no target was given"),
        )
        .fix("add --node NAME, -l SELECTOR, --site NAME or --all; preview with --dry-run"));
    }
    exclusive(flags)?;
    let names: Vec<String> = flags.nodes.iter().map(ToString::to_string).collect();
    let (selector, questions) = if names.is_empty() {
        let selectors = selectors(flags);
        (selectors.join(" | "), selectors.into_iter().map(|text| (text, Vec::new())).collect::<Vec<_>>())
    } else {
        (format!("name={}", names.join("|")), vec![(String::new(), names)])
    };
    let by_name = !flags.nodes.is_empty();
    let (mut nodes, mut skipped, mut hints, mut enrolled, mut as_of) =
        (Vec::new(), Vec::new(), Vec::new(), 0, None);
    for (selector, names) in questions {
        let targets = client.resolve_targets(selector, names).await?;
        if !targets.unknown.is_empty() {
            let quoted: Vec<_> = targets.unknown.iter().map(|name| format!("\"{name}\"")).collect();
            let what = format!("there is no node {}", quoted.join(", "));
            let failure = Failure::new(ExitCode::NotFound, "not-found", what);
            return Err(targets.hints.into_iter().fold(failure, Failure::fix).fix("fleetctl node list"));
        }
        nodes.extend(targets.nodes);
        hints.extend(targets.hints);
        enrolled = enrolled.max(targets.enrolled);
        as_of = targets.as_of;
        skipped.extend(targets.skipped);
    }
    skipped.sort_by(|a, b| a.name.cmp(&b.name));
    skipped.dedup_by(|a, b| a.name == b.name);
    // Who was called by name is not silently left out.
    if !skipped.is_empty() && (by_name || nodes.is_empty()) {
        return Err(no_work(&skipped, &selector));
    }
    nodes.sort_by_key(|node| node.id);
    nodes.dedup_by_key(|node| node.id);
    if nodes.is_empty() {
        let what = if flags.all {
            "there are no nodes".to_owned()
        } else {
            format!("no node matches \"{selector}\"")
        };
        let failure = Failure::new(ExitCode::NotFound, "no-match", what);
        return Err(hints.into_iter().fold(failure, Failure::fix).fix("fleetctl node list -o wide"));
    }
    Ok(Chosen { selector, nodes, skipped, enrolled, as_of })
}

/// All that was meant can get no work.
fn no_work(skipped: &[Skipped], selector: &str) -> Failure {
    let what = match skipped {
        [one] => format!("{one} can get no work"),
        _ => format!("{} that \"{selector}\" means can get no work", units::count(skipped.len(), "node")),
    };
    let failure = Failure::new(ExitCode::Blocked, "nodes-not-ready", what);
    let causes = skipped.iter().take(MAX_SKIPPED).filter(|_| skipped.len() > 1).map(ToString::to_string);
    causes.fold(failure, Failure::cause).fix(
        "one that is held: fleetctl node show NAME, then fleetctl node release NAME; one that is not enrolled: fleetctl join-token create NAME",
    )
}

fn exclusive(flags: &TargetFlags) -> Result<(), Failure> {
    let chosen = !(flags.selectors.is_empty() && flags.sites.is_empty());
    let ways = usize::from(chosen) + usize::from(!flags.nodes.is_empty()) + usize::from(flags.all);
    if ways > 1 {
        return Err(Failure::usage("--node, --all and -l/--site exclude each other")
            .fix("give one of them; -l and --site together narrow the choice down"));
    }
    Ok(())
}

/// One selector a site, all `-l` in each; the empty one for everything.
fn selectors(flags: &TargetFlags) -> Vec<String> {
    let common: Vec<&str> = flags.selectors.iter().map(|s| s.as_str().trim()).collect();
    if flags.sites.is_empty() {
        return vec![common.join(",")];
    }
    flags
        .sites
        .iter()
        .map(|site| {
            let site = format!("site={site}");
            common.iter().copied().chain([site.as_str()]).collect::<Vec<_>>().join(",")
        })
        .collect()
}

/// Most skipped nodes that are named; the rest is counted.
const MAX_SKIPPED: usize = 10;
/// Most rows of the list before a question; the rest is counted.
const MAX_SHOWN: usize = 20;
/// A change of more nodes than this at once is severe in a fleet of any size: it is more than a large site has, and
/// more than two screens of names that anybody has read.
const MANY: usize = 50;

impl Chosen {
    /// Is a change of these nodes severe? What is hit decides, whichever flag chose it: most of the fleet, or many
    /// nodes. One node is the least that can be asked for, so it never is.
    pub fn is_severe(&self) -> bool {
        let count = self.nodes.len();
        count > 1 && (count > MANY || count * 2 > self.enrolled as usize)
    }

    /// How many of them may change at the same time: one of each pair.
    pub fn groups(&self) -> usize {
        let pairs: BTreeSet<_> = self.nodes.iter().filter_map(|node| node.pair.as_ref()).collect();
        pairs.len() + self.nodes.iter().filter(|node| node.pair.is_none()).count()
    }

    /// `6 nodes at 2 sites`.
    pub fn in_words(&self) -> String {
        let mut sites: Vec<_> = self.nodes.iter().map(|node| node.site.as_str()).collect();
        sites.sort_unstable();
        sites.dedup();
        let skipped = match self.skipped.len() {
            0 => String::new(),
            count => format!(" ({count} skipped)"),
        };
        let nodes = units::count(self.nodes.len(), "node");
        format!("{nodes} at {}{skipped}", units::count(sites.len(), "site"))
    }

    /// The nodes as people see them before they are asked.
    pub fn answer(&self) -> Answer {
        let mut table = Table::new(&[
            Column::whole("NODE"),
            Column::whole("SITE"),
            Column::whole("PAIR"),
            Column::whole("PRESENCE"),
        ]);
        let mut nodes: Vec<_> = self.nodes.iter().collect();
        nodes.sort_by(|a, b| (&a.site, &a.pair, &a.name).cmp(&(&b.site, &b.pair, &b.name)));
        for node in nodes.iter().take(MAX_SHOWN) {
            let pair = node.pair.clone().unwrap_or_else(|| "-".to_owned());
            table.row([
                node.name.as_str().into(),
                node.site.as_str().into(),
                pair.into(),
                presence(node.presence),
            ]);
        }
        let mut answer = Answer::default().table(table, "no nodes");
        if let Some(more) = nodes.len().checked_sub(MAX_SHOWN).filter(|more| *more > 0) {
            answer = answer.line(format!("… and {more} more"));
        }
        match skipped_in_words(&self.skipped, self.skipped.len()) {
            Some(skipped) => answer.line(format!("skipped: {skipped}")),
            None => answer,
        }
    }
}

/// Skipped nodes with their reasons, the first of `count` by name.
pub fn skipped_in_words(named: &[Skipped], count: usize) -> Option<String> {
    let named: Vec<_> = named.iter().take(MAX_SKIPPED).map(ToString::to_string).collect();
    let more = match count.saturating_sub(named.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (count > 0).then(|| format!("{}{more}", named.join(", ")))
}

/// A presence with its tone.
pub fn presence(presence: Presence) -> Cell {
    let tone = match presence {
        Presence::Online => Tone::Good,
        Presence::Stale | Presence::Reconnecting => Tone::Warn,
        Presence::Offline => Tone::Bad,
        Presence::NotEnrolled => Tone::Dim,
    };
    Cell::toned(tone, presence.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_types::id::NodeId;

    fn flags(selectors: &[&str], sites: &[&str], nodes: &[&str], all: bool) -> TargetFlags {
        TargetFlags {
            selectors: selectors.iter().map(|s| s.parse().unwrap()).collect(),
            sites: sites.iter().map(|s| (*s).to_owned()).collect(),
            nodes: nodes.iter().map(|s| s.parse().unwrap()).collect(),
            all,
        }
    }

    #[test]
    fn selectors_and_sites_narrow_each_other_down() {
        assert_eq!(
            selectors(&flags(&["a=b", "!c"], &["x", "y"], &[], false)),
            ["a=b,!c,site=x", "a=b,!c,site=y"]
        );
        assert_eq!(selectors(&flags(&["a=b"], &[], &[], false)), ["a=b"]);
        assert_eq!(selectors(&flags(&[], &[], &[], true)), [""]);
        assert_eq!(
            list_selectors(&flags(&[], &[], &["fw-1", "fw-2"], false)).unwrap(),
            ["name=fw-1", "name=fw-2"]
        );
    }

    #[test]
    fn skipped_nodes_are_named_with_their_reasons_and_counted() {
        let skipped =
            |n: usize| Skipped { name: format!("fw-{n}").parse().unwrap(), why: "not enrolled".into() };
        assert_eq!(skipped_in_words(&[], 0), None);
        assert_eq!(skipped_in_words(&[skipped(1)], 1).unwrap(), "fw-1 (not enrolled)");
        let many: Vec<_> = (0..12).map(skipped).collect();
        assert!(skipped_in_words(&many, 30).unwrap().ends_with("fw-9 (not enrolled) and 20 more"));
        let failure = no_work(&many[..1], "name=fw-0");
        assert_eq!((failure.exit.number(), failure.code.as_str()), (6, "nodes-not-ready"));
        let chosen =
            Chosen { selector: String::new(), nodes: vec![], skipped: many, enrolled: 0, as_of: None };
        assert!(chosen.in_words().ends_with("(12 skipped)"), "{}", chosen.in_words());
    }

    #[test]
    fn what_is_hit_makes_a_change_severe() {
        let node = |n: u128| Target {
            id: NodeId::from_uuid(uuid::Uuid::from_u128(n)),
            name: format!("fw-{n}").parse().unwrap(),
            site: "fra1".to_owned(),
            pair: None,
            presence: Presence::Online,
        };
        let cases = [
            // Of an older controller nobody knows how many there are.
            (2, 0, true),
            (1, 0, false),
            (1, 1, false),
            (2, 2, true),
            (3, 6, false),
            (4, 6, true),
            (50, 400, false),
            (51, 400, true),
        ];
        for (count, enrolled, severe) in cases {
            let nodes = (0..count).map(node).collect();
            let chosen = Chosen { selector: String::new(), nodes, skipped: vec![], enrolled, as_of: None };
            assert_eq!(chosen.is_severe(), severe, "{count} of {enrolled}");
        }
    }

    #[test]
    fn the_ways_exclude_each_other() {
        for bad in [
            flags(&["a"], &[], &["fw-1"], false),
            flags(&[], &["x"], &[], true),
            flags(&[], &[], &["f"], true),
        ] {
            assert_eq!(exclusive(&bad).unwrap_err().exit.number(), 2);
        }
    }
}
