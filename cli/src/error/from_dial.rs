//! From "no connection came about" to what the operator can do about it.

use fleet_certs::dial::DialError;
use fleet_certs::{CertFault, OwnFault};

use super::{ExitCode, Failure};

/// What is dialled, for the fixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialled<'a> {
    /// The endpoint of a context.
    Context(&'a str),
    /// An enrolment port, for a context that may not exist yet.
    Enrolment(&'a str),
}

/// A failure to connect.
pub fn from_dial_error(error: &DialError, dialled: Dialled<'_>) -> Failure {
    let (Dialled::Context(context) | Dialled::Enrolment(context)) = dialled;
    let is_login = matches!(dialled, Dialled::Enrolment(_));
    let login = format!("sign in again: fleetctl login INVITE --context {context}");
    match error {
        DialError::OurCertificate { fault, .. } => own_fault(*fault, context).cause(error.to_string()),
        DialError::TheirCertificate { fault, .. } => {
            let failure =
                Failure::new(ExitCode::NotAllowed, "controller-refused", error.to_string()).because(fault);
            match fault {
                CertFault::WrongServerName { .. } if is_login => {
                    failure.fix("add --server-name NAME, with the name in the certificate")
                }
                CertFault::WrongServerName { .. } => failure
                    .fix(format!("set server_name of context \"{context}\" to the name in the certificate")),
                CertFault::NotPinned { .. } => {
                    failure.fix("check the address, or ask for a new invite from this fleet's controller")
                }
                CertFault::Expired { .. } | CertFault::NotYetValid { .. } => {
                    failure.fix("compare this machine's clock with the controller's")
                }
                _ => failure.fix(login),
            }
        }
        DialError::Address(_) if is_login => Failure::new(ExitCode::Usage, "bad-address", error.to_string())
            .fix("give --server HOST or HOST:PORT"),
        DialError::Address(_) => Failure::new(ExitCode::Usage, "bad-address", error.to_string())
            .fix(format!("correct the endpoint of context \"{context}\" in config.toml")),
        _ => Failure::new(ExitCode::NotReachable, "not-reachable", error.to_string())
            .because_sources(error)
            .fix("see that the controller runs")
            .fix(if is_login {
                "see that --server HOST[:PORT] is its enrolment address".to_owned()
            } else {
                format!("see that this is its address: endpoint of context \"{context}\" in config.toml")
            }),
    }
}

/// What the controller said about our own certificate.
pub fn own_fault(fault: OwnFault, context: &str) -> Failure {
    let code = match fault {
        OwnFault::NotValidNow => "cert-expired",
        OwnFault::Revoked => "cert-revoked",
        OwnFault::Missing => "not-signed-in",
        OwnFault::UnknownAuthority | OwnFault::WrongPurpose | OwnFault::NotAccepted => "cert-refused",
    };
    let failure = Failure::new(ExitCode::NotAllowed, code, fault.to_string());
    if fault == OwnFault::Revoked {
        failure.fix("ask a security-admin for a new invite")
    } else {
        failure.fix(format!("sign in again: fleetctl login INVITE --context {context}"))
    }
}

impl Failure {
    /// Adds the sources of an error, without itself.
    fn because_sources(self, error: &dyn std::error::Error) -> Self {
        match error.source() {
            Some(source) => self.because(source),
            None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_not_to_connect_has_its_exit_code() {
        let address = || "ctl:7443".to_owned();
        let io = || std::io::Error::other("x");
        let their =
            |fault| DialError::TheirCertificate { address: address(), server_name: "ctl".into(), fault };
        let cases = [
            (DialError::Refused { address: address() }, 9, "not-reachable"),
            (DialError::Unreachable { address: address(), source: io() }, 9, "not-reachable"),
            (DialError::Resolve { address: address(), source: io() }, 9, "not-reachable"),
            (DialError::NotHttp2 { address: address() }, 9, "not-reachable"),
            (DialError::Address("x".into()), 2, "bad-address"),
            (their(CertFault::UnknownIssuer), 10, "controller-refused"),
            (their(CertFault::NotPinned { presented: vec![] }), 10, "controller-refused"),
            (
                DialError::OurCertificate { address: address(), fault: OwnFault::NotValidNow },
                10,
                "cert-expired",
            ),
            (DialError::OurCertificate { address: address(), fault: OwnFault::Revoked }, 10, "cert-revoked"),
            (DialError::OurCertificate { address: address(), fault: OwnFault::Missing }, 10, "not-signed-in"),
        ];
        for (error, exit, code) in cases {
            let failure = from_dial_error(&error, Dialled::Context("prod"));
            assert_eq!((failure.exit.number(), failure.code.as_str()), (exit, code), "{error:?}");
            assert!(!failure.fixes.is_empty(), "{error:?} says what to do");
        }
        // At login there is no context that could be mended.
        let wrong_name = their(CertFault::WrongServerName { expected: "ctl".into(), presented: vec![] });
        for error in [wrong_name, DialError::Refused { address: address() }, DialError::Address("x".into())] {
            let failure = from_dial_error(&error, Dialled::Enrolment("default"));
            let fixes = failure.fixes.join("; ");
            assert!(fixes.contains("--server") && !fixes.contains("context"), "{fixes}");
        }
    }
}
