//! Documents: applied as signed bytes with their source beside them, numbered by name, never changed.

use fleet_documents as front;
use fleet_types::action::nearest;
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::document::{Document, DocumentKind};
use fleet_types::seal::{Envelope, Kind as SealKind};
use fleet_types::view::{ApplyItem, ApplyView, DocumentItem, DocumentView, Page};

use super::caller::Operator;
use super::idempotency::Once;
use super::{limits, signatures};
use crate::context::{Identities, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::repo::audited::AuditEntry;
use crate::repo::documents::{self, DocumentRecord};
use crate::repo::reader::Stored;

/// Most documents of one apply: a profile with all its procedures is about twenty.
const MAX_DOCUMENTS: usize = 200;

/// A document as it comes from the operator.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// Signed bytes.
    pub envelope: Envelope,
    /// TOML source, unsigned.
    pub source: Vec<u8>,
    /// Name of the source, for messages.
    pub source_name: String,
}

struct Checked {
    submitted: Submitted,
    document: Document,
    digest: Digest,
}

/// Checks a set of documents and stores what is new.
pub async fn apply(
    storage: &Storage,
    identities: &Identities,
    caller: &Operator,
    documents: Vec<Submitted>,
    idempotency_key: &str,
    reason: &str,
    dry_run: bool,
) -> Result<ApplyView> {
    if documents.is_empty() || documents.len() > MAX_DOCUMENTS {
        return Err(ControllerError::invalid("documents", format!("send 1 to {MAX_DOCUMENTS} documents")));
    }
    limits::check_reason(reason)?;
    let digests: Vec<Digest> = documents.iter().map(|d| d.envelope.digest()).collect();
    let words = [reason.as_bytes(), &[u8::from(dry_run)]];
    let arguments: Vec<&[u8]> = digests.iter().map(|d| d.as_bytes().as_slice()).chain(words).collect();
    let once = Once::new(caller, idempotency_key, "document.apply", &arguments)?;
    if let Some(answer) = once.answer(storage).await? {
        return Ok(answer);
    }
    let checked: Vec<Checked> =
        documents.into_iter().map(|submitted| check(identities, caller, submitted)).collect::<Result<_>>()?;
    let mut view = ApplyView {
        schema: "fleet/v1/apply".to_owned(),
        dry_run,
        items: Vec::new(),
        warnings: check_sources(storage, &checked).await?,
    };
    let mut batch = storage.audited.batch();
    let mut leaves = Vec::new();
    let (now, trust) = (storage.clock.now(), identities.trust.get());
    for one in &checked {
        let (kind, name) = (one.document.kind(), one.document.name().as_str());
        let head_key = documents::head(kind.as_str(), name)?;
        let head = storage.repo.get::<DocumentRecord>(&head_key).await?;
        let known = head.as_ref().filter(|head| head.record.digest == one.digest);
        // What somebody signed whom nodes do not believe any more is believed again with a signature of today.
        let is_believed = |head: &Stored<DocumentRecord>| trust.0.signer(&head.record.key).is_some();
        let unchanged = known.is_some_and(is_believed);
        let revision = head.as_ref().map_or(0, |head| head.record.revision) + u32::from(known.is_none());
        let action = match (&head, known.is_some()) {
            (None, _) => "created",
            (Some(_), true) if unchanged => "unchanged",
            (Some(_), true) => "signed",
            (Some(_), false) => "updated",
        };
        view.items.push(ApplyItem {
            kind: kind.to_string(),
            name: name.to_owned(),
            action: action.to_owned(),
            revision,
            digest: one.digest,
        });
        if unchanged {
            continue;
        }
        if let Some(head) = &head {
            keeps_its_profile(storage, &one.document, head.record.digest).await?;
        }
        let record = DocumentRecord {
            kind: kind.to_string(),
            name: name.to_owned(),
            revision,
            version: one.document.version().map(u64::from),
            digest: one.digest,
            description: description(&one.document).to_owned(),
            applied: now,
            key: one.submitted.envelope.key,
            signed_by: caller.record.name.to_string(),
        };
        let envelope = serde_json::to_vec(&one.submitted.envelope).map_err(ControllerError::internal)?;
        batch = match (known, &head) {
            (Some(known), _) => documents::sign_again(batch, known.write_id, &record, &envelope)?,
            (None, head) => {
                let seen = head.as_ref().map(|head| head.write_id);
                documents::add_revision(batch, seen, &record, &envelope, &one.submitted.source)?
            }
        };
        let what = if known.is_some() { "document.sign" } else { "document.apply" };
        leaves.push(
            AuditEntry::new(caller.actor(), what, format!("{kind}/{name}/{revision}"))
                .subject(one.digest)
                .idempotency(idempotency_key)
                .text(reason),
        );
    }
    if !dry_run && !leaves.is_empty() {
        batch = once.store(storage, batch, &view)?;
        storage.audited.commit(batch, leaves).await?;
    }
    Ok(view)
}

/// A procedure stays with its profile: otherwise the folder of one product would take the procedures of another, whose
/// schedules and habits name them, without a word.
async fn keeps_its_profile(storage: &Storage, next: &Document, current: Digest) -> Result<()> {
    let Document::Procedure(next) = next else { return Ok(()) };
    let Document::Procedure(current) = document(storage, current).await? else { return Ok(()) };
    if current.profile == next.profile {
        return Ok(());
    }
    let (name, owner, other) = (&next.name, &current.profile, &next.profile);
    Err(ControllerError::new(
        Kind::Conflict,
        "other-profile",
        format!("procedure \"{name}\" belongs to profile \"{owner}\"; this one is of profile \"{other}\""),
    )
    .fix("give this one a name of its own"))
}

/// Signature and form of one document as it was sent.
fn check(identities: &Identities, caller: &Operator, submitted: Submitted) -> Result<Checked> {
    let document = check_signed(identities, caller, &submitted.envelope, &submitted.source_name)?;
    let digest = submitted.envelope.digest();
    Ok(Checked { submitted, document, digest })
}

/// The document in signed bytes of this caller, in canonical form; `what` names it in messages.
pub fn check_signed(
    identities: &Identities,
    caller: &Operator,
    envelope: &Envelope,
    what: &str,
) -> Result<Document> {
    signatures::check(identities, caller, envelope, SealKind::Document, what)?;
    canonical::from_signed(&envelope.payload).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        ControllerError::invalid("documents.envelope", format!("{what}: {error}{cause}"))
    })
}

/// Runs the front end over the sources: what it refuses for the operator it refuses here, and each source
/// must say what its signed bytes say. References may also go to what was applied before.
async fn check_sources(storage: &Storage, checked: &[Checked]) -> Result<Vec<String>> {
    let sources = checked
        .iter()
        .map(|one| {
            let text = std::str::from_utf8(&one.submitted.source)
                .map_err(|_| ControllerError::invalid("documents.source", "it is not UTF-8"))?;
            Ok(front::SourceFile { name: &one.submitted.source_name, text })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut applied = Vec::new();
    for item in list(storage, "").await?.items {
        applied.push(document(storage, item.digest).await?);
    }
    let built = fleet_types::action::BUILT.iter().copied().collect();
    let lint = front::Lint { applied: &applied, built_actions: Some(&built), ..front::Lint::default() };
    let set = front::parse_set(&sources, &lint).map_err(|problems| {
        let mut lines = problems.iter().map(ToString::to_string);
        let first = lines.next().unwrap_or_default();
        let mut error = ControllerError::new(Kind::Invalid, "config-invalid", first);
        error.detail.causes = lines.collect();
        error.fix("mend the files; fleetctl config validate shows all of it offline")
    })?;
    for (one, parsed) in checked.iter().zip(&set.documents) {
        if parsed.document != one.document {
            return Err(ControllerError::invalid(
                "documents.source",
                format!("{}: the source does not say what was signed", one.submitted.source_name),
            ));
        }
    }
    Ok(set.warnings.iter().map(ToString::to_string).collect())
}

fn description(document: &Document) -> &str {
    match document {
        Document::Profile(profile) => &profile.description,
        Document::Procedure(procedure) => &procedure.description,
        Document::Schedule(_) => "",
        Document::RolloutPolicy(policy) => &policy.description,
    }
}

fn item(record: DocumentRecord) -> DocumentItem {
    DocumentItem {
        kind: record.kind,
        name: record.name,
        revision: record.revision,
        version: record.version,
        digest: record.digest,
        description: record.description,
        applied: record.applied,
        signed_by: record.signed_by,
    }
}

/// Newest revisions of all documents of a kind, or of all kinds.
pub async fn list(storage: &Storage, kind: &str) -> Result<Page<DocumentItem>> {
    let prefix = if kind.is_empty() {
        documents::HEADS.to_owned()
    } else {
        let kind: DocumentKind = kind.parse().map_err(|error| ControllerError::invalid("kind", error))?;
        documents::heads_of(kind.as_str())
    };
    let all = storage.repo.all::<DocumentRecord>(&prefix).await?;
    let items = all.into_iter().map(|(_, stored)| item(stored.record)).collect();
    Ok(Page { schema: "fleet/v1/document-list".to_owned(), items, next: None })
}

/// One document with its source.
pub async fn show(storage: &Storage, kind: &str, name: &str, revision: u32) -> Result<DocumentView> {
    let kind: DocumentKind = kind.parse().map_err(|error| ControllerError::invalid("kind", error))?;
    let key = match revision {
        0 => documents::head(kind.as_str(), name)?,
        n => documents::revision(kind.as_str(), name, n)?,
    };
    let Some(stored) = storage.repo.get::<DocumentRecord>(&key).await? else {
        return Err(missing(storage, kind, name, revision).await?);
    };
    let envelope = envelope(storage, stored.record.digest).await?;
    let source = storage.repo.object(&documents::source(&stored.record.digest)?).await?.unwrap_or_default();
    Ok(DocumentView {
        schema: "fleet/v1/document".to_owned(),
        content: canonical::from_slice(&envelope.payload).map_err(ControllerError::internal)?,
        envelope: Some(envelope),
        source: String::from_utf8_lossy(&source).into_owned(),
        item: item(stored.record),
    })
}

/// What to say of a document that is not there: which revision is the newest, or which name was meant.
async fn missing(
    storage: &Storage,
    kind: DocumentKind,
    name: &str,
    revision: u32,
) -> Result<ControllerError> {
    let head = documents::head(kind.as_str(), name)?;
    if let Some(newest) = storage.repo.get::<DocumentRecord>(&head).await? {
        let what = format!("{kind} \"{name}\" has no revision {revision}");
        return Ok(ControllerError::new(Kind::NotFound, "not-found", what)
            .fix(format!("its newest revision is {}", newest.record.revision)));
    }
    let known = list(storage, kind.as_str()).await?.items;
    let meant = nearest(name, known.iter().map(|item| item.name.as_str()));
    let fix = meant.map_or_else(
        || format!("list them: fleetctl {kind} list"),
        |meant| format!("did you mean \"{meant}\"? all of them: fleetctl {kind} list"),
    );
    Ok(ControllerError::not_found(kind.as_str(), name).fix(fix))
}

/// Refuses a number that is not the one of this document under its name; `what` names the text that says so.
pub async fn check_revision(
    storage: &Storage,
    what: &str,
    kind: DocumentKind,
    name: &str,
    (revision, digest): (u32, Digest),
) -> Result<()> {
    let key = documents::revision(kind.as_str(), name, revision)?;
    let stored = storage.repo.get::<DocumentRecord>(&key).await?;
    if stored.is_some_and(|stored| stored.record.digest == digest) {
        return Ok(());
    }
    let why = format!("{revision} is not the number of this {kind} under \"{name}\"");
    Err(ControllerError::invalid(&format!("{what}.{kind}_revision"), why))
}

/// Signed bytes by digest: a document or a request.
pub async fn envelope(storage: &Storage, digest: Digest) -> Result<Envelope> {
    let bytes = storage
        .repo
        .object(&documents::content(&digest)?)
        .await?
        .ok_or_else(|| ControllerError::not_found("signed text", digest))?;
    serde_json::from_slice(&bytes).map_err(ControllerError::internal)
}

/// A document by digest, of the kind that the caller expects.
pub async fn document(storage: &Storage, digest: Digest) -> Result<Document> {
    let envelope = envelope(storage, digest).await?;
    canonical::from_slice(&envelope.payload).map_err(ControllerError::internal)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fleet_types::seal::SigningKey;
    use fleet_types::trust::{ContentKey, OperatorRole};

    use super::*;
    use crate::repo::operators::OperatorRecord;
    use crate::repo::reader::BatchExt as _;
    use crate::testing::{TestContext, operator};

    #[tokio::test]
    async fn a_list_does_not_end_at_a_thousand_documents() {
        let test = TestContext::new().await;
        let context = &test.context;
        let mut batch = context.storage.audited.batch();
        for number in 0..1001 {
            let record = DocumentRecord {
                kind: "procedure".to_owned(),
                name: format!("p{number}"),
                revision: 1,
                version: None,
                digest: Digest::of(b""),
                description: String::new(),
                applied: context.storage.clock.now(),
                key: Digest::of(b""),
                signed_by: String::new(),
            };
            batch = batch.put_record(documents::head("procedure", &record.name).unwrap(), &record).unwrap();
        }
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        for kind in ["", "procedure"] {
            assert_eq!(list(&context.storage, kind).await.unwrap().items.len(), 1001);
        }
    }

    #[tokio::test]
    async fn a_request_names_the_number_that_its_document_has() {
        let test = TestContext::new().await;
        let context = &test.context;
        let record = DocumentRecord {
            kind: "procedure".to_owned(),
            name: "daily".to_owned(),
            revision: 2,
            version: None,
            digest: Digest::of(b"second"),
            description: String::new(),
            applied: context.storage.clock.now(),
            key: Digest::of(b""),
            signed_by: String::new(),
        };
        let key = documents::revision("procedure", "daily", 2).unwrap();
        let batch = context.storage.audited.batch().put_record(key, &record).unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        let check = |revision, digest| {
            let numbered = (revision, digest);
            check_revision(&context.storage, "request", DocumentKind::Procedure, "daily", numbered)
        };
        check(2, record.digest).await.unwrap();
        for (revision, digest) in [(2, Digest::of(b"first")), (3, record.digest)] {
            let error = check(revision, digest).await.unwrap_err().to_string();
            assert!(error.starts_with("request.procedure_revision: "), "{error}");
        }
    }

    #[tokio::test]
    async fn what_a_person_signed_who_is_gone_is_believed_again_with_another_signature() {
        let test = TestContext::new().await;
        let context = &test.context;
        let keys = [(); 2].map(|()| SigningKey::generate().unwrap().0);
        let [ada, eve] = [("ada", &keys[0]), ("eve", &keys[1])].map(|(name, key)| {
            let record = OperatorRecord {
                name: name.parse().unwrap(),
                content_key: key.public(),
                ..OperatorRecord::clone(&operator().record)
            };
            Operator { record: Arc::new(record), ..operator() }
        });
        let list = |listed: Vec<&Operator>| {
            let entry = |person: &&Operator| ContentKey {
                key: person.record.content_key,
                operator: person.record.id,
                person: person.record.name.clone(),
                role: OperatorRole::Operator,
            };
            let (bundle, signed) = (*context.identities.trust.get()).clone();
            let next = bundle.clone().with_content_keys(listed.iter().map(entry).collect(), bundle.issued);
            context.identities.trust.set(next, signed);
        };
        let source = "schema = \"fleet/v1\"\nkind = \"schedule\"\nname = \"edge\"\n";
        let apply_as = async |who: &Operator, key: &SigningKey| {
            let file = front::SourceFile { name: "edge.toml", text: source };
            let set = front::parse_set(&[file], &front::Lint::default()).unwrap();
            let payload = canonical::to_vec(&set.documents[0].document).unwrap();
            let envelope = key.seal(SealKind::Document, context.identities.fleet.fleet, payload);
            let submitted =
                Submitted { envelope, source: source.into(), source_name: "edge.toml".to_owned() };
            let view =
                apply(&context.storage, &context.identities, who, vec![submitted], "", "", false).await;
            let item = view.unwrap().items.remove(0);
            (item.action, item.revision)
        };
        list(vec![&ada, &eve]);
        assert_eq!(apply_as(&ada, &keys[0]).await, ("created".to_owned(), 1));
        assert_eq!(apply_as(&eve, &keys[1]).await, ("unchanged".to_owned(), 1));
        list(vec![&eve]);
        assert_eq!(apply_as(&eve, &keys[1]).await, ("signed".to_owned(), 1));
        let shown = show(&context.storage, "schedule", "edge", 1).await.unwrap();
        assert_eq!(
            (shown.envelope.unwrap().key, shown.item.signed_by.as_str()),
            (keys[1].public().id(), "eve")
        );
        assert_eq!(apply_as(&eve, &keys[1]).await, ("unchanged".to_owned(), 1));
        assert_eq!(crate::testing::leaves(context, "document.sign").await.len(), 1);
    }
}
