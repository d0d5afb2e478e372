//! The thread that matches nodes with advisories. It has the index of the set that is known, which takes longer to make than a node
//! takes to match, and keeps it until another set comes.
//!
//! Touches no store and no memory but its own: what it is asked stands in the question. Called by `findings`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use fleet_advisories::clock::Start;
use fleet_advisories::import::AdvisorySet;
use fleet_advisories::inventory::{Inventory, NodeState, PackageList};
use fleet_advisories::matching::{Index, Standing, find};
use fleet_types::id::NodeId;
use fleet_types::time::Timestamp;
use fleet_types::view::FixState;
use tokio::sync::oneshot;

use crate::error::{ControllerError, Result};
use crate::fleet::findings::{About, Found, NodeFindings};

/// A node, what it said, and its packages.
pub type Input = (NodeId, NodeState, PackageList);

struct Question {
    set: Arc<AdvisorySet>,
    inputs: Vec<Input>,
    answer: oneshot::Sender<Vec<(NodeId, NodeFindings)>>,
}

/// The way to the thread. It ends with this.
pub struct Matcher(SyncSender<Question>);

impl Matcher {
    /// Starts the thread.
    pub fn start() -> Result<Self> {
        // One question at a time: whoever asks waits for the answer.
        let (questions, asked) = sync_channel(1);
        let thread = thread::Builder::new().name("advisories".to_owned());
        thread.spawn(move || serve(&asked)).map_err(ControllerError::internal)?;
        Ok(Self(questions))
    }

    /// What of the set is on these nodes.
    ///
    /// # Errors
    /// When the thread is gone: a fault of ours, in its log.
    pub async fn all(
        &self,
        set: Arc<AdvisorySet>,
        inputs: Vec<Input>,
    ) -> Result<Vec<(NodeId, NodeFindings)>> {
        let (answer, answered) = oneshot::channel();
        let gone =
            || ControllerError::internal(std::io::Error::other("the thread that matches advisories is gone"));
        // Room for one is there: the question before was answered, or nobody waits for it any more.
        self.0.try_send(Question { set, inputs, answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}

fn serve(questions: &Receiver<Question>) {
    let mut next = questions.recv().ok();
    while let Some(question) = next.take() {
        let set = Arc::clone(&question.set);
        let index = Index::new(&set);
        let mut abouts = HashMap::new();
        let mut same = Some(question);
        while let Some(Question { inputs, answer, .. }) = same.take() {
            let one = |(node, state, list)| (node, match_one(&set, &index, list, &state, &mut abouts));
            // Whoever asked may have gone.
            let _ = answer.send(inputs.into_iter().map(one).collect());
            match questions.recv() {
                Ok(question) if Arc::ptr_eq(&question.set, &set) => same = Some(question),
                other => next = other.ok(),
            }
        }
    }
}

fn match_one(
    set: &AdvisorySet,
    index: &Index<'_>,
    list: PackageList,
    state: &NodeState,
    abouts: &mut HashMap<String, Arc<About>>,
) -> NodeFindings {
    match Inventory::of_list(list) {
        Ok(inventory) => one(set, index, &inventory, state, abouts),
        Err(error) => NodeFindings { found: Vec::new(), unknown: vec![error.to_string()] },
    }
}

fn one(
    set: &AdvisorySet,
    index: &Index<'_>,
    inventory: &Inventory,
    state: &NodeState,
    abouts: &mut HashMap<String, Arc<About>>,
) -> NodeFindings {
    let findings = find(index, inventory, state);
    let mut unknown = Vec::new();
    if !findings.is_known {
        unknown.push(format!("no advisory speaks of {}", inventory.distribution()));
    }
    if !findings.kernel_known {
        unknown.push("the running kernel is none of its packages: each installed one counts".to_owned());
    }
    if let Some(why) = &state.archives_unknown {
        unknown.push(format!("what its archives have is not known: {why}"));
    }
    unknown.extend(findings.old_files_unknown.iter().map(|old| {
        format!(
            "{} run files that {} has replaced; of which version is not known",
            old.services.join(", "),
            old.package
        )
    }));
    let found = findings.findings.iter().map(|finding| {
        let advisory = finding.advisory;
        let about = abouts.entry(advisory.id.clone()).or_insert_with(|| {
            let score = set.score_of(advisory);
            Arc::new(About {
                id: advisory.id.clone(),
                cves: advisory.cves.clone(),
                summary: advisory.summary.clone(),
                score: score.map(|(given, read)| (read.score, given.by.clone(), given.vector.clone())),
                exploited: set.exploited_of(advisory).is_some(),
                published: advisory.published,
            })
        });
        Found {
            about: Arc::clone(about),
            package: finding.package.name.clone(),
            version: finding.version.to_owned(),
            is: state_of(finding.standing),
            stands: finding.stands(),
            why: finding.why(),
            start: Start { published: advisory.published, available: None, found: Timestamp::clamped(0) },
        }
    });
    NodeFindings { found: found.collect(), unknown }
}

const fn state_of(standing: Standing<'_>) -> FixState {
    match standing {
        Standing::ServicesRunOldFiles { .. } => FixState::ServicesRunOldFiles,
        Standing::RebootPending { .. } => FixState::RebootPending,
        Standing::FixInArchive { .. } => FixState::FixInArchive,
        Standing::FixNotInArchive { .. } => FixState::FixNotInArchive,
        Standing::NoFix => FixState::NoFix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_advisories::import::Importer;
    use fleet_types::package_version::PackageFormat;
    use fleet_types::packages::Package;

    fn set(fixed: &[&str]) -> Arc<AdvisorySet> {
        let mut importer = Importer::default();
        for (number, fixed) in fixed.iter().enumerate() {
            let text = format!(
                r#"{{"id":"A-{number}","modified":"2026-01-02T00:00:00Z","affected":[{{"package":{{"ecosystem":"Debian:12",
                "name":"openssl"}},"ranges":[{{"type":"ECOSYSTEM","events":[{{"introduced":"0"}},{{"fixed":"{fixed}"}}]}}]}}]}}"#
            );
            importer.file(&format!("{number}.json"), text.as_bytes());
        }
        Arc::new(importer.finish().unwrap().set)
    }

    async fn found(matcher: &Matcher, set: &Arc<AdvisorySet>, version: &str) -> usize {
        let package = Package {
            source: "openssl".to_owned(),
            source_version: version.to_owned(),
            name: "libssl3".to_owned(),
            version: version.to_owned(),
            architecture: "amd64".to_owned(),
        };
        let list = PackageList::new(PackageFormat::Dpkg, "debian".to_owned(), "12".to_owned(), vec![package]);
        let node = NodeId::from_uuid(uuid::Uuid::from_u128(1));
        let all = matcher.all(Arc::clone(set), vec![(node, NodeState::default(), list)]).await.unwrap();
        all[0].1.found.len()
    }

    #[tokio::test]
    async fn each_question_is_answered_by_the_set_that_it_names() {
        let matcher = Matcher::start().unwrap();
        let (one, two) = (set(&["3"]), set(&["3", "4"]));
        assert_eq!(found(&matcher, &one, "2").await, 1);
        assert_eq!(found(&matcher, &one, "3").await, 0);
        assert_eq!(found(&matcher, &two, "2").await, 2);
        assert_eq!(found(&matcher, &two, "3").await, 1);
        assert_eq!(found(&matcher, &one, "2").await, 1);
        // One that nobody waits for any more holds nobody up.
        drop(matcher.all(Arc::clone(&one), Vec::new()));
        assert_eq!(found(&matcher, &two, "1").await, 2);
    }
}
