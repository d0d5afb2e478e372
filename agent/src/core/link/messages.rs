//! What is done with a message that has arrived over a link that is up: from the controller, the executor, or
//! the output stream. Synchronous; nothing here waits.

use std::time::Duration;

use fleet_proto::pb::{self, controller_message, core_message, executor_message};
use tokio::time::Instant;

use super::ending::{Ended, Lost};
use super::live::Live;
use super::output_stream::Heard;
use super::owner::LinkError;
use super::session::SessionFault;

impl Live<'_> {
    pub(super) fn on_controller(
        &mut self,
        message: Result<Option<pb::ControllerMessage>, tonic::Status>,
    ) -> Option<Ended> {
        use controller_message::Body;
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return Some(Ended::Lost(Lost::Closed)),
            Err(status) => return Some(Ended::Lost(Lost::Broken(status))),
        };
        let body = match self.link.session.check(message) {
            Ok(Some(body)) => body,
            Ok(None) => {
                self.not_understood += 1;
                if self.not_understood == 1 {
                    tracing::warn!(
                        "the controller sends messages that this agent does not know: it is newer"
                    );
                }
                return None;
            }
            Err(fault) => return Some(Ended::Lost(fault.into())),
        };
        self.channel.to.push(match body {
            Body::Heartbeat(_) => {
                self.last_reply = Instant::now();
                return None;
            }
            Body::Goodbye(goodbye) => {
                let reason = goodbye.reason.chars().filter(|c| !c.is_control()).take(200).collect();
                let retry_after = Duration::from_millis(goodbye.retry_after_ms.into());
                return Some(Ended::Goodbye { reason, retry_after });
            }
            Body::ReportAck(ack) => {
                if !self.state.on_report_ack(&ack) {
                    return None;
                }
                core_message::Body::ReportAck(ack)
            }
            Body::Reconcile(reply) => core_message::Body::Reconcile(reply),
            // Stopping: no new work is taken; the controller offers it again on the next link.
            Body::Assign(_) if self.flush_until.is_some() => return None,
            Body::Assign(assign) => core_message::Body::Assign(assign),
            Body::Cancel(cancel) => core_message::Body::Cancel(cancel),
            Body::Trust(trust) => core_message::Body::Trust(trust),
            // Checked by the session.
            Body::Welcome(_) => return Some(Ended::Lost(SessionFault::SecondWelcome.into())),
        });
        None
    }

    pub(super) fn on_executor(
        &mut self,
        message: Option<executor_message::Body>,
    ) -> Result<Option<Ended>, LinkError> {
        match message {
            None if self.flush_until.is_some() || self.channel.from.has_left() => {
                self.executor_open = false;
                self.flush_until.get_or_insert_with(|| Instant::now() + self.timers.flush());
            }
            None => return Err(LinkError::ExecutorGone),
            Some(executor_message::Body::LinkRefused(refused)) if !self.state.executor_is_behind() => {
                return Ok(Some(Ended::Lost(Lost::Refused(refused.reason))));
            }
            Some(body) => {
                let answers =
                    matches!(body, executor_message::Body::Reconcile(_)) && !self.state.executor_is_behind();
                if answers && self.answer_due.take().is_some() {
                    self.state.on_link_accepted(self.link.welcome.generation, self.link.epoch);
                }
                self.state.on_executor(body);
            }
        }
        Ok(None)
    }

    pub(super) fn on_output(&mut self, heard: Option<Heard>) {
        match heard {
            Some(Heard::Stored(stored)) => self.channel.to.push(core_message::Body::OutputStored(stored)),
            Some(Heard::Refused) => self.output_lost(true),
            None => self.output_lost(false),
        }
    }

    /// The stream has ended; the executor sends again what is not stored, over the next one.
    fn output_lost(&mut self, refused: bool) {
        self.output = None;
        self.state.output.clear();
        self.output_after = Instant::now() + self.timers.report_resend;
        self.channel.to.push(core_message::Body::OutputLost(pb::OutputLost { refused }));
    }
}
