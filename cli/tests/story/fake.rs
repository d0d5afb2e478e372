//! A scripted controller: it checks what an operator signs as the real one does, and answers from its script.

use std::sync::{Arc, Mutex};

use fleet_certs::ca::Authority;
use fleet_certs::token::Token;
use fleet_proto::pb::operator_service_server::OperatorService;
use fleet_proto::{convert, pb};
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::document::Document;
use fleet_types::id::{FleetId, NodeId, OperatorId};
use fleet_types::report::StepReport;
use fleet_types::request::{NodeList, Request as RunRequest};
use fleet_types::run::RunState;
use fleet_types::seal::{Envelope, Kind};
use fleet_types::trust::{OperatorRole, RootKeys, SignedBundle};
use fleet_types::view;
use fleetctl::clock;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

use crate::answers::{Reply, page, refusal, view};
use crate::certifying::Renewal;
use crate::fixtures;
use crate::people::{invite, publish};
use crate::script::{State, Watch};
use crate::world::YEAR;
use crate::{looking_at_schedules, scheduling};

#[derive(Clone)]
pub struct Fake {
    pub fleet: FleetId,
    pub controllers: Arc<Authority>,
    pub operators: Arc<Authority>,
    pub roots: RootKeys,
    pub invite: Arc<Token>,
    pub state: Arc<Mutex<State>>,
}

type Streamed<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub fn operator() -> OperatorId {
    "0192f0c1-0000-7000-8000-000000000003".parse().unwrap()
}

impl Fake {
    fn node_order(&self, done: &str, order: pb::NodeOrderRequest) -> Reply {
        let message = format!("{} is {done}", order.name);
        let mut state = self.state.lock().unwrap();
        state.keys.push(order.idempotency_key);
        state.orders.push(format!("{message}: {}", order.reason));
        view(&view::Done { schema: "fleet/v1/done".into(), message })
    }
}

#[tonic::async_trait]
impl OperatorService for Fake {
    type WatchRunStream = Streamed<pb::View>;
    type ReadOutputStream = Streamed<pb::OutputPart>;
    type ReadAuditStream = Streamed<pb::AuditLeaf>;

    async fn list_certificates(&self, _: Request<pb::ListRequest>) -> Reply {
        page("fleet/v1/certificate-list", fixtures::certificates())
    }

    async fn revoke_certificates(&self, request: Request<pb::RevokeRequest>) -> Reply {
        let r = request.into_inner();
        let message = format!("{} is revoked", r.holder);
        let mut state = self.state.lock().unwrap();
        state.keys.push(r.idempotency_key);
        state.orders.push(format!("{message}: {}", r.reason));
        view(&view::Done { schema: "fleet/v1/done".into(), message })
    }

    async fn renew_certificate(
        &self,
        request: Request<pb::RenewRequest>,
    ) -> Result<Response<pb::RenewReply>, Status> {
        self.renewed(request.get_ref())
    }

    async fn who_am_i(&self, _: Request<pb::WhoAmIRequest>) -> Reply {
        let state = self.state.lock().unwrap();
        if state.renewal == Renewal::Refused && !state.asked_for.is_empty() {
            return Err(refusal(Code::PermissionDenied, "certificate-retired", "it was replaced", ""));
        }
        let key = state.content_key.unwrap();
        view(&view::WhoAmI {
            schema: "fleet/v1/whoami".into(),
            operator: operator(),
            name: "ada".parse().unwrap(),
            role: OperatorRole::SecurityAdmin,
            fleet: self.fleet,
            fleet_name: "example".parse().unwrap(),
            certificate_not_after: clock::now().plus(YEAR / 100),
            content_key: key,
            content_key_listed: state.bundle.content_key(&key.id()).is_some(),
            controller_version: "0.1.0".into(),
            controller_time: clock::now(),
        })
    }

    async fn get_status(&self, _: Request<pb::StatusRequest>) -> Reply {
        view(&fixtures::status())
    }

    async fn list_nodes(&self, request: Request<pb::ListRequest>) -> Reply {
        // Two pages, so that paging is walked.
        let (mut nodes, is_first) = (fixtures::nodes(), request.get_ref().after.is_empty());
        let selector: fleet_types::label::Selector = request.get_ref().selector.parse().unwrap();
        nodes.retain(|node| selector.matches(&node.name, &node.labels));
        let rest = nodes.split_off(1.min(nodes.len()));
        let next = (is_first && !rest.is_empty()).then(|| "fw-1".to_owned());
        let items = if is_first { nodes } else { rest };
        view(&view::Page { schema: "fleet/v1/node-list".into(), items, next })
    }

    async fn get_node(&self, request: Request<pb::NameRequest>) -> Reply {
        let name = &request.get_ref().name;
        match fixtures::nodes().into_iter().find(|node| node.name.as_str() == name) {
            Some(item) => view(&fixtures::node(item)),
            None => Err(refusal(
                Code::NotFound,
                "not-found",
                &format!("node \"{name}\" does not exist"),
                "fleetctl node list",
            )),
        }
    }

    async fn get_node_packages(&self, _: Request<pb::NodePackagesRequest>) -> Reply {
        Err(Status::unimplemented("no packages here"))
    }

    async fn create_join_token(&self, request: Request<pb::CreateJoinTokenRequest>) -> Reply {
        let r = request.into_inner();
        self.state.lock().unwrap().keys.push(r.idempotency_key);
        view(&view::JoinTokenView {
            schema: "fleet/v1/join-token".into(),
            token: "ft1.made-up".into(),
            node: r.node_name.parse().unwrap(),
            node_id: fixtures::node_id(9),
            expires: clock::now().plus(std::time::Duration::from_secs(r.lifetime_seconds.into())),
            replaces: r.replace_labels,
        })
    }

    async fn hold_node(&self, request: Request<pb::NodeOrderRequest>) -> Reply {
        self.node_order("held", request.into_inner())
    }

    async fn release_node(&self, request: Request<pb::NodeOrderRequest>) -> Reply {
        self.node_order("released", request.into_inner())
    }

    async fn remove_node(&self, request: Request<pb::NodeOrderRequest>) -> Reply {
        self.node_order("removed", request.into_inner())
    }

    async fn get_trust_bundle(&self, _: Request<pb::TrustBundleRequest>) -> Reply {
        let state = self.state.lock().unwrap();
        view(&view::TrustView {
            schema: "fleet/v1/trust".into(),
            version: state.bundle.version,
            bundle: state.signed.clone(),
            proposal: state.proposal.clone(),
        })
    }

    async fn publish_trust_bundle(&self, request: Request<pb::PublishTrustBundleRequest>) -> Reply {
        let signed: SignedBundle = convert::json("trust_bundle", &request.get_ref().trust_bundle).unwrap();
        let mut state = self.state.lock().unwrap();
        publish(&self.roots, self.fleet, &mut state, signed)
    }

    async fn invite_operator(&self, request: Request<pb::InviteOperatorRequest>) -> Reply {
        let r = request.into_inner();
        self.state.lock().unwrap().orders.push(format!("{} invited as {}: {}", r.name, r.role, r.reason));
        invite(&r.name, &r.role)
    }

    async fn list_operators(&self, _: Request<pb::OperatorsRequest>) -> Reply {
        page("fleet/v1/operator-list", self.state.lock().unwrap().people.clone())
    }

    async fn apply_documents(&self, request: Request<pb::ApplyDocumentsRequest>) -> Reply {
        let r = request.into_inner();
        let mut state = self.state.lock().unwrap();
        let mut items = Vec::new();
        for one in r.documents {
            let envelope: Envelope = convert::json("envelope", &one.envelope).unwrap();
            state.bundle.verify_content(&envelope, Kind::Document).map_err(|error| {
                refusal(Code::FailedPrecondition, "signature-refused", &error.to_string(), "list your key")
            })?;
            let document: Document = canonical::from_slice(&envelope.payload).unwrap();
            let key = (document.kind().to_string(), document.name().to_string());
            let before = state.documents.get(&key).map(|(envelope, _, at)| (envelope.digest(), *at));
            let (action, revision) = match before {
                None => ("created", 1),
                Some((digest, at)) if digest == envelope.digest() => ("unchanged", at),
                Some((_, at)) => ("updated", at + 1),
            };
            items.push(view::ApplyItem {
                kind: key.0.clone(),
                name: key.1.clone(),
                action: action.into(),
                revision,
                digest: envelope.digest(),
            });
            if !r.dry_run {
                state.documents.insert(key, (envelope, one.source, revision));
            }
        }
        view(&view::ApplyView {
            schema: "fleet/v1/apply".into(),
            dry_run: r.dry_run,
            items,
            warnings: vec![],
        })
    }

    async fn list_documents(&self, request: Request<pb::ListDocumentsRequest>) -> Reply {
        let state = self.state.lock().unwrap();
        let kind = &request.get_ref().kind;
        let items = state
            .documents
            .iter()
            .filter(|(key, _)| key.0 == *kind)
            .map(|(key, (envelope, _, revision))| item(key, envelope, *revision));
        page("fleet/v1/document-list", items.collect())
    }

    async fn get_document(&self, request: Request<pb::GetDocumentRequest>) -> Reply {
        let r = request.into_inner();
        let state = self.state.lock().unwrap();
        let key = (r.kind, r.name);
        let Some((envelope, source, revision)) = state.documents.get(&key) else {
            return Err(refusal(
                Code::NotFound,
                "not-found",
                &format!("{} \"{}\" does not exist", key.0, key.1),
                "",
            ));
        };
        view(&view::DocumentView {
            schema: "fleet/v1/document".into(),
            item: item(&key, envelope, *revision),
            content: serde_json::from_slice(&envelope.payload).unwrap(),
            envelope: Some(envelope.clone()),
            source: String::from_utf8(source.clone()).unwrap(),
        })
    }

    async fn resolve_targets(&self, request: Request<pb::ResolveTargetsRequest>) -> Reply {
        let r = request.into_inner();
        let selector: fleet_types::label::Selector = r.selector.parse().unwrap();
        let nodes = fixtures::nodes();
        let (swapped, enrolled) = {
            let state = self.state.lock().unwrap();
            (state.swapped, state.enrolled)
        };
        let unknown =
            r.names.iter().filter(|name| nodes.iter().all(|node| node.name.as_str() != *name)).cloned();
        let unknown: Vec<_> = unknown.collect();
        let nodes = nodes
            .into_iter()
            .filter(|node| r.names.is_empty() || r.names.iter().any(|name| name == node.name.as_str()))
            .filter(|node| selector.matches(&node.name, &node.labels))
            .map(|node| view::Target {
                id: if swapped { fixtures::node_id(77) } else { node.id },
                site: node.labels.site().to_owned(),
                pair: node.labels.pair().map(str::to_owned),
                name: node.name,
                presence: node.presence,
            })
            .collect();
        view(&view::Targets {
            schema: "fleet/v1/targets".into(),
            nodes,
            unknown,
            enrolled,
            as_of: Some(clock::now()),
            hints: vec![],
            skipped: vec![],
        })
    }

    async fn start_run(&self, request: Request<pb::StartRunRequest>) -> Reply {
        let r = request.into_inner();
        let envelope: Envelope = convert::json("request", &r.request).unwrap();
        let mut state = self.state.lock().unwrap();
        state.bundle.verify_content(&envelope, Kind::Request).unwrap();
        let request: RunRequest = canonical::from_slice(&envelope.payload).unwrap();
        request.check(self.fleet).unwrap();
        request.check_time(clock::now()).unwrap();
        let nodes: Vec<NodeId> = r.nodes.chunks(16).map(|id| NodeId::from_slice(id).unwrap()).collect();
        assert_eq!(NodeList::of(&nodes), request.nodes);
        if !r.procedure.is_empty() {
            let made: Envelope = convert::json("procedure", &r.procedure).unwrap();
            state.bundle.verify_content(&made, Kind::Document).unwrap();
            assert_eq!(made.digest(), request.procedure);
            let Document::Procedure(made) = canonical::from_slice(&made.payload).unwrap() else {
                panic!("{made:?}")
            };
            state.made.push(*made);
        }
        state.started.push(request.clone());
        view(&fixtures::run(&request, RunState::Running))
    }

    async fn list_runs(&self, _: Request<pb::ListRequest>) -> Reply {
        let state = self.state.lock().unwrap();
        let items = state.started.iter().map(|request| fixtures::run(request, state.end).item).collect();
        page("fleet/v1/run-list", items)
    }

    async fn get_run(&self, request: Request<pb::RunRequest>) -> Reply {
        let state = self.state.lock().unwrap();
        let found = state.started.iter().find(|started| started.run.to_string() == request.get_ref().run);
        match found {
            Some(started) => view(&fixtures::run(started, state.end)),
            None => Err(refusal(Code::NotFound, "not-found", "there is no such run", "fleetctl run list")),
        }
    }

    async fn list_jobs(&self, request: Request<pb::ListJobsRequest>) -> Reply {
        let state = self.state.lock().unwrap();
        page("fleet/v1/job-list", fixtures::jobs(request.get_ref().run.parse().unwrap(), state.end))
    }

    async fn get_job(&self, request: Request<pb::GetJobRequest>) -> Reply {
        let mut job = fixtures::job(request.get_ref().run.parse().unwrap());
        let steps = &mut job.report.as_mut().unwrap().steps;
        let like = steps[0].clone();
        let state = self.state.lock().unwrap();
        steps.extend(state.output.iter().map(|(id, bytes)| StepReport {
            id: id.clone(),
            output: Some(Digest::of(bytes)),
            ..like.clone()
        }));
        (state.edit_report)(steps);
        view(&job)
    }

    async fn watch_run(
        &self,
        request: Request<pb::RunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        let mut state = self.state.lock().unwrap();
        let watch = state.watches.pop_front();
        match watch {
            Some(Watch::Breaks) => return Err(Status::unavailable("going away")),
            Some(Watch::Hangs) => return Ok(Response::new(Box::pin(tokio_stream::pending()))),
            None => {}
        }
        let started = state.started.iter().find(|s| s.run.to_string() == request.get_ref().run).unwrap();
        let message = |end| {
            let watch = view::RunWatch {
                schema: "fleet/v1/run-watch".into(),
                run: fixtures::run(started, end),
                jobs: fixtures::jobs(started.run, end),
            };
            Ok(pb::View { json: convert::to_json(&watch) })
        };
        let messages = vec![message(RunState::Running), message(state.end)];
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn read_output(
        &self,
        request: Request<pb::ReadOutputRequest>,
    ) -> Result<Response<Self::ReadOutputStream>, Status> {
        let mut state = self.state.lock().unwrap();
        let only = &request.get_ref().step;
        let mut parts: Vec<_> = state
            .output
            .iter()
            .filter(|(step, _)| only.is_empty() || step == only)
            .map(|(step, data)| Ok(pb::OutputPart { step: step.clone(), offset: 0, data: data.clone() }))
            .collect();
        if let Some(after) = state.output_breaks_after.take() {
            parts.truncate(after);
            parts.push(Err(Status::unavailable("going away")));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn cancel_run(&self, request: Request<pb::CancelRunRequest>) -> Reply {
        let r = request.into_inner();
        let message = format!("run {} starts nothing new", r.run);
        self.state.lock().unwrap().cancelled.push(r.run);
        view(&view::Done { schema: "fleet/v1/done".into(), message })
    }

    async fn steer_run(&self, request: Request<pb::SteerRunRequest>) -> Reply {
        let r = request.into_inner();
        let message = format!("run {}: {} because {}", r.run, r.action, r.reason);
        view(&view::Done { schema: "fleet/v1/done".into(), message })
    }

    async fn authorise_schedules(&self, request: Request<pb::AuthoriseSchedulesRequest>) -> Reply {
        scheduling::authorise(self, &request.into_inner())
    }

    async fn list_schedules(&self, request: Request<pb::SchedulesRequest>) -> Reply {
        looking_at_schedules::list(request.get_ref())
    }

    async fn list_ticks(&self, _: Request<pb::TicksRequest>) -> Reply {
        looking_at_schedules::ticks()
    }

    async fn steer_schedules(&self, request: Request<pb::SteerSchedulesRequest>) -> Reply {
        looking_at_schedules::steer(request.get_ref())
    }

    async fn list_backups(&self, request: Request<pb::ListRequest>) -> Reply {
        let selector: fleet_types::label::Selector = request.get_ref().selector.parse().unwrap();
        let nodes = fixtures::nodes();
        let chosen =
            |name| nodes.iter().any(|node| node.name == name && selector.matches(&node.name, &node.labels));
        let mut backups = self.state.lock().unwrap().backups.clone();
        backups.retain(|backup| chosen(backup.node.clone()));
        page("fleet/v1/backup-list", backups)
    }

    async fn read_copy(
        &self,
        request: Request<pb::ReadCopyRequest>,
    ) -> Result<Response<pb::ReadCopyReply>, Status> {
        let asked = request.get_ref();
        let copies = &self.state.lock().unwrap().copies;
        let rest = &copies[&asked.archive][usize::try_from(asked.offset).unwrap()..];
        Ok(Response::new(pb::ReadCopyReply { data: rest[..rest.len().min(7)].to_vec() }))
    }

    async fn import_advisories(&self, _: Request<tonic::Streaming<pb::AdvisoryPiece>>) -> Reply {
        Err(Status::unimplemented("no advisories here"))
    }

    async fn list_advisories(&self, _: Request<pb::AdvisoriesRequest>) -> Reply {
        Err(Status::unimplemented("no advisories here"))
    }

    async fn get_advisory(&self, _: Request<pb::NameRequest>) -> Reply {
        Err(Status::unimplemented("no advisories here"))
    }

    async fn list_patches(&self, _: Request<pb::ListRequest>) -> Reply {
        Err(Status::unimplemented("no advisories here"))
    }

    async fn get_patch(&self, _: Request<pb::PatchRequest>) -> Reply {
        Err(Status::unimplemented("no advisories here"))
    }

    async fn get_patch_sla(&self, _: Request<pb::PatchRequest>) -> Reply {
        Err(Status::unimplemented("no advisories here"))
    }

    async fn plan_patches(&self, _: Request<pb::PlanPatchesRequest>) -> Reply {
        Err(Status::unimplemented("no advisories here"))
    }

    async fn hold_finding(&self, _: Request<pb::HoldFindingRequest>) -> Reply {
        Err(Status::unimplemented("no advisories here"))
    }

    async fn release_finding(&self, _: Request<pb::ReleaseFindingRequest>) -> Reply {
        Err(Status::unimplemented("no advisories here"))
    }

    async fn list_finding_holds(&self, _: Request<pb::FindingHoldsRequest>) -> Reply {
        Err(Status::unimplemented("no advisories here"))
    }

    async fn list_audit(&self, request: Request<pb::ListAuditRequest>) -> Reply {
        let state = self.state.lock().unwrap();
        let items =
            state.audit.iter().rev().take(request.get_ref().limit as usize).map(|bytes| view::AuditItem {
                record: canonical::from_slice(bytes).unwrap(),
                free_text: None,
                node_name: None,
            });
        page("fleet/v1/audit-list", items.collect())
    }

    async fn read_audit(
        &self,
        request: Request<pb::ReadAuditRequest>,
    ) -> Result<Response<Self::ReadAuditStream>, Status> {
        let r = request.into_inner();
        let state = self.state.lock().unwrap();
        let leaves: Vec<_> = (0u64..)
            .zip(&state.audit)
            .filter(|(index, _)| (r.from..r.to).contains(index))
            .map(|(index, record)| Ok(pb::AuditLeaf { index, record: record.clone() }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(leaves))))
    }

    async fn get_audit_head(&self, _: Request<pb::AuditHeadRequest>) -> Reply {
        let state = self.state.lock().unwrap();
        let leaves: Vec<_> = state.audit.iter().map(|bytes| fleet_types::merkle::leaf_hash(bytes)).collect();
        view(&view::AuditHead {
            schema: "fleet/v1/audit-head".into(),
            log: self.fleet,
            size: leaves.len() as u64,
            root: fleet_types::merkle::root(&leaves),
            as_of: clock::now(),
        })
    }
}

fn item(key: &(String, String), envelope: &Envelope, revision: u32) -> view::DocumentItem {
    view::DocumentItem {
        kind: key.0.clone(),
        name: key.1.clone(),
        revision,
        version: Some(1),
        digest: envelope.digest(),
        description: String::new(),
        applied: clock::now(),
        signed_by: "ada".into(),
    }
}
