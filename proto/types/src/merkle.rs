//! Merkle trees as in RFC 6962 §2.1: SHA-256, 0x00 before a leaf, 0x01 before a node.
//!
//! One tree for three uses: the audit log, the node list of a request, and a wave of assignments.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Hash of a leaf's bytes.
pub fn leaf_hash(bytes: &[u8]) -> Digest {
    Digest::of_parts(&[&[0], bytes])
}

fn node_hash(left: Digest, right: Digest) -> Digest {
    Digest::of_parts(&[&[1], left.as_bytes(), right.as_bytes()])
}

#[cfg(test)]
/// Largest power of two smaller than `n` (n ≥ 2).
fn split(n: usize) -> usize {
    1 << (usize::BITS - 1 - (n - 1).leading_zeros())
}

/// Root over leaf hashes; of the empty list it is the hash of nothing.
pub fn root(leaves: &[Digest]) -> Digest {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.push(*leaf);
    }
    frontier.root()
}

/// The compact state of an append-only tree: one hash for each set bit of its size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontier {
    size: u64,
    /// Roots of the complete subtrees, largest first.
    peaks: Vec<Digest>,
}

impl Frontier {
    /// Number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf hash.
    pub fn push(&mut self, leaf: Digest) {
        let mut hash = leaf;
        let mut carry = self.size;
        while carry & 1 == 1 {
            // A set bit means a complete subtree of that height stands at the end of the list.
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(left, hash);
            carry >>= 1;
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// Root over all leaves so far.
    pub fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev().copied();
        let Some(last) = peaks.next() else { return Digest::of(b"") };
        peaks.fold(last, |right, left| node_hash(left, right))
    }
}

/// Every node of a tree, so that all inclusion proofs of a wave cost O(n log n) together.
pub struct Tree {
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// Builds the tree over leaf hashes.
    pub fn new(leaves: Vec<Digest>) -> Self {
        let mut levels = vec![leaves];
        while let Some(last) = levels.last().filter(|level| level.len() > 1) {
            // An odd last node moves up unchanged; this gives the RFC's tree for every size.
            let next = last
                .chunks(2)
                .map(|pair| if let [l, r] = pair { node_hash(*l, *r) } else { pair[0] })
                .collect();
            levels.push(next);
        }
        Self { levels }
    }

    /// Root of the tree.
    pub fn root(&self) -> Digest {
        self.levels.last().and_then(|top| top.first().copied()).unwrap_or_else(|| Digest::of(b""))
    }

    /// Audit path of leaf `index`, lowest first; `None` when there is no such leaf.
    pub fn proof(&self, index: usize) -> Option<Vec<Digest>> {
        if index >= self.levels[0].len() {
            return None;
        }
        let mut at = index;
        let mut path = Vec::new();
        for level in &self.levels[..self.levels.len() - 1] {
            if let Some(sibling) = level.get(at ^ 1) {
                path.push(*sibling);
            }
            at >>= 1;
        }
        Some(path)
    }
}

/// The root that `leaf` at `index` of `size` leaves and its path lead to; `None` when the path does not fit
/// (RFC 9162 §2.1.3.2).
pub fn root_from_path(leaf: Digest, index: u64, size: u64, path: &[Digest]) -> Option<Digest> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(*sibling, hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(hash, *sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// Is `leaf` number `index` of the tree of `size` leaves with this `root`?
pub fn verify_inclusion(leaf: Digest, index: u64, size: u64, path: &[Digest], root: Digest) -> bool {
    root_from_path(leaf, index, size, path) == Some(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recursive definition of RFC 6962 §2.1, the independent model for this file.
    fn model(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => Digest::of(b""),
            [one] => *one,
            many => {
                let k = split(many.len());
                node_hash(model(&many[..k]), model(&many[k..]))
            }
        }
    }

    #[test]
    fn roots_and_proofs_agree_with_the_definition() {
        for size in 0..70usize {
            let leaves: Vec<_> = (0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect();
            let tree = Tree::new(leaves.clone());
            let expected = model(&leaves);
            assert_eq!(root(&leaves), expected, "frontier of {size}");
            assert_eq!(tree.root(), expected, "tree of {size}");
            for (index, leaf) in leaves.iter().enumerate() {
                let path = tree.proof(index).unwrap();
                let (i, n) = (index as u64, size as u64);
                assert!(verify_inclusion(*leaf, i, n, &path, expected), "{index} of {size}");
                assert!(!verify_inclusion(leaf_hash(b"x"), i, n, &path, expected));
                assert!(!verify_inclusion(*leaf, (i + 1) % n.max(1), n, &path, expected) || size == 1);
            }
            assert_eq!(tree.proof(size), None);
        }
    }

    #[test]
    fn known_root_of_rfc_6962_test_vectors() {
        // Leaves "" and 0x00 of the certificate-transparency test data.
        let two = root(&[leaf_hash(b""), leaf_hash(&[0])]);
        assert_eq!(two.to_string(), "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125");
    }
}
