//! Who may call what: one table of method × role. What is not in the table is refused.
//!
//! The edge asks it before a handler runs (security-and-delivery §1.12). Rules about objects (an agent's own
//! jobs, an operator's scope) are the services'. A test fails when a method of the wire has no row.

use fleet_types::trust::OperatorRole;

/// Which role a caller has: from the issuing authority, checked against the certificate's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Nobody: the enrolment port asks for no certificate.
    Nobody,
    /// A node's agent.
    Agent,
    /// A person with their role from the store.
    Operator(OperatorRole),
}

/// What a row asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// No certificate; on the enrolment port only.
    NoCertificate,
    /// An agent.
    Agent,
    /// Any operator.
    AnyOperator,
    /// An operator who may change something: operator, approver or security-admin.
    Operator,
    /// An auditor or security-admin.
    Auditor,
    /// A security-admin.
    SecurityAdmin,
}

/// The one call of a certificate that was replaced: it reaches its handler, which locks the node (§1.8).
pub const RENEW_AGENT: &str = "/fleet.v1.AgentService/Renew";

/// The table: gRPC path and what it asks for.
const TABLE: &[(&str, Needs)] = &[
    ("/fleet.v1.EnrolService/Enrol", Needs::NoCertificate),
    ("/fleet.v1.EnrolService/EnrolOperator", Needs::NoCertificate),
    ("/fleet.v1.EnrolService/Rejoin", Needs::NoCertificate),
    ("/grpc.health.v1.Health/Check", Needs::NoCertificate),
    ("/fleet.v1.AgentService/Session", Needs::Agent),
    ("/fleet.v1.AgentService/FetchDocument", Needs::Agent),
    ("/fleet.v1.AgentService/Output", Needs::Agent),
    ("/fleet.v1.AgentService/Confirm", Needs::Agent),
    ("/fleet.v1.AgentService/PutCopy", Needs::Agent),
    ("/fleet.v1.AgentService/PutPackages", Needs::Agent),
    (RENEW_AGENT, Needs::Agent),
    ("/fleet.v1.OperatorService/WhoAmI", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/RenewCertificate", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/GetStatus", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/ListNodes", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/GetNode", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/GetNodePackages", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/CreateJoinToken", Needs::Operator),
    ("/fleet.v1.OperatorService/HoldNode", Needs::Operator),
    ("/fleet.v1.OperatorService/ReleaseNode", Needs::Operator),
    ("/fleet.v1.OperatorService/RemoveNode", Needs::Operator),
    ("/fleet.v1.OperatorService/ListCertificates", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/RevokeCertificates", Needs::SecurityAdmin),
    ("/fleet.v1.OperatorService/InviteOperator", Needs::SecurityAdmin),
    ("/fleet.v1.OperatorService/ListOperators", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/GetTrustBundle", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/PublishTrustBundle", Needs::SecurityAdmin),
    ("/fleet.v1.OperatorService/ApplyDocuments", Needs::Operator),
    ("/fleet.v1.OperatorService/ListDocuments", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/GetDocument", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/ResolveTargets", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/StartRun", Needs::Operator),
    ("/fleet.v1.OperatorService/ListRuns", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/GetRun", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/ListJobs", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/GetJob", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/WatchRun", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/ReadOutput", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/CancelRun", Needs::Operator),
    ("/fleet.v1.OperatorService/SteerRun", Needs::Operator),
    ("/fleet.v1.OperatorService/AuthoriseSchedules", Needs::Operator),
    ("/fleet.v1.OperatorService/ListSchedules", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/ListTicks", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/SteerSchedules", Needs::Operator),
    ("/fleet.v1.OperatorService/ListBackups", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/ReadCopy", Needs::Operator),
    ("/fleet.v1.OperatorService/ImportAdvisories", Needs::Operator),
    ("/fleet.v1.OperatorService/ListAdvisories", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/GetAdvisory", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/ListPatches", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/GetPatch", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/GetPatchSla", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/PlanPatches", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/HoldFinding", Needs::Operator),
    ("/fleet.v1.OperatorService/ReleaseFinding", Needs::Operator),
    ("/fleet.v1.OperatorService/ListFindingHolds", Needs::AnyOperator),
    ("/fleet.v1.OperatorService/ListAudit", Needs::Auditor),
    ("/fleet.v1.OperatorService/ReadAudit", Needs::Auditor),
    ("/fleet.v1.OperatorService/GetAuditHead", Needs::AnyOperator),
];

/// Why a call is refused before its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No row.
    #[error("this method does not exist here")]
    UnknownMethod,
    /// A certificate of another role, or none.
    #[error("this method is not for a caller of this role")]
    WrongRole,
    /// The operator's role does not suffice.
    #[error("this needs the role {0}")]
    NeedsRole(&'static str),
}

/// May this caller call this path?
pub fn check(path: &str, caller: Caller) -> Result<(), Denied> {
    use OperatorRole as R;
    let needs =
        TABLE.iter().find(|(row, _)| *row == path).map(|(_, needs)| *needs).ok_or(Denied::UnknownMethod)?;
    let role = match (needs, caller) {
        (Needs::NoCertificate, Caller::Nobody) | (Needs::Agent, Caller::Agent) => return Ok(()),
        (Needs::NoCertificate | Needs::Agent, _) | (_, Caller::Nobody | Caller::Agent) => {
            return Err(Denied::WrongRole);
        }
        (_, Caller::Operator(role)) => role,
    };
    let (allowed, wanted) = match needs {
        Needs::Operator => (role.may_sign_work(), "operator"),
        // Operators need the log to see what they did; approvers decide by it.
        Needs::Auditor => (role != R::Viewer, "auditor"),
        Needs::SecurityAdmin => (role == R::SecurityAdmin, "security-admin"),
        Needs::AnyOperator | Needs::NoCertificate | Needs::Agent => (true, "viewer"),
    };
    if allowed { Ok(()) } else { Err(Denied::NeedsRole(wanted)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths of every rpc in the .proto files.
    fn methods() -> Vec<String> {
        [
            include_str!("../../proto/fleet/v1/enrol.proto"),
            include_str!("../../proto/fleet/v1/agent.proto"),
            include_str!("../../proto/fleet/v1/operator.proto"),
        ]
        .iter()
        .flat_map(|text| {
            let service = text
                .lines()
                .find_map(|l| l.strip_prefix("service "))
                .unwrap()
                .trim_end_matches(" {")
                .to_owned();
            text.lines()
                .filter_map(move |line| {
                    let name = line.trim().strip_prefix("rpc ")?.split('(').next()?;
                    Some(format!("/fleet.v1.{service}/{name}"))
                })
                .collect::<Vec<_>>()
        })
        .collect()
    }

    #[test]
    fn every_method_has_a_row_and_every_row_a_method() {
        let methods = methods();
        assert!(methods.len() > 25, "the .proto files were not read: {methods:?}");
        for method in &methods {
            assert!(TABLE.iter().any(|(row, _)| row == method), "{method} has no row");
        }
        for (row, _) in TABLE.iter().filter(|(row, _)| row.starts_with("/fleet.v1.")) {
            assert!(methods.iter().any(|m| m == row), "{row} is no method");
        }
    }

    #[test]
    fn the_whole_table() {
        let callers = [
            ("nobody", Caller::Nobody),
            ("agent", Caller::Agent),
            ("viewer", Caller::Operator(OperatorRole::Viewer)),
            ("auditor", Caller::Operator(OperatorRole::Auditor)),
            ("operator", Caller::Operator(OperatorRole::Operator)),
            ("approver", Caller::Operator(OperatorRole::Approver)),
            ("security-admin", Caller::Operator(OperatorRole::SecurityAdmin)),
        ];
        let who = |path: &str| {
            callers
                .iter()
                .filter(|(_, c)| check(path, *c).is_ok())
                .map(|(n, _)| *n)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(who("/fleet.v1.EnrolService/Enrol"), "nobody");
        assert_eq!(who("/fleet.v1.AgentService/Session"), "agent");
        assert_eq!(
            who("/fleet.v1.OperatorService/GetRun"),
            "viewer auditor operator approver security-admin"
        );
        assert_eq!(who("/fleet.v1.OperatorService/StartRun"), "operator approver security-admin");
        assert_eq!(who("/fleet.v1.OperatorService/ReadAudit"), "auditor operator approver security-admin");
        assert_eq!(who("/fleet.v1.OperatorService/PublishTrustBundle"), "security-admin");
        assert_eq!(who("/fleet.v1.OperatorService/Nothing"), "");
        for (path, _) in TABLE {
            let agent_and_operator = check(path, Caller::Agent).is_ok()
                && check(path, Caller::Operator(OperatorRole::SecurityAdmin)).is_ok();
            assert!(!agent_and_operator, "{path} is open to two roles");
        }
    }
}
