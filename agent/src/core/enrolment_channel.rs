//! Both ends of the socket over which the halves of a joining node speak: order, answer, kept, in place.
//!
//! The core's half does what one process does in `fleet-agent enrol`, one message a step. The executor's half
//! believes nothing that it can check itself. Every wait is limited, since the other end may be anything.

use std::io;
use std::time::Duration;

use fleet_certs::token::{Token, TokenKind};
use fleet_executor::socket::{CoreJoinPort, ExecutorJoinPort, Receiver, Socket, SocketError};
use fleet_proto::convert::{self, FieldError};
use fleet_proto::pb::{self, join_command, join_reply};
use fleet_types::id::Name;
use fleet_types::seal::PublicKey;
use tokio::time::timeout;

use super::join::{self, Begun, Brought, Order};
use crate::config::Config;
use crate::error::{Exit, Failure};

/// Fsyncs of a handful of small files, on a disk that is slow.
const STORE_LIMIT: Duration = Duration::from_secs(30);

/// The executor's end.
#[derive(Debug)]
pub struct EnrolmentChannel {
    port: ExecutorJoinPort,
    answer_limit: Duration,
}

/// What the core's half answered.
#[derive(Debug)]
pub enum Answer {
    /// Joined with this token before.
    Already(Name),
    /// To be kept.
    Brought(Box<Brought>),
}

impl EnrolmentChannel {
    /// Binds the executor's end to the runtime of the caller.
    pub fn open(socket: Socket, config: &Config) -> io::Result<Self> {
        // What dialling and the call may take, and the start of the process.
        let answer_limit = config.timers.connect * 3 + config.timers.document + STORE_LIMIT;
        Ok(Self { port: ExecutorJoinPort::bind(socket)?, answer_limit })
    }

    /// Gives the order and waits for the answer.
    pub async fn order(&mut self, order: &Order) -> Result<Answer, Failure> {
        let order = pb::JoinOrder {
            token: order.token.expose(),
            report_key: order.report_key.as_bytes().to_vec(),
            replace: order.replace,
        };
        match self.ask(join_command::Body::Order(order), self.answer_limit).await? {
            join_reply::Body::Already(name) => {
                convert::text("join.already", &name).map(Answer::Already).map_err(|e| broken(&e))
            }
            join_reply::Body::Brought(brought) => {
                read(&brought).map(|brought| Answer::Brought(Box::new(brought))).map_err(|e| broken(&e))
            }
            _ => Err(out_of_turn()),
        }
    }

    /// Says that the executor's part is kept, and waits until the identity is in place.
    pub async fn keep(mut self) -> Result<(), Failure> {
        match self.ask(join_command::Body::Keep(pb::JoinKeep {}), STORE_LIMIT).await? {
            join_reply::Body::Kept(_) => Ok(()),
            _ => Err(out_of_turn()),
        }
    }

    async fn ask(&mut self, body: join_command::Body, limit: Duration) -> Result<join_reply::Body, Failure> {
        let command = pb::JoinCommand { body: Some(body) };
        let asking = async {
            self.port.sender.send(&command).await?;
            self.port.receiver.receive().await
        };
        let reply = match timeout(limit, asking).await {
            Ok(reply) => reply.map_err(|e| broken(&e))?,
            Err(_) => return Err(Failure::new(Exit::Failed, "the core did not answer in time")),
        };
        match reply.and_then(|reply| reply.body) {
            Some(join_reply::Body::Failed(failed)) => {
                Err(Failure::new(Exit::of_code(failed.exit), failed.message))
            }
            Some(body) => Ok(body),
            None => Err(Failure::new(Exit::Failed, "the core ended before it had answered")),
        }
    }
}

/// The core's end: takes the order, answers, and puts the identity in place when it is told to.
pub async fn serve(socket: Socket, config: &Config) -> Result<(), Failure> {
    let (mut sender, mut receiver) = CoreJoinPort::bind(socket).map_err(|e| broken(&e))?.split();
    let done =
        carry_out(&mut receiver, config, async |body| sender.send(&pb::JoinReply { body: Some(body) }).await)
            .await;
    let last = match &done {
        Ok(Some(body)) => body.clone(),
        Ok(None) => return Ok(()),
        Err(failure) => join_reply::Body::Failed(pb::JoinFailed {
            exit: failure.exit as u32,
            message: failure.message.clone(),
        }),
    };
    sender.send(&pb::JoinReply { body: Some(last) }).await.map_err(|e| broken(&e))
}

/// The last reply; none when the other half has left.
async fn carry_out(
    receiver: &mut Receiver<pb::JoinCommand>,
    config: &Config,
    mut answer: impl AsyncFnMut(join_reply::Body) -> Result<(), SocketError>,
) -> Result<Option<join_reply::Body>, Failure> {
    let Some(first) = receiver.receive().await.map_err(|e| broken(&e))? else { return Ok(None) };
    let Some(join_command::Body::Order(order)) = first.body else { return Err(out_of_turn()) };
    let order = Order {
        token: Token::parse(TokenKind::Node, &order.token).map_err(|e| Failure::of(Exit::Usage, &e))?,
        report_key: PublicKey::from_slice(&order.report_key).map_err(|e| broken(&e))?,
        replace: order.replace,
    };
    let joining = match join::begin(config, &order).await? {
        Begun::Already(name) => return Ok(Some(join_reply::Body::Already(name.to_string()))),
        Begun::Joining(joining) => joining,
    };
    answer(join_reply::Body::Brought(written(&joining.brought()))).await.map_err(|e| broken(&e))?;
    match receiver.receive().await.map_err(|e| broken(&e))? {
        // The executor could not keep its part: nothing is put in place, and the same command goes on.
        None => Ok(None),
        Some(pb::JoinCommand { body: Some(join_command::Body::Keep(_)) }) => {
            joining.keep()?;
            Ok(Some(join_reply::Body::Kept(pb::JoinKept {})))
        }
        Some(_) => Err(out_of_turn()),
    }
}

fn written(brought: &Brought) -> pb::JoinBrought {
    pb::JoinBrought {
        record: convert::to_json(&brought.record),
        root_keys: convert::to_json(&brought.roots),
        trust_bundle: convert::to_json(&brought.bundle),
        not_after: brought.not_after.to_string(),
    }
}

fn read(brought: &pb::JoinBrought) -> Result<Brought, FieldError> {
    Ok(Brought {
        record: convert::json("join.record", &brought.record)?,
        roots: convert::json("join.root_keys", &brought.root_keys)?,
        bundle: convert::json("join.trust_bundle", &brought.trust_bundle)?,
        not_after: convert::text("join.not_after", &brought.not_after)?,
    })
}

fn broken(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::of(Exit::Failed, error)
}

fn out_of_turn() -> Failure {
    Failure::new(Exit::Failed, "a message between the halves of the agent came out of turn")
}
