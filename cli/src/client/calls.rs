//! The calls of the operator service, one method each.

use std::time::Duration;

use fleet_certs::CertificateDer;
use fleet_proto::pb;
use fleet_types::document::DocumentKind;
use fleet_types::id::{Name, RunId};
use fleet_types::seal::Envelope;
use fleet_types::trust::{OperatorRole, SignedBundle};
use fleet_types::view;

use super::connection::{Client, read_view};
use crate::clock;
use crate::error::Failure;
use crate::signing::{SignedOrder, to_json};

/// Items of one page, the most that the controller gives.
const PAGE: u32 = 500;

/// A signed document with the text that it was written as.
#[derive(Debug, Clone)]
pub struct SourceDocument {
    /// The signed bytes.
    pub envelope: Envelope,
    /// The TOML text, unsigned.
    pub source: String,
    /// Its file's name, for messages.
    pub source_name: String,
}

/// One unary call: sent, and its view read.
macro_rules! ask {
    ($client:expr, $method:ident, $request:expr) => {{
        let send = |request| {
            let mut service = $client.service();
            async move { service.$method(request).await }
        };
        read_view(&$client.unary($request, send).await?.json)
    }};
}

fn list(selector: &str, after: String) -> pb::ListRequest {
    pb::ListRequest { after, limit: PAGE, selector: selector.to_owned() }
}

fn node_order(name: &Name, reason: &str) -> pb::NodeOrderRequest {
    let (name, reason) = (name.to_string(), reason.to_owned());
    pb::NodeOrderRequest { name, reason, idempotency_key: clock::idempotency_key() }
}

impl Client {
    /// Who we are there.
    pub async fn who_am_i(&self) -> Result<view::WhoAmI, Failure> {
        ask!(self, who_am_i, pb::WhoAmIRequest {})
    }

    /// A certificate for a new key of ours; leaf first. Asked once: what fails is asked again by the next command.
    pub async fn renew_certificate(&self, csr: Vec<u8>) -> Result<Vec<CertificateDer<'static>>, Failure> {
        let mut service = self.service();
        let reply = service.renew_certificate(pb::RenewRequest { csr }).await;
        let reply = reply.map_err(|status| self.failed(&status))?.into_inner();
        Ok(reply.certificate_chain.into_iter().map(CertificateDer::from).collect())
    }

    /// The fleet on one screen.
    pub async fn status(&self) -> Result<view::Status, Failure> {
        ask!(self, get_status, pb::StatusRequest {})
    }

    /// A page of the nodes that match a selector.
    pub async fn nodes(&self, selector: &str, after: String) -> Result<view::Page<view::NodeItem>, Failure> {
        ask!(self, list_nodes, list(selector, after))
    }

    /// One node.
    pub async fn node(&self, name: &Name) -> Result<view::NodeView, Failure> {
        ask!(self, get_node, pb::NameRequest { name: name.to_string() })
    }

    /// A page of what packages a node has.
    pub async fn node_packages(&self, name: &Name, after: String) -> Result<view::NodePackages, Failure> {
        let request = pb::NodePackagesRequest { name: name.to_string(), after, limit: PAGE };
        ask!(self, get_node_packages, request)
    }

    /// Makes a node's record and its join token.
    pub async fn create_join_token(
        &self,
        node: &Name,
        labels: &[(String, String)],
        replace_labels: bool,
        lifetime: Duration,
    ) -> Result<view::JoinTokenView, Failure> {
        let request = pb::CreateJoinTokenRequest {
            node_name: node.to_string(),
            labels: labels.iter().cloned().collect(),
            lifetime_seconds: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
            idempotency_key: clock::idempotency_key(),
            replace_labels,
        };
        ask!(self, create_join_token, request)
    }

    /// Gives a node no more work.
    pub async fn hold_node(&self, name: &Name, reason: &str) -> Result<view::Done, Failure> {
        ask!(self, hold_node, node_order(name, reason))
    }

    /// Gives a node work again.
    pub async fn release_node(&self, name: &Name, reason: &str) -> Result<view::Done, Failure> {
        ask!(self, release_node, node_order(name, reason))
    }

    /// Takes a node's record and certificate away.
    pub async fn remove_node(&self, name: &Name, reason: &str) -> Result<view::Done, Failure> {
        ask!(self, remove_node, node_order(name, reason))
    }

    /// A page of certificates.
    pub async fn certificates(&self, after: String) -> Result<view::Page<view::CertificateItem>, Failure> {
        ask!(self, list_certificates, list("", after))
    }

    /// Shuts a node or an operator out for good.
    pub async fn revoke_certificates(&self, holder: &str, reason: &str) -> Result<view::Done, Failure> {
        let request = pb::RevokeRequest {
            holder: holder.to_owned(),
            reason: reason.to_owned(),
            idempotency_key: clock::idempotency_key(),
        };
        ask!(self, revoke_certificates, request)
    }

    /// Makes an invite for a person.
    pub async fn invite_operator(
        &self,
        name: &Name,
        role: OperatorRole,
        lifetime: Duration,
        reason: &str,
    ) -> Result<view::InviteView, Failure> {
        let request = pb::InviteOperatorRequest {
            name: name.to_string(),
            role: role.as_str().to_owned(),
            lifetime_seconds: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
            idempotency_key: clock::idempotency_key(),
            reason: reason.to_owned(),
        };
        ask!(self, invite_operator, request)
    }

    /// Everybody.
    pub async fn operators(&self) -> Result<view::Page<view::OperatorItem>, Failure> {
        ask!(self, list_operators, pb::OperatorsRequest {})
    }

    /// The trust bundle.
    pub async fn trust_bundle(&self) -> Result<view::TrustView, Failure> {
        ask!(self, get_trust_bundle, pb::TrustBundleRequest {})
    }

    /// Stores a newer trust bundle.
    pub async fn publish_trust_bundle(
        &self,
        bundle: &SignedBundle,
        reason: &str,
    ) -> Result<view::Done, Failure> {
        let request = pb::PublishTrustBundleRequest {
            trust_bundle: to_json(bundle),
            reason: reason.to_owned(),
            idempotency_key: clock::idempotency_key(),
        };
        ask!(self, publish_trust_bundle, request)
    }

    /// Stores documents, or with `dry_run` says what that would change.
    pub async fn apply(
        &self,
        documents: &[SourceDocument],
        reason: &str,
        dry_run: bool,
    ) -> Result<view::ApplyView, Failure> {
        let documents = documents.iter().map(|document| pb::SignedDocument {
            envelope: to_json(&document.envelope),
            source: document.source.clone().into_bytes(),
            source_name: document.source_name.clone(),
        });
        let request = pb::ApplyDocumentsRequest {
            documents: documents.collect(),
            idempotency_key: clock::idempotency_key(),
            reason: reason.to_owned(),
            dry_run,
        };
        ask!(self, apply_documents, request)
    }

    /// How every schedule stands.
    pub async fn schedules(&self) -> Result<view::Page<view::ScheduleItem>, Failure> {
        ask!(self, list_schedules, pb::SchedulesRequest { schedule: String::new(), next: 0 })
    }

    /// How one schedule stands, with so many ticks to come; 0 for as many as a list shows.
    pub async fn schedule(&self, name: &str, next: u32) -> Result<view::ScheduleItem, Failure> {
        let request = pb::SchedulesRequest { schedule: name.to_owned(), next };
        let page: view::Page<view::ScheduleItem> = ask!(self, list_schedules, request)?;
        page.items.into_iter().next().ok_or_else(|| Failure::usage(format!("there is no schedule {name}")))
    }

    /// What became of the newest ticks of a schedule.
    pub async fn ticks(&self, name: &str, limit: u32) -> Result<view::Page<view::TickItem>, Failure> {
        ask!(self, list_ticks, pb::TicksRequest { schedule: name.to_owned(), limit })
    }

    /// Pauses a schedule, lets it go on, or says that its misses are seen; without a name all of them.
    pub async fn steer_schedules(
        &self,
        name: Option<&str>,
        action: &str,
        reason: &str,
    ) -> Result<view::Done, Failure> {
        let request = pb::SteerSchedulesRequest {
            schedule: name.unwrap_or_default().to_owned(),
            all: name.is_none(),
            action: action.to_owned(),
            reason: reason.to_owned(),
            idempotency_key: clock::idempotency_key(),
        };
        ask!(self, steer_schedules, request)
    }

    /// Lets schedules of a file start work, by what was signed for them.
    pub async fn authorise_schedules(
        &self,
        file: &Name,
        orders: &[Envelope],
    ) -> Result<view::AuthoriseView, Failure> {
        let request = pb::AuthoriseSchedulesRequest {
            file: file.to_string(),
            orders: orders.iter().map(to_json).collect(),
            idempotency_key: clock::idempotency_key(),
        };
        ask!(self, authorise_schedules, request)
    }

    /// The newest documents of a kind.
    pub async fn documents(
        &self,
        kind: Option<DocumentKind>,
    ) -> Result<view::Page<view::DocumentItem>, Failure> {
        ask!(
            self,
            list_documents,
            pb::ListDocumentsRequest { kind: kind.map_or_else(String::new, |kind| kind.to_string()) }
        )
    }

    /// One document; revision 0 is the newest.
    pub async fn document(
        &self,
        kind: DocumentKind,
        name: &str,
        revision: u32,
    ) -> Result<view::DocumentView, Failure> {
        let request = pb::GetDocumentRequest { kind: kind.to_string(), name: name.to_owned(), revision };
        ask!(self, get_document, request)
    }

    /// Which nodes a selector or names mean now.
    pub async fn resolve_targets(
        &self,
        selector: String,
        names: Vec<String>,
    ) -> Result<view::Targets, Failure> {
        ask!(self, resolve_targets, pb::ResolveTargetsRequest { selector, names })
    }

    /// Starts a run or plan.
    ///
    /// `procedure` is the signed one where it was not applied.
    pub async fn start_run(
        &self,
        order: SignedOrder,
        procedure: Option<&Envelope>,
    ) -> Result<view::RunView, Failure> {
        let request = pb::StartRunRequest {
            request: order.envelope,
            nodes: order.nodes,
            procedure: procedure.map(to_json).unwrap_or_default(),
            idempotency_key: clock::idempotency_key(),
        };
        ask!(self, start_run, request)
    }

    /// A page of runs, newest first.
    pub async fn runs(&self, after: String) -> Result<view::Page<view::RunItem>, Failure> {
        ask!(self, list_runs, list("", after))
    }

    /// One run.
    pub async fn run(&self, run: RunId) -> Result<view::RunView, Failure> {
        ask!(self, get_run, pb::RunRequest { run: run.to_string() })
    }

    /// A page of a run's jobs.
    pub async fn jobs(&self, run: RunId, after: String) -> Result<view::Page<view::JobItem>, Failure> {
        ask!(self, list_jobs, pb::ListJobsRequest { run: run.to_string(), after, limit: PAGE })
    }

    /// One job with its report.
    pub async fn job(&self, run: RunId, node: &Name) -> Result<view::JobView, Failure> {
        ask!(self, get_job, pb::GetJobRequest { run: run.to_string(), node: node.to_string() })
    }

    /// Stops a run.
    pub async fn cancel_run(&self, run: RunId, reason: &str) -> Result<view::Done, Failure> {
        let request = pb::CancelRunRequest {
            run: run.to_string(),
            reason: reason.to_owned(),
            idempotency_key: clock::idempotency_key(),
        };
        ask!(self, cancel_run, request)
    }

    /// A piece of the encrypted copy of an archive; empty at its end.
    pub async fn read_copy(&self, archive: &view::BackupItem, offset: u64) -> Result<Vec<u8>, Failure> {
        let request = pb::ReadCopyRequest {
            node: archive.node.to_string(),
            made_ms: archive.made.as_millis(),
            archive: archive.sha256.as_bytes().to_vec(),
            offset,
        };
        let send = |request| {
            let mut service = self.service();
            async move { service.read_copy(request).await }
        };
        Ok(self.unary(request, send).await?.data)
    }

    /// Pauses a rollout, lets it go on, or lets its next ring begin.
    pub async fn steer_run(&self, run: RunId, action: &str, reason: &str) -> Result<view::Done, Failure> {
        let request = pb::SteerRunRequest {
            run: run.to_string(),
            action: action.to_owned(),
            reason: reason.to_owned(),
            idempotency_key: clock::idempotency_key(),
        };
        ask!(self, steer_run, request)
    }

    /// A page of the backups of the nodes that match a selector.
    pub async fn backups(
        &self,
        selector: &str,
        after: String,
    ) -> Result<view::Page<view::BackupItem>, Failure> {
        ask!(self, list_backups, list(selector, after))
    }

    /// The sources of advisories.
    pub async fn advisory_sources(&self) -> Result<view::Page<view::AdvisorySource>, Failure> {
        ask!(self, list_advisories, pb::AdvisoriesRequest {})
    }

    /// One advisory.
    pub async fn advisory(&self, id: &str) -> Result<view::AdvisoryView, Failure> {
        ask!(self, get_advisory, pb::NameRequest { name: id.to_owned() })
    }

    /// A page of what must be patched on the nodes that match a selector.
    pub async fn patches(
        &self,
        selector: &str,
        after: String,
    ) -> Result<view::Page<view::PatchItem>, Failure> {
        ask!(self, list_patches, list(selector, after))
    }

    /// One CVE with its nodes.
    pub async fn patch(&self, id: &str, selector: &str) -> Result<view::PatchView, Failure> {
        ask!(self, get_patch, pb::PatchRequest { id: id.to_owned(), selector: selector.to_owned() })
    }

    /// How deadlines stand.
    pub async fn patch_sla(&self, selector: &str) -> Result<view::PatchSla, Failure> {
        ask!(self, get_patch_sla, pb::PatchRequest { id: String::new(), selector: selector.to_owned() })
    }

    /// Whether deadlines can be held by a rollout policy.
    pub async fn patch_plan(
        &self,
        policy: &Name,
        selector: &str,
        takes: Duration,
    ) -> Result<view::PatchPlan, Failure> {
        let request = pb::PlanPatchesRequest {
            policy: policy.to_string(),
            selector: selector.to_owned(),
            takes_seconds: u32::try_from(takes.as_secs()).unwrap_or(u32::MAX),
        };
        ask!(self, plan_patches, request)
    }

    /// Lets a finding stay for a while.
    pub async fn hold_finding(&self, envelope: &Envelope) -> Result<view::Done, Failure> {
        let request =
            pb::HoldFindingRequest { envelope: to_json(envelope), idempotency_key: clock::idempotency_key() };
        ask!(self, hold_finding, request)
    }

    /// Ends a hold of a finding.
    pub async fn release_finding(
        &self,
        id: &str,
        selector: &str,
        reason: &str,
    ) -> Result<view::Done, Failure> {
        let (id, selector, reason) = (id.to_owned(), selector.to_owned(), reason.to_owned());
        let idempotency_key = clock::idempotency_key();
        ask!(self, release_finding, pb::ReleaseFindingRequest { id, selector, reason, idempotency_key })
    }

    /// What may stay for a while.
    pub async fn finding_holds(&self) -> Result<view::Page<view::FindingHoldItem>, Failure> {
        ask!(self, list_finding_holds, pb::FindingHoldsRequest {})
    }

    /// A page of audit records before an index (0: from the newest), newest first.
    pub async fn audit(
        &self,
        before: u64,
        limit: u32,
        action_prefix: &str,
        object_prefix: &str,
    ) -> Result<view::Page<view::AuditItem>, Failure> {
        let request = pb::ListAuditRequest {
            before,
            limit: limit.min(PAGE),
            action_prefix: action_prefix.to_owned(),
            object_prefix: object_prefix.to_owned(),
        };
        ask!(self, list_audit, request)
    }

    /// Size and root of the audit log.
    pub async fn audit_head(&self) -> Result<view::AuditHead, Failure> {
        ask!(self, get_audit_head, pb::AuditHeadRequest {})
    }
}
