//! Which nodes a development fleet has: names, sites, pairs, rings. Pure.

/// One node to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name, such as `fw-ams2-01`.
    pub name: String,
    /// Its site.
    pub site: &'static str,
    /// Its pair, where it has a partner.
    pub pair: Option<String>,
    /// Its ring.
    pub ring: &'static str,
    /// Last part of its addresses in the example configuration; different for each node of a site.
    pub host: u32,
}

/// The ring of all that do not go first.
const REST: &str = "rest";
const SITES: [&str; 2] = ["ams2", "fra1"];
/// In each site two nodes that stand in for each other are followed by a single one.
const GROUP: u32 = 3;

impl NodeSpec {
    /// What tells it from the others, for people.
    pub fn in_words(&self) -> String {
        let pair = self.pair.as_ref().map_or_else(|| "no partner".to_owned(), |pair| format!("pair {pair}"));
        format!("site {}, ring {}, {pair}", self.site, self.ring)
    }

    /// Is it tried before the rest?
    pub fn goes_first(&self) -> bool {
        self.ring != REST
    }

    /// Labels as an operator writes them.
    pub fn labels(&self) -> Vec<String> {
        let mut labels =
            vec![format!("site={}", self.site), "product=zehrasec".to_owned(), format!("ring={}", self.ring)];
        labels.extend(self.pair.iter().map(|pair| format!("ha_group={pair}")));
        labels
    }
}

/// The nodes of a fleet of `count`, site by site. Six are two pairs and a single node a site.
pub fn nodes(count: u32) -> Vec<NodeSpec> {
    let mut nodes: Vec<_> = (0u32..)
        .zip(0..count)
        .map(|(index, _)| {
            let (site, number) = (usize::from(index % 2 == 1), index / 2 + 1);
            let members = (count + 1 - index % 2) / 2;
            NodeSpec {
                name: format!("fw-{}-{number:02}", SITES[site]),
                site: SITES[site],
                pair: pair(SITES[site], number, members),
                ring: ring(index, count),
                host: 10 + number,
            }
        })
        .collect();
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    nodes
}

/// The pair of the node of this number in a site with so many members; a node without a partner has none.
fn pair(site: &str, number: u32, members: u32) -> Option<String> {
    let (group, place) = ((number - 1) / GROUP, (number - 1) % GROUP);
    let partner = if place == 0 { number + 1 } else { number - 1 };
    let is_paired = place < 2 && partner <= members;
    is_paired.then(|| if group == 0 { format!("{site}-edge") } else { format!("{site}-edge-{}", group + 1) })
}

/// The last two go first: with six nodes they are the single ones, so that no pair is the first to be tried on.
fn ring(index: u32, count: u32) -> &'static str {
    match count - index {
        2 if count > 2 => "test",
        1 if count > 2 => "canary",
        _ => REST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_are_two_pairs_and_a_single_node_a_site() {
        let lines: Vec<_> =
            nodes(6).iter().map(|node| format!("{} {}", node.name, node.labels().join(","))).collect();
        assert_eq!(
            lines,
            [
                "fw-ams2-01 site=ams2,product=zehrasec,ring=rest,ha_group=ams2-edge",
                "fw-ams2-02 site=ams2,product=zehrasec,ring=rest,ha_group=ams2-edge",
                "fw-ams2-03 site=ams2,product=zehrasec,ring=test",
                "fw-fra1-01 site=fra1,product=zehrasec,ring=rest,ha_group=fra1-edge",
                "fw-fra1-02 site=fra1,product=zehrasec,ring=rest,ha_group=fra1-edge",
                "fw-fra1-03 site=fra1,product=zehrasec,ring=canary",
            ]
        );
    }

    #[test]
    fn any_number_has_unique_names_and_pairs_of_two() {
        for count in 1..=200 {
            let nodes = nodes(count);
            assert_eq!(nodes.len(), usize::try_from(count).unwrap());
            assert!(nodes.windows(2).all(|two| two[0].name < two[1].name), "{nodes:?}");
            for node in nodes.iter().filter(|node| node.pair.is_some()) {
                assert_eq!(
                    nodes.iter().filter(|other| other.pair == node.pair).count(),
                    2,
                    "{count}: {node:?}"
                );
            }
        }
    }
}
