//! Numbers and checks of the session's messages. Pure.
//!
//! Every message names the link and has a number that rises by one from 1 in each direction
//! (security-and-delivery §2.3, §2.4). Hello is sent before the link has an epoch, so it names epoch 0;
//! Welcome brings the epoch, and every message after it, in both directions, must name it.

use fleet_proto::pb;
use fleet_proto::pb::{agent_message, controller_message};

/// What ends a session from our side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionFault {
    /// A message of another link.
    #[error("controller sent a message of link {found} over link {expected}")]
    WrongEpoch {
        /// Ours.
        expected: u64,
        /// The message's.
        found: u64,
    },
    /// A message is missing or came twice.
    #[error("controller sent message {found} where {expected} was due")]
    Gap {
        /// Due.
        expected: u64,
        /// Found.
        found: u64,
    },
    /// The first message was something else.
    #[error("controller did not begin with welcome")]
    NotWelcome,
    /// A second Welcome.
    #[error("controller sent welcome twice")]
    SecondWelcome,
    /// A protocol that was not offered.
    #[error("controller chose protocol {0}, which this agent did not offer")]
    Protocol(u32),
    /// Epoch zero stands for "no link yet".
    #[error("controller gave the link no epoch")]
    NoEpoch,
}

/// The two counters and the epoch.
#[derive(Debug, Default)]
pub struct Session {
    epoch: u64,
    sent: u64,
    received: u64,
}

impl Session {
    /// Puts a body into a message of this link.
    pub fn stamp(&mut self, body: agent_message::Body) -> pb::AgentMessage {
        self.sent += 1;
        pb::AgentMessage { link_epoch: self.epoch, seq: self.sent, body: Some(body) }
    }

    /// Checks the first message.
    pub fn welcome(&mut self, message: pb::ControllerMessage) -> Result<(u64, pb::Welcome), SessionFault> {
        self.count(message.seq)?;
        let Some(controller_message::Body::Welcome(welcome)) = message.body else {
            return Err(SessionFault::NotWelcome);
        };
        if message.link_epoch == 0 {
            return Err(SessionFault::NoEpoch);
        }
        if !fleet_proto::PROTOCOL.contains(&welcome.protocol) {
            return Err(SessionFault::Protocol(welcome.protocol));
        }
        self.epoch = message.link_epoch;
        Ok((self.epoch, welcome))
    }

    /// Checks every later message. Of a newer controller there may be some that this agent does not know: none.
    pub fn check(
        &mut self,
        message: pb::ControllerMessage,
    ) -> Result<Option<controller_message::Body>, SessionFault> {
        if message.link_epoch != self.epoch {
            return Err(SessionFault::WrongEpoch { expected: self.epoch, found: message.link_epoch });
        }
        self.count(message.seq)?;
        match message.body {
            Some(controller_message::Body::Welcome(_)) => Err(SessionFault::SecondWelcome),
            body => Ok(body),
        }
    }

    fn count(&mut self, found: u64) -> Result<(), SessionFault> {
        let expected = self.received + 1;
        if found != expected {
            return Err(SessionFault::Gap { expected, found });
        }
        self.received = expected;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use controller_message::Body;

    fn message(link_epoch: u64, seq: u64, body: Body) -> pb::ControllerMessage {
        pb::ControllerMessage { link_epoch, seq, body: Some(body) }
    }

    fn welcome() -> Body {
        Body::Welcome(pb::Welcome { protocol: 1, ..Default::default() })
    }

    fn beat() -> Body {
        Body::Heartbeat(pb::HeartbeatReply { time_ms: 0 })
    }

    fn up() -> Session {
        let mut session = Session::default();
        session.welcome(message(9, 1, welcome())).unwrap();
        session
    }

    #[test]
    fn hello_has_no_epoch_yet_and_numbers_rise_by_one() {
        let mut session = Session::default();
        let hello = session.stamp(agent_message::Body::Hello(pb::Hello::default()));
        session.welcome(message(9, 1, welcome())).unwrap();
        let next = session.stamp(agent_message::Body::Facts(pb::Facts::default()));
        assert_eq!([(hello.link_epoch, hello.seq), (next.link_epoch, next.seq)], [(0, 1), (9, 2)]);
        assert_eq!(session.check(message(9, 2, beat())), Ok(Some(beat())));
    }

    #[test]
    fn every_other_message_is_refused_by_reason() {
        assert_eq!(Session::default().welcome(message(9, 1, beat())), Err(SessionFault::NotWelcome));
        assert_eq!(Session::default().welcome(message(0, 1, welcome())), Err(SessionFault::NoEpoch));
        let newer = Body::Welcome(pb::Welcome { protocol: 2, ..Default::default() });
        assert_eq!(Session::default().welcome(message(9, 1, newer)), Err(SessionFault::Protocol(2)));
        let wrong = SessionFault::WrongEpoch { expected: 9, found: 8 };
        assert_eq!(up().check(message(8, 2, beat())), Err(wrong));
        assert_eq!(up().check(message(9, 3, beat())), Err(SessionFault::Gap { expected: 2, found: 3 }));
        assert_eq!(up().check(message(9, 1, beat())), Err(SessionFault::Gap { expected: 2, found: 1 }));
        assert_eq!(up().check(message(9, 2, welcome())), Err(SessionFault::SecondWelcome));
    }

    #[test]
    fn a_message_of_a_newer_controller_is_counted_and_ends_nothing() {
        let mut session = up();
        let newer = pb::ControllerMessage { link_epoch: 9, seq: 2, body: None };
        assert_eq!(session.check(newer), Ok(None));
        assert_eq!(session.check(message(9, 3, beat())), Ok(Some(beat())));
    }
}
