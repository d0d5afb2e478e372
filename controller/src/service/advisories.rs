//! Advisories: imported whole or not at all, kept a source, shown.
//!
//! The files of an import are spooled, read away from the threads that serve, split by origin and kept; one commit with its
//! audit leaf puts them in the place of what the same origins gave before. What cannot be read refuses all of it, by name
//! (docs/adr/0040). At start the files are read again.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_advisories::advisory::Advisory;
use fleet_advisories::import::{AdvisorySet, Imported, Importer, Skipped};
use fleet_types::view::{
    AdvisoryImport, AdvisorySkipped, AdvisorySource, AdvisoryView, Page, ReplacedSource, ScoreItem,
};

use super::caller::Operator;
use super::limits;
use crate::context::Context;
use crate::error::{ControllerError, Kind, Result};
use crate::repo::advisories::{self, SourceRecord};
use crate::repo::advisory_files::{AdvisoryFiles, Spool};
use crate::repo::audited::AuditEntry;

/// Reasons that are kept and shown of what was not used.
const REASONS: usize = 20;
/// Broken files that a refusal names; the whole of it goes in one header.
const REFUSALS: usize = 20;
/// Characters of one text in it.
const TEXT_CHARS: usize = 160;
/// Bytes of the name of a source.
const MAX_NAME_BYTES: usize = 40;
/// Sources that are kept at most.
const MAX_SOURCES: usize = 64;

/// What an operator asks for with an import.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// Whose files they are, where several origins use one form: `debian` of `osv:debian`; may be empty.
    pub label: String,
    /// May a source become less than half of what it was?
    pub may_shrink: bool,
    /// Why.
    pub reason: String,
}

impl Order {
    /// Checked before the first file.
    pub fn check(&self) -> Result<()> {
        limits::check_reason(&self.reason)?;
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.label.len() > MAX_NAME_BYTES || !self.label.chars().all(good) {
            let why = format!("give at most {MAX_NAME_BYTES} of a-z, 0-9 and -");
            return Err(ControllerError::invalid("source", why));
        }
        Ok(())
    }
}

/// Makes room for an import; one at a time. The guard is held until it has ended.
pub async fn begin(context: &Context) -> Result<(tokio::sync::MutexGuard<'_, ()>, Spool)> {
    let turn = context.memory.importing.try_lock().map_err(|_| {
        ControllerError::new(Kind::Conflict, "import-under-way", "another import is under way")
            .fix("import again when it has ended")
    })?;
    let files = context.files.advisories.clone();
    Ok((turn, blocking(move || files.spool()).await?))
}

/// Takes a piece of a file.
pub async fn spool(mut spool: Spool, name: String, begins: bool, data: Vec<u8>) -> Result<Spool> {
    blocking(move || spool.take(&name, begins, &data).map(|()| spool)).await
}

/// Reads what was spooled and puts it in place.
pub async fn finish(
    context: &Context,
    caller: &Operator,
    order: &Order,
    spool: Spool,
) -> Result<AdvisoryImport> {
    let leaf = AuditEntry::new(caller.actor(), "advisory.import", "advisories").text(&order.reason);
    let done = put_in_place(context, caller, order, spool, leaf.clone()).await;
    if let Err(error) = &done
        && error.kind == Kind::Invalid
    {
        let why: String = error.detail.message.chars().take(TEXT_CHARS).collect();
        context.storage.audited.commit(context.storage.audited.batch(), vec![leaf.refused(why)]).await?;
    }
    done
}

async fn put_in_place(
    context: &Context,
    caller: &Operator,
    order: &Order,
    mut spool: Spool,
    mut leaf: AuditEntry,
) -> Result<AdvisoryImport> {
    let imported = blocking(move || {
        let mut importer = Importer::default();
        spool.each(|name, bytes| importer.file(name, bytes))?;
        importer.finish().map_err(|refused| {
            let mut error = ControllerError::new(Kind::Invalid, "advisories-broken", refused.to_string());
            let more = refused.0.len().saturating_sub(REFUSALS);
            let told =
                refused.0.iter().take(REFUSALS).map(|one| short(&format!("{}: {}", one.file, one.reason)));
            error.detail.causes = told.chain((more > 0).then(|| format!("and {more} more"))).collect();
            error.fix("mend or leave out these files; what was imported before stays as it is")
        })
    })
    .await?;
    let Imported { set, skipped, files } = imported;
    let skipped_count: usize = skipped.iter().map(|one| one.count).sum();
    let skipped: Vec<Skipped> = skipped.iter().take(REASONS).map(shortened).collect();
    let before = advisories::sources(&context.storage.repo).await?;
    let kept_in = context.files.advisories.clone();
    let parts = blocking(move || {
        let keep = |(part, set): (fleet_advisories::import::Part, AdvisorySet)| {
            Ok((part.as_str(), kept_in.keep(&set)?, set.entries() as u64, set.newest()))
        };
        set.split().into_iter().map(keep).collect::<Result<Vec<_>>>()
    })
    .await?;
    let mut sources: BTreeMap<String, SourceRecord> =
        before.into_iter().map(|source| (source.name.clone(), source)).collect();
    let (now, mut replaced) = (context.storage.clock.now(), Vec::new());
    for (part, digest, entries, newest) in parts {
        let name = if order.label.is_empty() { part.to_owned() } else { format!("{part}:{}", order.label) };
        let former = sources.get(&name).map(|former| former.entries);
        check_size(order, &name, former, entries)?;
        leaf = leaf.detail(&name, format!("{entries} entries, {digest}"));
        replaced.push(ReplacedSource { name: name.clone(), entries, before: former });
        let record = SourceRecord {
            name: name.clone(),
            digest,
            entries,
            files: files as u64,
            skipped: skipped.clone(),
            skipped_count: skipped_count as u64,
            newest,
            imported: now,
            by: caller.record.name.to_string(),
        };
        sources.insert(name, record);
    }
    if sources.len() > MAX_SOURCES {
        let why = format!("there would be {} sources; at most {MAX_SOURCES} are kept", sources.len());
        return Err(ControllerError::invalid("source", why));
    }
    let batch = advisories::put_sources(context.storage.audited.batch(), sources.into_values().collect())?;
    let skipped_text = if skipped_count > 0 { skipped_count.to_string() } else { String::new() };
    leaf = leaf.detail("files", files.to_string()).detail("skipped", skipped_text);
    context.storage.audited.commit(batch, vec![leaf]).await?;
    load(context).await?;
    Ok(AdvisoryImport {
        schema: "fleet/v1/advisory-import".to_owned(),
        files: files as u64,
        sources: replaced,
        skipped: skipped.iter().map(told).collect(),
    })
}

/// A mirror that broke off looks like an origin that took most of it back.
fn check_size(order: &Order, name: &str, before: Option<u64>, now: u64) -> Result<()> {
    match before {
        Some(before) if now < before.div_ceil(2) && !order.may_shrink => {
            let what = format!("source \"{name}\" would shrink from {before} entries to {now}");
            Err(ControllerError::new(Kind::Invalid, "advisories-shrink", what)
                .fix("look whether the mirror is whole; if it is meant: --allow-shrink, or --source NAME for an origin of its own"))
        }
        _ => Ok(()),
    }
}

/// Reads all sources into memory, so that all nodes are matched anew. One that cannot be read is said, and the others count.
pub async fn load(context: &Context) -> Result<()> {
    let sources = advisories::sources(&context.storage.repo).await?;
    let files = context.files.advisories.clone();
    let (set, damaged) = blocking(move || Ok(read_all(&files, &sources))).await?;
    for (source, why) in &damaged {
        tracing::error!(source, "advisories of this source cannot be read, import them again: {why}");
    }
    context.memory.findings.set_advisories(Arc::new(set), damaged);
    Ok(())
}

fn read_all(files: &AdvisoryFiles, sources: &[SourceRecord]) -> (AdvisorySet, BTreeMap<String, String>) {
    let (mut set, mut damaged) = (AdvisorySet::default(), BTreeMap::new());
    for source in sources {
        match files.load(&source.digest) {
            Ok(one) => set.join(one),
            Err(error) => drop(damaged.insert(source.name.clone(), error.to_string())),
        }
    }
    let digests: Vec<_> = sources.iter().map(|source| source.digest).collect();
    if let Err(error) = files.keep_only(&digests) {
        tracing::warn!("files of former advisories cannot be removed: {error}");
    }
    (set, damaged)
}

/// All sources.
pub async fn list(context: &Context) -> Result<Page<AdvisorySource>> {
    let damaged = context.memory.findings.advisories().1;
    let items = advisories::sources(&context.storage.repo).await?.into_iter().map(|source| AdvisorySource {
        damaged: damaged.get(&source.name).cloned(),
        skipped: source.skipped.iter().map(told).collect(),
        skipped_count: source.skipped_count,
        name: source.name,
        entries: source.entries,
        newest: source.newest,
        imported: source.imported,
        by: source.by,
        digest: source.digest,
    });
    Ok(Page { schema: "fleet/v1/advisory-list".to_owned(), items: items.collect(), next: None })
}

/// One advisory.
pub fn show(context: &Context, id: &str) -> Result<AdvisoryView> {
    let (set, _) = context.memory.findings.advisories();
    let Some(advisory) = set.advisories.get(id) else {
        let shown: String = id.chars().filter(|c| !c.is_control()).take(80).collect();
        return Err(ControllerError::not_found("advisory", shown)
            .fix("for a CVE: fleetctl patch show CVE; which sources there are: fleetctl advisory list"));
    };
    let is_it = |findings: &crate::fleet::findings::NodeFindings| {
        findings.found.iter().any(|found| found.about.id == advisory.id)
    };
    let nodes = context.memory.findings.all().iter().filter(|(_, findings)| is_it(findings)).count();
    Ok(AdvisoryView {
        schema: "fleet/v1/advisory".to_owned(),
        id: advisory.id.clone(),
        cves: advisory.cves.iter().map(ToString::to_string).collect(),
        summary: advisory.summary.clone(),
        file: advisory.file.clone(),
        published: advisory.published,
        modified: advisory.modified,
        withdrawn: advisory.withdrawn,
        scores: scores(&set, advisory),
        exploited: set.exploited_of(advisory).map(|(_, listed)| listed.added),
        affected: advisory.affected.iter().map(affected).take(500).collect(),
        nodes: u32::try_from(nodes).unwrap_or(u32::MAX),
    })
}

fn scores(set: &AdvisorySet, advisory: &Advisory) -> Vec<ScoreItem> {
    let counting = set.score_of(advisory).map(|(given, _)| given);
    let others = advisory.cves.iter().flat_map(|cve| set.scores.of(*cve));
    let mut items: Vec<ScoreItem> = advisory
        .scores
        .iter()
        .chain(others)
        .map(|given| ScoreItem {
            by: given.by.clone(),
            vector: given.vector.clone(),
            score: given.read().ok().map(|read| read.score.to_string()),
            counts: Some(given) == counting,
        })
        .collect();
    items.sort_by_key(|item| !item.counts);
    items
}

fn affected(one: &fleet_advisories::advisory::Affected) -> String {
    let ranges = one.ranges.iter().map(|range| {
        let from = range.introduced.as_ref().map(|from| format!("from {from} ")).unwrap_or_default();
        range
            .fixed()
            .map_or_else(|| format!("{from}without a fix"), |fixed| format!("{from}fixed in {fixed}"))
    });
    let listed = (!one.versions.is_empty()).then(|| format!("{} versions listed", one.versions.len()));
    let what: Vec<String> = ranges.chain(listed).collect();
    format!("{} {}: {}", one.distribution, one.package, what.join("; "))
}

fn told(skipped: &Skipped) -> AdvisorySkipped {
    AdvisorySkipped {
        reason: skipped.reason.clone(),
        count: skipped.count as u64,
        file: skipped.file.clone(),
        place: skipped.place.clone(),
    }
}

fn shortened(one: &Skipped) -> Skipped {
    Skipped { reason: short(&one.reason), count: one.count, file: short(&one.file), place: short(&one.place) }
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS).collect()
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(act).await.map_err(ControllerError::internal)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::matcher::Matcher;
    use crate::service::{findings, packages, patches};
    use crate::testing::{TestContext, enrolled, leaves, operator};
    use fleet_types::audit::Decision;
    use fleet_types::digest::Digest;
    use fleet_types::package_version::PackageFormat;
    use fleet_types::packages::{Package, PackageList};

    fn osv(id: &str, cve: &str, fixed: &str) -> String {
        format!(
            r#"{{"id":"{id}","aliases":["{cve}"],"modified":"2026-01-02T00:00:00Z","published":"2026-01-01T00:00:00Z",
            "severity":[{{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}}],
            "affected":[{{"package":{{"ecosystem":"Debian:12","name":"openssl"}},
            "ranges":[{{"type":"ECOSYSTEM","events":[{{"introduced":"0"}},{{"fixed":"{fixed}"}}]}}]}}]}}"#
        )
    }

    async fn import(context: &Context, order: &Order, files: &[&str]) -> Result<AdvisoryImport> {
        let (_turn, mut one) = begin(context).await.unwrap();
        for (number, file) in files.iter().enumerate() {
            one = spool(one, format!("{number}.json"), true, file.as_bytes().to_vec()).await?;
        }
        finish(context, &operator(), order, one).await
    }

    async fn settle(context: &Context) {
        let matcher = Matcher::start().unwrap();
        while let Some(due) = context.memory.findings.take_due() {
            findings::match_due(context, &matcher, &due).await.unwrap();
        }
    }

    async fn has(context: &Context, agent: &crate::service::caller::Agent, version: &str) {
        let package = Package {
            source: "openssl".to_owned(),
            source_version: version.to_owned(),
            name: "libssl3".to_owned(),
            version: version.to_owned(),
            architecture: "amd64".to_owned(),
        };
        let list = PackageList::new(PackageFormat::Dpkg, "debian".to_owned(), "12".to_owned(), vec![package]);
        let bytes = list.to_bytes().unwrap();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &bytes).unwrap();
        let packed = packed.finish().unwrap();
        let arrived = packages::Arrived { list: Digest::of(&bytes), state: b"{}".to_vec(), packed };
        packages::take(context, agent, arrived).await.unwrap();
    }

    #[tokio::test]
    async fn an_import_counts_whole_is_found_on_nodes_and_goes_with_the_fix() {
        let test = TestContext::new().await;
        let context = &test.context;
        let agent = enrolled(context, 1).await;
        has(context, &agent, "3.0.9-1").await;
        let order = Order::default();
        let (one, two) = (osv("A-1", "CVE-2026-0001", "3.0.9-2"), osv("A-2", "CVE-2026-0002", "3.0.8-1"));
        let broken = import(context, &order, &[&one, "{\"id\":"]).await.unwrap_err();
        assert!(broken.detail.causes[0].starts_with("1.json: "), "{:?}", broken.detail.causes);
        assert!(list(context).await.unwrap().items.is_empty());
        let done = import(context, &order, &[&one, &two]).await.unwrap();
        assert_eq!((done.files, done.sources[0].name.as_str(), done.sources[0].entries), (2, "osv", 2));
        let told: Vec<Decision> =
            leaves(context, "advisory.import").await.into_iter().map(|leaf| leaf.decision).collect();
        assert_eq!(told, [Decision::Refused, Decision::Allowed]);
        settle(context).await;
        let page = patches::list(context, "", "", 10).await.unwrap();
        let ids: Vec<&str> = page.items.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(ids, ["CVE-2026-0001"]);
        assert_eq!((page.items[0].severity.as_str(), page.items[0].without_fix), ("critical", 1));
        let shown = patches::show(context, "CVE-2026-0001", "").await.unwrap();
        let line = &shown.nodes[0];
        assert!(line.why.contains("3.0.9-1 is before 3.0.9-2"), "{}", line.why);
        assert!(patches::list(context, "site=none", "", 10).await.unwrap().items.is_empty());
        assert_eq!(patches::show(context, "CVE-2026-0002", "").await.unwrap_err().kind, Kind::NotFound);
        // A start reads the files again, and the same node has the same clock.
        context.memory.findings.set_advisories(Arc::default(), BTreeMap::new());
        load(context).await.unwrap();
        settle(context).await;
        assert_eq!(patches::show(context, "A-1", "").await.unwrap().nodes[0].due, line.due);
        has(context, &agent, "3.0.9-2").await;
        settle(context).await;
        assert!(patches::list(context, "", "", 10).await.unwrap().items.is_empty());
        let sla = patches::sla(context, "").await.unwrap();
        assert_eq!((sla.deadlines.late, sla.deadlines.in_time, sla.count), (0, 0, 0));
    }

    #[tokio::test]
    async fn what_was_not_said_and_what_cannot_be_read_is_unknown_and_never_in_time() {
        let test = TestContext::new().await;
        let context = &test.context;
        let agent = enrolled(context, 1).await;
        has(context, &agent, "3.0.9-2").await;
        import(context, &Order::default(), &[&osv("A-1", "CVE-2026-0001", "3.0.9-2")]).await.unwrap();
        // What could not be matched at once is due once more.
        let due = context.memory.findings.take_due().unwrap();
        context.memory.findings.due_again(due);
        settle(context).await;
        enrolled(context, 2).await;
        let sla = patches::sla(context, "").await.unwrap();
        assert_eq!((sla.deadlines.nodes_unknown, sla.nodes.len()), (1, 1), "{sla:?}");
        assert_eq!(sla.nodes[0].unknown, ["it has not said what packages it has"]);
        // The only source is gone from the disk: nothing is found, and nothing counts as well.
        context.files.advisories.keep_only(&[]).unwrap();
        load(context).await.unwrap();
        settle(context).await;
        let counted = patches::count(context).await.unwrap();
        assert_eq!((counted.nodes_unknown, counted.late), (2, 0));
        let sla = patches::sla(context, "").await.unwrap();
        assert!(sla.nodes.iter().all(|node| node.unknown[0].ends_with("source osv")), "{sla:?}");
    }

    #[tokio::test]
    async fn each_origin_replaces_its_own_and_none_shrinks_unasked() {
        let test = TestContext::new().await;
        let context = &test.context;
        let order = Order::default();
        let documents: Vec<String> =
            (0..4).map(|n| osv(&format!("A-{n}"), &format!("CVE-2026-000{n}"), "3")).collect();
        let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
        import(context, &order, &documents).await.unwrap();
        let kev = r#"{"catalogVersion":"1","count":1,"vulnerabilities":[{"cveID":"CVE-2026-0001","dateAdded":"2026-01-03"}]}"#;
        let done = import(context, &order, &[kev]).await.unwrap();
        assert_eq!((done.sources[0].name.as_str(), done.sources[0].before), ("kev", None));
        let shrinks = import(context, &order, &documents[..1]).await.unwrap_err();
        assert_eq!(shrinks.detail.code, "advisories-shrink");
        let labelled = Order { label: "lab".to_owned(), ..Order::default() };
        import(context, &labelled, &documents[..1]).await.unwrap();
        let meant = Order { may_shrink: true, ..Order::default() };
        let done = import(context, &meant, &documents[..1]).await.unwrap();
        assert_eq!(done.sources[0].before, Some(4));
        let sources = list(context).await.unwrap().items;
        let told: Vec<_> = sources.iter().map(|source| (source.name.as_str(), source.entries)).collect();
        assert_eq!(told, [("kev", 1), ("osv", 1), ("osv:lab", 1)]);
        assert!(show(context, "A-3").is_err() && show(context, "A-0").is_ok());
        for label in ["Lab", "a b", "../x"] {
            assert!(Order { label: label.to_owned(), ..Order::default() }.check().is_err(), "{label}");
        }
    }
}
