//! An operator with their key, listed in the trust bundle, and documents that they applied.

use std::sync::Arc;
use std::time::Duration;

use fleet_types::canonical;
use fleet_types::document::Document;
use fleet_types::seal::{Envelope, Kind, SigningKey};
use fleet_types::standing_order::{STANDING_ORDER_SCHEMA, StandingOrder};
use fleet_types::trust::{ContentKey, OperatorRole};
use serde_json::json;

use super::operator;
use crate::context::Context;
use crate::repo::documents::{self, DocumentRecord};
use crate::repo::operators::OperatorRecord;
use crate::service::caller::Operator;

/// An operator whose signature nodes accept.
pub struct Signer {
    /// The caller.
    pub caller: Operator,
    key: SigningKey,
}

impl Signer {
    /// A new operator, listed with this role.
    pub fn listed(context: &Context, role: OperatorRole) -> Self {
        let key = SigningKey::generate().unwrap().0;
        let caller = operator();
        let record = OperatorRecord { content_key: key.public(), ..(*caller.record).clone() };
        let signer = Self { caller: Operator { record: Arc::new(record), ..caller }, key };
        signer.list(context, Some(role));
        signer
    }

    /// Lists the key with a role alone, or takes it out of the bundle.
    pub fn list(&self, context: &Context, role: Option<OperatorRole>) {
        let (mut bundle, signed) = (*context.identities.trust.get()).clone();
        bundle.version += 1;
        bundle.content_keys = role.into_iter().map(|role| self.entry(role)).collect();
        context.identities.trust.set(bundle, signed);
    }

    fn entry(&self, role: OperatorRole) -> ContentKey {
        let record = &self.caller.record;
        ContentKey { key: self.key.public(), operator: record.id, person: record.name.clone(), role }
    }

    /// Signed bytes of anything.
    pub fn seal<T: serde::Serialize>(&self, context: &Context, kind: Kind, text: &T) -> Envelope {
        self.key.seal(kind, context.identities.fleet.fleet, canonical::to_vec(text).unwrap())
    }

    /// Stores a document as the next revision of its name.
    pub async fn apply(&self, context: &Context, document: serde_json::Value) -> DocumentRecord {
        let document: Document = serde_json::from_value(document).unwrap();
        let envelope = self.seal(context, Kind::Document, &document);
        let (kind, name) = (document.kind().to_string(), document.name().to_string());
        let place = documents::head(&kind, &name).unwrap();
        let head = context.storage.repo.get::<DocumentRecord>(&place).await.unwrap();
        let record = DocumentRecord {
            kind,
            name,
            revision: head.as_ref().map_or(0, |head| head.record.revision) + 1,
            version: None,
            digest: envelope.digest(),
            description: String::new(),
            applied: context.storage.clock.now(),
            key: envelope.key,
            signed_by: "ada".to_owned(),
        };
        let (seen, stored) = (head.map(|head| head.write_id), serde_json::to_vec(&envelope).unwrap());
        let batch = context.storage.audited.batch();
        let batch = documents::add_revision(batch, seen, &record, &stored, b"source").unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        record
    }
}

/// A profile, a procedure that reads, and a file with schedules that call it, as they were applied.
pub struct Applied {
    /// The file.
    pub file: DocumentRecord,
    procedure: DocumentRecord,
    profile: DocumentRecord,
}

impl Applied {
    /// Applies all of them; `schedules` are entries of the file "edge", less procedure, cron and window.
    pub async fn new(context: &Context, signer: &Signer, schedules: &[serde_json::Value]) -> Self {
        let profile = json!({"kind": "profile", "schema": "fleet/v1", "name": "fw", "version": 1});
        let procedure = json!({"kind": "procedure", "schema": "fleet/v1", "name": "look", "version": 1,
            "profile": "fw", "selector": "site=ams2", "changes": false, "timeout": "10m",
            "step": [{"id": "disk", "kind": "task", "uses": "disk.report"}]});
        let profile = signer.apply(context, profile).await;
        let procedure = signer.apply(context, procedure).await;
        let file = signer.apply(context, file(schedules)).await;
        Self { file, procedure, profile }
    }

    /// The order for one of the schedules, from now on for 400 days.
    pub fn order(&self, context: &Context, schedule: &str) -> StandingOrder {
        let now = context.storage.clock.now();
        StandingOrder {
            schema: STANDING_ORDER_SCHEMA.to_owned(),
            fleet: context.identities.fleet.fleet,
            file: self.file.digest,
            file_revision: self.file.revision,
            schedule: schedule.parse().unwrap(),
            procedure: self.procedure.digest,
            procedure_revision: self.procedure.revision,
            profile: self.profile.digest,
            profile_revision: self.profile.revision,
            rollout_policy: None,
            selector: "site=ams2".to_owned(),
            max_parallel: 5,
            max_failures: None,
            not_before: now,
            not_after: now.plus(Duration::from_hours(400 * 24)),
        }
    }
}

/// A file "edge" with these schedules.
pub fn file(schedules: &[serde_json::Value]) -> serde_json::Value {
    let schedules: Vec<_> = schedules
        .iter()
        .map(|more| {
            let mut one = json!({"procedure": "look", "cron": "0 2 * * *", "window": "2h"});
            one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            one
        })
        .collect();
    json!({"kind": "schedule", "schema": "fleet/v1", "name": "edge", "schedule": schedules})
}
