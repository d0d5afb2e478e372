//! What packages nodes have: taken from their agents, kept once where equal, shown.
//!
//! A list is unpacked and checked before it is kept, so that everything that is read back can be matched. It is the node's
//! own word: nothing is authorised by it.

use std::io::Read as _;

use flate2::read::GzDecoder;
use fleet_advisories::inventory::{Inventory, NodeState, PackageList};
use fleet_advisories::matching::newest_kernel;
use fleet_types::digest::Digest;
use fleet_types::id::NodeId;
use fleet_types::packages::{MAX_LIST_BYTES, MAX_PACKED_BYTES, MAX_STATE_BYTES};
use fleet_types::time::Timestamp;
use fleet_types::view::{NodePackages, PackageItem};
use tokio::time::Instant;

use super::caller::Agent;
use super::{inventory, views};
use crate::context::Context;
use crate::error::{ControllerError, Kind, Result};
use crate::repo::advisories;
use crate::repo::packages::{self, PackagesRecord};

/// Entries of each map beside the list; a thousand newer packages are a node that nobody has upgraded for years.
const MAX_ENTRIES: usize = 4096;
/// Bytes of each text beside the list.
const MAX_TEXT_BYTES: usize = 512;

/// What an agent sends.
pub struct Arrived {
    /// Digest of the list before it was packed.
    pub list: Digest,
    /// JSON of the node's state.
    pub state: Vec<u8>,
    /// The packed list; empty asks whether it is here.
    pub packed: Vec<u8>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The list is not here: nothing was stored.
    WantsList,
    /// It is as it was.
    AsBefore,
    /// It is other than it was, and stored.
    Changed,
}

/// Reads the records of all nodes, and takes away lists that none of them names; for starts.
pub async fn fill(context: &Context) -> Result<()> {
    for node in context.memory.node_cache.ids(|_| true) {
        if let Some(record) = packages::get(&context.storage.repo, node).await? {
            context.memory.packages.set(node, record.list, record.since);
        }
    }
    // Of a stop between two commits.
    for list in packages::lists(&context.storage.repo).await? {
        if !context.memory.packages.is_named(&list) {
            packages::remove_list(&context.storage.repo, &context.storage.audited, &list).await?;
        }
    }
    Ok(())
}

/// Takes what a node says that it has.
pub async fn take(context: &Context, agent: &Agent, arrived: Arrived) -> Result<Taken> {
    inventory::check_active(&context.memory, &context.settings, agent.node)?;
    let state = read_state(&arrived.state)?;
    if arrived.packed.len() > MAX_PACKED_BYTES {
        return Err(refused(format!("the packed list has more than {MAX_PACKED_BYTES} bytes")));
    }
    let _turn = context.memory.packages.turn.lock().await;
    let now = context.storage.clock.now();
    let before = packages::get(&context.storage.repo, agent.node).await?;
    if before.as_ref().is_some_and(|before| before.list == arrived.list && before.state == state) {
        context.memory.packages.set(agent.node, arrived.list, now);
        return Ok(Taken::AsBefore);
    }
    let is_here = packages::get_list(&context.storage.repo, &arrived.list).await?.is_some();
    if !is_here && arrived.packed.is_empty() {
        return Ok(Taken::WantsList);
    }
    if !context.memory.packages.may_change(agent.node, Instant::now()) {
        let why = "the packages of this node change too often; they are taken again in an hour";
        return Err(ControllerError::new(Kind::Exhausted, "packages-too-often", why));
    }
    if !is_here {
        let (packed, digest) = (arrived.packed.clone(), arrived.list);
        // Some megabytes to unpack and check: away from the threads that serve.
        let checked = tokio::task::spawn_blocking(move || unpack(&packed, &digest)).await;
        checked.map_err(ControllerError::internal)??;
        packages::put_list(&context.storage.audited, &arrived.list, &arrived.packed).await?;
    }
    let record = PackagesRecord { list: arrived.list, state, since: now };
    packages::put(&context.storage.audited, agent.node, &record).await?;
    context.memory.packages.set(agent.node, arrived.list, now);
    if let Some(before) = before.filter(|before| !context.memory.packages.is_named(&before.list)) {
        packages::remove_list(&context.storage.repo, &context.storage.audited, &before.list).await?;
    }
    context.memory.findings.node_changed(agent.node);
    Ok(Taken::Changed)
}

/// The node was removed, and its record with it: its list goes where no other node has it.
pub async fn forget(context: &Context, node: NodeId) -> Result<()> {
    let _turn = context.memory.packages.turn.lock().await;
    context.memory.findings.forget(node);
    // What it said while it was being removed, and what was found on it.
    let batch = context.storage.audited.batch().using_reserve();
    let batch = packages::remove(&context.storage.repo, batch, node).await?;
    let batch = advisories::remove_first_seen(&context.storage.repo, batch, node).await?;
    if !batch.ops.is_empty() {
        context.storage.audited.commit(batch, vec![]).await?;
    }
    match context.memory.packages.forget(node) {
        Some(list) if !context.memory.packages.is_named(&list) => {
            packages::remove_list(&context.storage.repo, &context.storage.audited, &list).await
        }
        _ => Ok(()),
    }
}

/// What a node has, as it can be matched; none where it has not said.
pub async fn of_node(context: &Context, node: NodeId) -> Result<Option<(PackagesRecord, PackageList)>> {
    loop {
        let Some(record) = packages::get(&context.storage.repo, node).await? else { return Ok(None) };
        if let Some(packed) = packages::get_list(&context.storage.repo, &record.list).await? {
            let digest = record.list;
            let list = tokio::task::spawn_blocking(move || unpack(&packed, &digest)).await;
            return Ok(Some((record, list.map_err(ControllerError::internal)??)));
        }
        // The list of the record went between the two reads, or it is damage.
        let again = packages::get(&context.storage.repo, node).await?;
        if again.is_some_and(|again| again.list == record.list) {
            return Err(ControllerError::internal(std::io::Error::other(format!(
                "the list {} of packages is missing",
                record.list
            ))));
        }
    }
}

/// A node's packages for people, from a name on.
pub async fn view(context: &Context, name: &str, after: &str, limit: usize) -> Result<NodePackages> {
    let known = views::find(&context.memory, name)?;
    let id = known.record.id;
    let Some((record, list)) = of_node(context, id).await? else {
        let why = format!("node \"{name}\" has not said what packages it has");
        return Err(ControllerError::new(Kind::NotFound, "no-packages", why).fix(
            "its agent says so within minutes of its connect, where it is of this release and apt is there",
        ));
    };
    let PackagesRecord { state, since, list: digest } = record;
    let (os, os_version) = (list.os.clone(), list.os_version.clone());
    let count = list.packages.len();
    let inventory = Inventory::of_list(list).map_err(ControllerError::internal)?;
    let mut rest = inventory
        .packages()
        .iter()
        .map(|package| (place(&package.name, &package.architecture, &package.version), package))
        .collect::<Vec<_>>();
    rest.sort_by(|a, b| a.0.cmp(&b.0));
    let rest = rest.into_iter().filter(|(place, _)| place.as_str() > after);
    let mut page: Vec<_> = rest.take(limit + 1).collect();
    let has_more = page.len() > limit;
    page.truncate(limit);
    let next = has_more.then(|| page.last().map(|(place, _)| place.clone())).flatten();
    let items = page.into_iter().map(|(_, package)| {
        let newer = state.available.get(&package.name).filter(|newer| newer.version != package.version);
        let old = state.old_files.get(&package.name);
        PackageItem {
            name: package.name.clone(),
            version: package.version.clone(),
            architecture: package.architecture.clone(),
            source: package.source.clone(),
            source_version: package.source_version.clone(),
            available: newer.map(|newer| newer.version.clone()),
            origin: newer.map(|newer| newer.origin.clone()).unwrap_or_default(),
            old_files_in: old.map(|old| old.services.clone()).unwrap_or_default(),
        }
    });
    Ok(NodePackages {
        schema: "fleet/v1/node-packages".to_owned(),
        node: known.record.name.clone(),
        os,
        os_version,
        digest,
        since,
        heard: context.memory.packages.heard(id).unwrap_or(since),
        running_kernel: state.running_kernel.clone(),
        newest_kernel: newest_kernel(&inventory).map(|kernel| kernel.name.clone()),
        reboot_pending: state.reboot_pending,
        archives_unknown: state.archives_unknown.clone(),
        newer: u32::try_from(state.available.len()).unwrap_or(u32::MAX),
        count: u32::try_from(count).unwrap_or(u32::MAX),
        items: items.collect(),
        next,
    })
}

fn place(name: &str, architecture: &str, version: &str) -> String {
    format!("{name} {architecture} {version}")
}

fn refused(why: impl Into<String>) -> ControllerError {
    ControllerError::invalid("packages", why.into())
}

fn read_state(json: &[u8]) -> Result<NodeState> {
    if json.len() > MAX_STATE_BYTES {
        return Err(refused(format!("what stands beside the list has more than {MAX_STATE_BYTES} bytes")));
    }
    let state: NodeState =
        serde_json::from_slice(json).map_err(|error| refused(format!("state: {error}")))?;
    if state.available.len() > MAX_ENTRIES || state.old_files.len() > MAX_ENTRIES {
        return Err(refused(format!("a map beside the list has more than {MAX_ENTRIES} entries")));
    }
    let newer = state.available.iter().flat_map(|(name, newer)| {
        [name.as_str(), newer.version.as_str(), newer.source_version.as_str(), newer.origin.as_str()]
    });
    let old = state.old_files.iter().flat_map(|(name, old)| {
        let services = old.services.iter().map(String::as_str);
        services.chain(old.source_version.as_deref()).chain([name.as_str()])
    });
    let words = state.running_kernel.iter().chain(&state.archives_unknown).map(String::as_str);
    let long = newer.chain(old).chain(words).find(|text| text.len() > MAX_TEXT_BYTES);
    if let Some(text) = long {
        let short: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
        return Err(refused(format!(
            "a text beside the list is longer than {MAX_TEXT_BYTES} bytes: {short}…"
        )));
    }
    Ok(state)
}

/// A list, checked: it is what its digest says, within bounds, and every version is one.
fn unpack(packed: &[u8], digest: &Digest) -> Result<PackageList> {
    let mut bytes = Vec::new();
    let most = MAX_LIST_BYTES as u64;
    GzDecoder::new(packed)
        .take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refused(format!("the list cannot be unpacked: {error}")))?;
    if bytes.len() > MAX_LIST_BYTES {
        return Err(refused(format!("the list has more than {MAX_LIST_BYTES} bytes")));
    }
    if Digest::of(&bytes) != *digest {
        return Err(refused("the list is not what its digest says"));
    }
    let list: PackageList = serde_json::from_slice(&bytes)
        .map_err(|error| refused(format!("the list cannot be read: {error}")))?;
    Inventory::of_list(list.clone()).map_err(|error| refused(error.to_string()))?;
    Ok(list)
}

/// Is what the node said last fresh enough to tell anything? Agents say so each hour.
pub fn is_fresh(heard: Timestamp, now: Timestamp) -> bool {
    now.since(heard) < std::time::Duration::from_hours(24)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::write::GzEncoder;
    use fleet_types::package_version::PackageFormat;
    use fleet_types::packages::{Available, Package};

    use super::*;
    use crate::service::holds;
    use crate::testing::{TestContext, enrolled, operator};

    fn package(name: &str, version: &str) -> Package {
        Package {
            source: name.to_owned(),
            source_version: version.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: "amd64".to_owned(),
        }
    }

    fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    fn arrived(packages: &[(&str, &str)], with_list: bool, state: &NodeState) -> Arrived {
        let packages = packages.iter().map(|(name, version)| package(name, version)).collect();
        let list = PackageList::new(PackageFormat::Dpkg, "debian".to_owned(), "12".to_owned(), packages);
        let bytes = list.to_bytes().unwrap();
        Arrived {
            list: Digest::of(&bytes),
            state: serde_json::to_vec(state).unwrap(),
            packed: if with_list { pack(&bytes) } else { Vec::new() },
        }
    }

    #[tokio::test]
    async fn equal_lists_are_kept_once_and_go_with_the_last_node_that_has_them() {
        let test = TestContext::new().await;
        let context = &test.context;
        let (one, two) = (enrolled(context, 1).await, enrolled(context, 2).await);
        let state = NodeState::default();
        let first = [("openssl", "3.0-1")];
        let take_it = async |agent: &Agent, packages: &[(&str, &str)], with_list| {
            take(context, agent, arrived(packages, with_list, &state)).await.unwrap()
        };
        assert_eq!(take_it(&one, &first, false).await, Taken::WantsList);
        assert_eq!(take_it(&one, &first, true).await, Taken::Changed);
        assert_eq!(take_it(&one, &first, false).await, Taken::AsBefore);
        assert_eq!(take_it(&two, &first, false).await, Taken::Changed, "the list is here already");
        assert_eq!(packages::lists(&context.storage.repo).await.unwrap().len(), 1);
        assert_eq!(take_it(&one, &[("openssl", "3.0-2")], true).await, Taken::Changed);
        assert_eq!(packages::lists(&context.storage.repo).await.unwrap().len(), 2);
        // A restart knows what was known.
        context.memory.packages.forget(one.node);
        context.memory.packages.forget(two.node);
        fill(context).await.unwrap();
        assert_eq!(packages::lists(&context.storage.repo).await.unwrap().len(), 2);
        let caller = operator();
        let order = holds::Order { caller: &caller, name: "fw-2", reason: "gone", idempotency_key: "" };
        holds::remove(context, &order).await.unwrap();
        assert_eq!(packages::lists(&context.storage.repo).await.unwrap().len(), 1);
        assert!(packages::get(&context.storage.repo, two.node).await.unwrap().is_none());
        let error = view(context, "fw-2", "", 10).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
    }

    #[tokio::test]
    async fn a_node_is_shown_page_by_page_with_what_is_newer() {
        let test = TestContext::new().await;
        let context = &test.context;
        let agent = enrolled(context, 1).await;
        let newer = Available {
            version: "2".to_owned(),
            source_version: "2".to_owned(),
            origin: "Debian".to_owned(),
        };
        let state = NodeState {
            running_kernel: Some("6.1.0-9-amd64".to_owned()),
            available: [("b".to_owned(), newer)].into(),
            ..NodeState::default()
        };
        let kernels = [
            ("linux-image-6.1.0-9-amd64", "6.1.27-1"),
            ("linux-image-6.1.0-10-amd64", "6.1.38-1"),
            ("b", "1"),
        ];
        take(context, &agent, arrived(&kernels, true, &state)).await.unwrap();
        let first = view(context, "fw-1", "", 2).await.unwrap();
        assert_eq!((first.count, first.newer, first.items.len()), (3, 1, 2));
        assert_eq!(first.items[0].available.as_deref(), Some("2"));
        assert_eq!(first.newest_kernel.as_deref(), Some("linux-image-6.1.0-10-amd64"));
        let rest = view(context, "fw-1", first.next.as_deref().unwrap(), 2).await.unwrap();
        assert_eq!((rest.items.len(), rest.next), (1, None));
    }

    #[tokio::test]
    async fn what_is_no_list_is_refused_by_its_reason_and_nothing_is_kept() {
        let test = TestContext::new().await;
        let context = &test.context;
        let agent = enrolled(context, 1).await;
        let good = arrived(&[("a", "1")], true, &NodeState::default());
        let bomb = pack(&vec![b' '; MAX_LIST_BYTES + 1]);
        let other =
            Arrived { list: Digest::of(b"x"), state: good.state.clone(), packed: good.packed.clone() };
        let long = NodeState { running_kernel: Some("x".repeat(600)), ..NodeState::default() };
        for (arrived, told) in [
            (arrived(&[("a", "x1")], true, &NodeState::default()), "does not start with a digit"),
            (other, "not what its digest says"),
            (Arrived { packed: bomb, state: good.state.clone(), ..good }, "more than 6291456 bytes"),
            (arrived(&[("a", "1")], true, &long), "longer than 512 bytes"),
            (Arrived { list: Digest::of(b"x"), state: b"[".to_vec(), packed: vec![] }, "state: EOF"),
            (Arrived { list: Digest::of(b"x"), state: b"{}".to_vec(), packed: b"no".to_vec() }, "unpacked"),
        ] {
            let error = take(context, &agent, arrived).await.unwrap_err();
            assert!(error.detail.message.contains(told), "{error}");
        }
        assert!(packages::lists(&context.storage.repo).await.unwrap().is_empty());
    }
}
