//! The operators' service: decode, call a service, encode a view. The guard has asked the access table.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_proto::convert;
use fleet_proto::pb;
use fleet_proto::pb::operator_service_server::OperatorService;
use fleet_types::id::{NodeId, RunId};
use fleet_types::label::Labels;
use fleet_types::seal::Envelope;
use fleet_types::view::Done;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::advisory_import;
use super::peer;
use super::status::to_status;
use super::stream_permit::StreamPermit;
use super::streams;
use crate::context::Context;
use crate::error::{ControllerError, Result};
use crate::service::caller::Operator;
use crate::service::documents::Submitted;
use crate::service::enrolment::JoinOrder;
use crate::service::operators::Invitation;
use crate::service::{
    advisories, audit, backups, certificates, copies, documents, enrolment, finding_holds, holds, limits,
    operators, output, packages, patch_plan, patches, revocation, rollouts, run_views, runs, schedules,
    standing_orders, trust, views,
};

/// Messages of a stream under way to one operator.
const STREAM: usize = 8;

/// Serves operators.
pub struct Operators {
    /// Shared handles.
    pub context: Arc<Context>,
    /// The audit log's tree, as far as it was asked for.
    pub tree: Arc<audit::Tree>,
    /// Ends every stream.
    pub stop: CancellationToken,
    /// Streams, so that a drain can wait for them.
    pub tracker: TaskTracker,
}

impl Operators {
    /// Serves a stream as long as its caller may hold it.
    fn stream<T: Send + 'static, W: Future<Output = ()> + Send + 'static>(
        &self,
        permit: StreamPermit,
        work: impl FnOnce(Arc<Context>, mpsc::Sender<Result<T, Status>>) -> W,
    ) -> Response<ReceiverStream<Result<T, Status>>> {
        let (out, stream) = mpsc::channel(STREAM);
        let work = work(Arc::clone(&self.context), out.clone());
        self.tracker.spawn(async move { permit.hold(&out, work).await });
        Response::new(ReceiverStream::new(stream))
    }
}

type Reply = Result<Response<pb::View>, Status>;

fn view<T: Serialize>(result: Result<T>) -> Reply {
    result.map(|body| Response::new(pb::View { json: convert::to_json(&body) })).map_err(to_status)
}

fn run_id(text: &str) -> Result<RunId, Status> {
    convert::text("run", text).map_err(|error| to_status(error.into()))
}

fn invalid(field: &'static str, why: impl std::fmt::Display) -> Status {
    to_status(ControllerError::invalid(field, why))
}

fn labels(map: HashMap<String, String>) -> Result<Labels, Status> {
    Labels::new(map).map_err(|error| invalid("labels", error))
}

fn node_order<'a>(caller: &'a Operator, request: &'a pb::NodeOrderRequest) -> holds::Order<'a> {
    holds::Order {
        caller,
        name: &request.name,
        reason: &request.reason,
        idempotency_key: &request.idempotency_key,
    }
}

#[tonic::async_trait]
impl OperatorService for Operators {
    type WatchRunStream = ReceiverStream<Result<pb::View, Status>>;
    type ReadOutputStream = ReceiverStream<Result<pb::OutputPart, Status>>;
    type ReadAuditStream = ReceiverStream<Result<pb::AuditLeaf, Status>>;

    async fn who_am_i(&self, request: Request<pb::WhoAmIRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        view(Ok(views::who_am_i(&self.context.storage, &self.context.identities, &caller)))
    }

    async fn renew_certificate(
        &self,
        request: Request<pb::RenewRequest>,
    ) -> Result<Response<pb::RenewReply>, Status> {
        let caller = peer::operator(&self.context.identities, &request)?;
        let csr = request.into_inner().csr;
        let certificate_chain = certificates::renew_operator(&self.context, &caller, &csr, "operator.renew")
            .await
            .map_err(to_status)?;
        Ok(Response::new(pb::RenewReply { certificate_chain }))
    }

    async fn get_status(&self, _: Request<pb::StatusRequest>) -> Reply {
        view(views::status(&self.context).await)
    }

    async fn list_nodes(&self, request: Request<pb::ListRequest>) -> Reply {
        let r = request.get_ref();
        view(views::nodes(&self.context.memory, &r.selector, &r.after, views::page_size(r.limit)))
    }

    async fn get_node(&self, request: Request<pb::NameRequest>) -> Reply {
        view(views::node(&self.context.storage, &self.context.memory, &request.get_ref().name).await)
    }

    async fn get_node_packages(&self, request: Request<pb::NodePackagesRequest>) -> Reply {
        let r = request.get_ref();
        view(packages::view(&self.context, &r.name, &r.after, views::page_size(r.limit)).await)
    }

    async fn list_certificates(&self, request: Request<pb::ListRequest>) -> Reply {
        let r = request.get_ref();
        view(revocation::list(&self.context, &r.after, views::page_size(r.limit)))
    }

    async fn revoke_certificates(&self, request: Request<pb::RevokeRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        let r = request.get_ref();
        let holder = r.holder.parse().map_err(|error| invalid("holder", error))?;
        let order = revocation::Order {
            caller: &caller,
            holder: &holder,
            reason: &r.reason,
            idempotency_key: &r.idempotency_key,
        };
        view(revocation::revoke(&self.context, &order).await)
    }

    async fn create_join_token(&self, request: Request<pb::CreateJoinTokenRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        let r = request.into_inner();
        let name = convert::text("node_name", &r.node_name).map_err(|error| to_status(error.into()))?;
        let lifetime = Duration::from_secs(r.lifetime_seconds.into());
        view(
            enrolment::create_join_token(
                &self.context,
                &caller,
                JoinOrder { name, labels: labels(r.labels)?, replace_labels: r.replace_labels, lifetime },
                &r.idempotency_key,
            )
            .await,
        )
    }

    async fn hold_node(&self, request: Request<pb::NodeOrderRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        view(holds::hold(&self.context, &node_order(&caller, request.get_ref())).await)
    }

    async fn release_node(&self, request: Request<pb::NodeOrderRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        view(
            holds::release(
                &self.context.storage,
                &self.context.memory,
                &node_order(&caller, request.get_ref()),
            )
            .await,
        )
    }

    async fn remove_node(&self, request: Request<pb::NodeOrderRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        view(holds::remove(&self.context, &node_order(&caller, request.get_ref())).await)
    }

    async fn invite_operator(&self, request: Request<pb::InviteOperatorRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        let r = request.into_inner();
        let order = Invitation {
            name: convert::text("name", &r.name).map_err(|error| to_status(error.into()))?,
            role: convert::text("role", &r.role).map_err(|error| to_status(error.into()))?,
            lifetime: Duration::from_secs(r.lifetime_seconds.into()),
            reason: r.reason,
        };
        view(operators::invite(&self.context, &caller, order, &r.idempotency_key).await)
    }

    async fn list_operators(&self, _: Request<pb::OperatorsRequest>) -> Reply {
        view(operators::list(&self.context).await)
    }

    async fn get_trust_bundle(&self, _: Request<pb::TrustBundleRequest>) -> Reply {
        view(trust::view(&self.context.storage, &self.context.identities).await)
    }

    async fn publish_trust_bundle(&self, request: Request<pb::PublishTrustBundleRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        let r = request.get_ref();
        view(
            trust::publish(
                &self.context.storage,
                &self.context.identities,
                &caller,
                &r.trust_bundle,
                &r.reason,
                &r.idempotency_key,
            )
            .await,
        )
    }

    async fn apply_documents(&self, request: Request<pb::ApplyDocumentsRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        let r = request.into_inner();
        let submitted = r
            .documents
            .into_iter()
            .map(|document| {
                Ok(Submitted {
                    envelope: convert::json::<Envelope>("documents.envelope", &document.envelope)?,
                    source: document.source,
                    source_name: document.source_name.chars().filter(|c| !c.is_control()).take(256).collect(),
                })
            })
            .collect::<Result<Vec<_>>>()
            .map_err(to_status)?;
        view(
            documents::apply(
                &self.context.storage,
                &self.context.identities,
                &caller,
                submitted,
                &r.idempotency_key,
                &r.reason,
                r.dry_run,
            )
            .await,
        )
    }

    async fn list_documents(&self, request: Request<pb::ListDocumentsRequest>) -> Reply {
        view(documents::list(&self.context.storage, &request.get_ref().kind).await)
    }

    async fn get_document(&self, request: Request<pb::GetDocumentRequest>) -> Reply {
        let r = request.get_ref();
        let name: fleet_types::id::Name =
            convert::text("name", &r.name).map_err(|error| to_status(error.into()))?;
        view(documents::show(&self.context.storage, &r.kind, name.as_str(), r.revision).await)
    }

    async fn resolve_targets(&self, request: Request<pb::ResolveTargetsRequest>) -> Reply {
        let r = request.get_ref();
        view(runs::resolve(&self.context.storage, &self.context.memory, &r.selector, &r.names))
    }

    async fn start_run(&self, request: Request<pb::StartRunRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        let r = request.get_ref();
        let envelope: Envelope =
            convert::json("request", &r.request).map_err(|error| to_status(error.into()))?;
        if !r.nodes.len().is_multiple_of(16) {
            return Err(invalid("nodes", "expected 16 bytes a node"));
        }
        let nodes: Vec<NodeId> = r
            .nodes
            .chunks_exact(16)
            .map(NodeId::from_slice)
            .collect::<Result<_, _>>()
            .map_err(|error| invalid("nodes", error))?;
        let procedure: Option<Envelope> = (!r.procedure.is_empty())
            .then(|| convert::json("procedure", &r.procedure))
            .transpose()
            .map_err(|error| to_status(error.into()))?;
        let order = runs::Order { request: envelope, procedure, nodes };
        let run = runs::start(&self.context, &caller, &order, &r.idempotency_key).await.map_err(to_status)?;
        view(run_views::brief(&self.context.storage, &self.context.memory, run).await)
    }

    async fn list_runs(&self, request: Request<pb::ListRequest>) -> Reply {
        let r = request.get_ref();
        view(
            run_views::list(&self.context.storage, &self.context.memory, &r.after, views::page_size(r.limit))
                .await,
        )
    }

    async fn get_run(&self, request: Request<pb::RunRequest>) -> Reply {
        view(
            run_views::show(&self.context.storage, &self.context.memory, run_id(&request.get_ref().run)?)
                .await,
        )
    }

    async fn list_jobs(&self, request: Request<pb::ListJobsRequest>) -> Reply {
        let r = request.get_ref();
        view(
            run_views::jobs_page(
                &self.context.storage,
                &self.context.memory,
                run_id(&r.run)?,
                &r.after,
                views::page_size(r.limit),
            )
            .await,
        )
    }

    async fn get_job(&self, request: Request<pb::GetJobRequest>) -> Reply {
        let r = request.get_ref();
        view(run_views::job(&self.context.storage, &self.context.memory, run_id(&r.run)?, &r.node).await)
    }

    async fn watch_run(
        &self,
        request: Request<pb::RunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        let permit = peer::permit(&self.context.storage, &self.context.identities, &request, &self.stop)?;
        let run = run_id(&request.get_ref().run)?;
        runs::load(&self.context.storage, run).await.map_err(to_status)?;
        Ok(self.stream(permit, |context, out| streams::watch_run(context, run, out)))
    }

    async fn read_output(
        &self,
        request: Request<pb::ReadOutputRequest>,
    ) -> Result<Response<Self::ReadOutputStream>, Status> {
        let permit = peer::permit(&self.context.storage, &self.context.identities, &request, &self.stop)?;
        let r = request.into_inner();
        let run = run_id(&r.run)?;
        let node = run_views::node_in(&self.context.storage, &self.context.memory, run, &r.node)
            .await
            .map_err(to_status)?;
        output::check_step(&self.context.storage, run, &r.step).await.map_err(to_status)?;
        let reader = streams::OutputReader { run, node, step: r.step, offset: r.offset, follow: r.follow };
        Ok(self.stream(permit, |context, out| streams::read_output(context, reader, out)))
    }

    async fn cancel_run(&self, request: Request<pb::CancelRunRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        let r = request.get_ref();
        limits::check_reason(&r.reason).map_err(to_status)?;
        let run = run_id(&r.run)?;
        view(
            runs::cancel(
                &self.context.storage,
                &self.context.memory,
                &caller,
                run,
                &r.reason,
                &r.idempotency_key,
            )
            .await
            .map(|run| Done {
                schema: "fleet/v1/done".to_owned(),
                message: format!("run {run} starts nothing new; what runs is asked to stop"),
            }),
        )
    }

    async fn steer_run(&self, request: Request<pb::SteerRunRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        let r = request.get_ref();
        limits::check_reason(&r.reason).map_err(to_status)?;
        let (run, steer) = (run_id(&r.run)?, r.action.parse().map_err(to_status)?);
        let said = (r.reason.as_str(), r.idempotency_key.as_str());
        let done =
            rollouts::steer(&self.context.storage, &self.context.memory, &caller, run, steer, said).await;
        view(
            done.map(|done| Done {
                schema: "fleet/v1/done".to_owned(),
                message: format!("run {run}: {done}"),
            }),
        )
    }

    async fn authorise_schedules(&self, request: Request<pb::AuthoriseSchedulesRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        let r = request.get_ref();
        let file: fleet_types::id::Name =
            convert::text("file", &r.file).map_err(|error| to_status(error.into()))?;
        let orders: Vec<Envelope> = r
            .orders
            .iter()
            .map(|order| convert::json("orders", order))
            .collect::<Result<_, _>>()
            .map_err(|error| to_status(error.into()))?;
        let (file, orders) = (&file, orders.as_slice());
        let call = standing_orders::Call { file, orders, idempotency_key: &r.idempotency_key };
        view(standing_orders::authorise(&self.context, &caller, call).await)
    }

    async fn list_schedules(&self, request: Request<pb::SchedulesRequest>) -> Reply {
        let r = request.get_ref();
        let which = schedules::Which::parse(Some(r.schedule.as_str()).filter(|name| !name.is_empty()));
        let next = usize::try_from(r.next).unwrap_or(usize::MAX);
        view(schedules::list(&self.context, &which.map_err(to_status)?, next).await)
    }

    async fn list_ticks(&self, request: Request<pb::TicksRequest>) -> Reply {
        let r = request.get_ref();
        let which = schedules::Which::parse(Some(&r.schedule)).map_err(to_status)?;
        let limit = usize::try_from(r.limit).unwrap_or(usize::MAX);
        view(schedules::history(&self.context, &which, limit).await)
    }

    async fn steer_schedules(&self, request: Request<pb::SteerSchedulesRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        let r = request.get_ref();
        limits::check_reason(&r.reason).map_err(to_status)?;
        let which = schedules::Which::parse((!r.all).then_some(&r.schedule)).map_err(to_status)?;
        let steer = r.action.parse().map_err(to_status)?;
        let done = schedules::steer(&self.context, &caller, (&which, steer), &r.reason, &r.idempotency_key);
        view(done.await.map(|message| Done { schema: "fleet/v1/done".to_owned(), message }))
    }

    async fn list_backups(&self, request: Request<pb::ListRequest>) -> Reply {
        let r = request.get_ref();
        view(
            backups::list(
                &self.context.storage,
                &self.context.memory,
                &r.selector,
                &r.after,
                views::page_size(r.limit),
            )
            .await,
        )
    }

    async fn read_copy(
        &self,
        request: Request<pb::ReadCopyRequest>,
    ) -> Result<Response<pb::ReadCopyReply>, Status> {
        let r = request.get_ref();
        let archive = convert::digest("copy.archive", &r.archive).map_err(|error| to_status(error.into()))?;
        let data =
            copies::read(&self.context, &r.node, r.made_ms, archive, r.offset).await.map_err(to_status)?;
        Ok(Response::new(pb::ReadCopyReply { data }))
    }

    async fn import_advisories(&self, request: Request<Streaming<pb::AdvisoryPiece>>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        let pieces = request.into_inner();
        advisory_import::import(&self.context, &caller, pieces)
            .await
            .map(|imported| Response::new(pb::View { json: convert::to_json(&imported) }))
    }

    async fn list_advisories(&self, _: Request<pb::AdvisoriesRequest>) -> Reply {
        view(advisories::list(&self.context).await)
    }

    async fn get_advisory(&self, request: Request<pb::NameRequest>) -> Reply {
        view(advisories::show(&self.context, &request.get_ref().name))
    }

    async fn list_patches(&self, request: Request<pb::ListRequest>) -> Reply {
        let r = request.get_ref();
        view(patches::list(&self.context, &r.selector, &r.after, views::page_size(r.limit)).await)
    }

    async fn get_patch(&self, request: Request<pb::PatchRequest>) -> Reply {
        let r = request.get_ref();
        view(patches::show(&self.context, &r.id, &r.selector).await)
    }

    async fn get_patch_sla(&self, request: Request<pb::PatchRequest>) -> Reply {
        view(patches::sla(&self.context, &request.get_ref().selector).await)
    }

    async fn plan_patches(&self, request: Request<pb::PlanPatchesRequest>) -> Reply {
        let pb::PlanPatchesRequest { policy, selector, takes_seconds } = request.into_inner();
        let takes = Duration::from_secs(takes_seconds.into());
        view(patch_plan::plan(&self.context, patch_plan::Question { policy, selector, takes }).await)
    }

    async fn hold_finding(&self, request: Request<pb::HoldFindingRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        let r = request.into_inner();
        let envelope =
            convert::json::<Envelope>("envelope", &r.envelope).map_err(|error| to_status(error.into()))?;
        view(finding_holds::hold(&self.context, &caller, envelope, &r.idempotency_key).await)
    }

    async fn release_finding(&self, request: Request<pb::ReleaseFindingRequest>) -> Reply {
        let caller = peer::operator(&self.context.identities, &request)?;
        let r = request.get_ref();
        let order = finding_holds::Release {
            finding: &r.id,
            selector: &r.selector,
            reason: &r.reason,
            idempotency_key: &r.idempotency_key,
        };
        view(finding_holds::release(&self.context, &caller, order).await)
    }

    async fn list_finding_holds(&self, _: Request<pb::FindingHoldsRequest>) -> Reply {
        view(finding_holds::list(&self.context).await)
    }

    async fn list_audit(&self, request: Request<pb::ListAuditRequest>) -> Reply {
        let r = request.into_inner();
        let filter = audit::Filter { action: r.action_prefix, object: r.object_prefix };
        view(
            audit::list(
                &self.context.storage,
                &self.context.memory,
                r.before,
                views::page_size(r.limit),
                &filter,
            )
            .await,
        )
    }

    async fn read_audit(
        &self,
        request: Request<pb::ReadAuditRequest>,
    ) -> Result<Response<Self::ReadAuditStream>, Status> {
        let permit = peer::permit(&self.context.storage, &self.context.identities, &request, &self.stop)?;
        let pb::ReadAuditRequest { from, to } = request.into_inner();
        Ok(self.stream(permit, |context, out| streams::read_audit(context, from, to, out)))
    }

    async fn get_audit_head(&self, _: Request<pb::AuditHeadRequest>) -> Reply {
        view(audit::head(&self.context.storage, &self.context.identities, &self.tree).await)
    }
}
