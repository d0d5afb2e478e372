//! Which command is which file.

use fleet_types::document::DocumentKind;

use super::{
    advisory, audit, backup, cert, completion, config, document, explain, join_token, login, node,
    node_fence, node_orders, node_packages, operator, patch, run as runs, schedule, status, version, whoami,
};
use crate::args::{
    AdvisoryCommand, AuditCommand, BackupCommand, CertCommand, Command, ConfigCommand, JoinTokenCommand,
    NodeCommand, OperatorCommand, PatchCommand,
};
use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// Runs a parsed command.
pub async fn run(session: &mut Session<'_>, command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Dev(args) => crate::dev::run(session, args).await,
        Command::Login(args) => login::run(session, args).await,
        Command::Whoami => whoami::run(session).await,
        Command::Status(args) => status::run(session, args).await,
        Command::Node(NodeCommand::List) => node::list(session).await,
        Command::Node(NodeCommand::Show { name }) => node::show(session, name).await,
        Command::Node(NodeCommand::Packages { name, newer }) => {
            node_packages::run(session, name, *newer).await
        }
        Command::Node(NodeCommand::Hold { name }) => node_orders::hold(session, name).await,
        Command::Node(NodeCommand::Release { name }) => node_orders::release(session, name).await,
        Command::Node(NodeCommand::ResetFence { name, root_key }) => {
            node_fence::reset(session, name, root_key).await
        }
        Command::Node(NodeCommand::Remove { name }) => node_orders::remove(session, name).await,
        Command::Cert(CertCommand::List) => cert::list(session).await,
        Command::Cert(CertCommand::Revoke { holder }) => cert::revoke(session, holder).await,
        Command::Operator(command) => people(session, command).await,
        Command::JoinToken(JoinTokenCommand::Create { name, labels, replace_labels, valid_for }) => {
            join_token::create(session, name, (labels, *replace_labels), valid_for).await
        }
        Command::Config(ConfigCommand::Validate { paths }) => config::validate(session, paths),
        Command::Config(ConfigCommand::Apply { paths }) => config::apply(session, paths).await,
        Command::Config(ConfigCommand::Diff { paths, detailed_exitcode }) => {
            config::diff(session, paths, *detailed_exitcode).await
        }
        Command::Config(ConfigCommand::Fmt { paths, check }) => config::format(session, paths, *check),
        Command::Config(ConfigCommand::Schema { kind }) => config::schema(session, *kind),
        Command::Procedure(command) => document::run(session, DocumentKind::Procedure, command).await,
        Command::Profile(command) => document::run(session, DocumentKind::Profile, command).await,
        Command::Schedule(command) => schedule::run(session, command).await,
        Command::Run(command) => runs::run(session, command).await,
        Command::Patch(PatchCommand::Score) => patch::score(session).await,
        Command::Patch(PatchCommand::CompareVersions { format }) => {
            patch::compare_versions(session, (*format).into()).await
        }
        Command::Patch(PatchCommand::List) => patch::list(session).await,
        Command::Patch(PatchCommand::Show { id }) => patch::show(session, id).await,
        Command::Patch(PatchCommand::Sla) => patch::sla(session).await,
        Command::Patch(PatchCommand::Plan { policy, takes }) => {
            patch::plan(session, policy, takes.length()).await
        }
        Command::Patch(PatchCommand::Hold { id, length, owner, waive }) => {
            let what = patch::What { id, length, owner: owner.as_deref(), waive: *waive };
            patch::hold(session, what).await
        }
        Command::Patch(PatchCommand::Release { id }) => patch::release(session, id).await,
        Command::Patch(PatchCommand::Holds) => patch::list_holds(session).await,
        Command::Advisory(AdvisoryCommand::Import { paths, source, allow_shrink }) => {
            let words = advisory::Words { label: source.clone(), may_shrink: *allow_shrink };
            advisory::import(session, paths, words).await
        }
        Command::Advisory(AdvisoryCommand::List) => advisory::list(session).await,
        Command::Advisory(AdvisoryCommand::Show { id }) => advisory::show(session, id).await,
        Command::Rollout(command) => runs::rollout(session, command).await,
        Command::Backup(BackupCommand::List) => backup::list(session).await,
        Command::Backup(BackupCommand::Fetch { archive, to }) => {
            backup::fetch(session, archive, to.as_deref()).await
        }
        Command::Backup(BackupCommand::Diff { from, to, detailed_exitcode }) => {
            backup::diff(session, from, to.as_deref(), *detailed_exitcode).await
        }
        Command::Audit(AuditCommand::List { limit, action, object }) => {
            audit::list(session, *limit, action, object).await
        }
        Command::Audit(AuditCommand::Verify { reports }) => audit::verify(session, *reports).await,
        Command::Explain(args) => explain::run(session, args),
        Command::Completion(args) => completion::run(session, args),
        Command::Version => version::run(session),
    }
}

async fn people(session: &mut Session<'_>, command: &OperatorCommand) -> Result<ExitCode, Failure> {
    match command {
        OperatorCommand::Invite { name, role, valid_for } => {
            operator::invite(session, name, *role, valid_for).await
        }
        OperatorCommand::List => operator::list(session).await,
        OperatorCommand::Admit { name, key, root_key } => {
            operator::admit(session, name, *key, root_key.as_deref()).await
        }
        OperatorCommand::Approve { root_key } => operator::approve(session, root_key.as_deref()).await,
        OperatorCommand::Revoke { name, root_key } => {
            operator::revoke(session, name, root_key.as_deref()).await
        }
        OperatorCommand::Delegate { names, threshold, length, root_key, .. } => {
            let order = operator::Delegation {
                names,
                threshold: threshold.map(|number| usize::try_from(number).unwrap_or(usize::MAX)),
                length: length.length(),
                root_key,
            };
            operator::delegate(session, order).await
        }
    }
}
