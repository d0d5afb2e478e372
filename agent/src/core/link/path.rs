//! Is the way to a controller open, on a connection that does not exist yet?
//!
//! Asked by the executor while its guard holds a change: a link that is up proves nothing, because a packet filter lets
//! established connections through and refuses the next one (security-and-delivery §2.10). One question at a time; a
//! newer one takes the place of one that waits. Driven by the link's loops, with or without a link.

use std::time::Duration;

use fleet_proto::pb;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dial::Dialer;
use crate::clock;

/// The reply needs one round trip of a controller that has just shaken hands.
const REPLY_LIMIT: Duration = Duration::from_secs(10);
/// A witness is near: the gateway or the partner.
const WITNESS_LIMIT: Duration = Duration::from_secs(3);
/// Witnesses asked, one after the other.
const MAX_WITNESSES: usize = 8;

/// The question that waits and the one under way.
#[derive(Debug, Default)]
pub struct PathChecks {
    asked: Option<pb::CheckPath>,
    running: JoinSet<pb::PathChecked>,
}

impl PathChecks {
    /// The executor asks.
    pub fn ask(&mut self, question: pb::CheckPath) {
        self.asked = Some(question);
    }

    /// Starts what waits, unless one is under way.
    pub fn start(&mut self, dialer: &Dialer) {
        if self.running.is_empty()
            && let Some(question) = self.asked.take()
        {
            self.running.spawn(check(dialer.clone(), question));
        }
    }

    /// The answer of the one under way; waits for ever where there is none. Safe to drop at its await.
    pub async fn answered(&mut self) -> pb::PathChecked {
        loop {
            match self.running.join_next().await {
                Some(Ok(answer)) => return answer,
                // It panicked: the executor asks again.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

async fn check(dialer: Dialer, question: pb::CheckPath) -> pb::PathChecked {
    let mut answer = pb::PathChecked { id: question.id, ..pb::PathChecked::default() };
    match round_trip(&dialer).await {
        Ok(endpoint) => answer.controller = endpoint,
        Err(problem) => {
            answer.problem = problem;
            for witness in question.witnesses.into_iter().take(MAX_WITNESSES) {
                if let Ok(Ok(_)) = timeout(WITNESS_LIMIT, TcpStream::connect(&witness)).await {
                    answer.witness = witness;
                    break;
                }
            }
        }
    }
    answer
}

/// A nonce to a controller and back; gives the endpoint.
async fn round_trip(dialer: &Dialer) -> Result<String, String> {
    let Some(mut clients) = dialer.dial().await else {
        return Err("no controller accepts a new connection".to_owned());
    };
    let nonce = clock::start_id().into_bytes();
    let asked = clients.control.confirm(pb::ConfirmRequest { nonce: nonce.clone() });
    let said = |what: &str| format!("{} accepts a new connection and {what}", clients.endpoint);
    match timeout(REPLY_LIMIT, asked).await {
        Ok(Ok(reply)) if reply.get_ref().nonce == nonce => Ok(clients.endpoint),
        Ok(Ok(_)) => Err(said("gives another nonce back")),
        Ok(Err(status)) => {
            let message: String = status.message().chars().filter(|c| !c.is_control()).take(200).collect();
            Err(said(&format!("answers: {message}")))
        }
        Err(_) => Err(said("does not answer")),
    }
}
