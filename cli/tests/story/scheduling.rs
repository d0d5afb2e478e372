//! Schedules that may start work: what the controller that is played takes, and what operators see of it.

use fleet_proto::{convert, pb};
use fleet_types::canonical;
use fleet_types::seal::{Envelope, Kind};
use fleet_types::standing_order::StandingOrder;
use fleet_types::view::{AuthoriseItem, AuthoriseView, Authorised};
use tonic::Code;

use crate::answers::{Reply, refusal, view};
use crate::fake::Fake;

/// Takes orders as the real one does: signed with the caller's key, of their own kind, one for a schedule.
pub fn authorise(fake: &Fake, call: &pb::AuthoriseSchedulesRequest) -> Reply {
    let mut state = fake.state.lock().unwrap();
    let key = state.content_key.unwrap();
    let mut answer = AuthoriseView::new(call.file.parse().unwrap());
    for order in &call.orders {
        let envelope: Envelope = convert::json("orders", order).unwrap();
        if let Err(error) = envelope.verify(Kind::StandingOrder, fake.fleet, &key) {
            return Err(refusal(Code::FailedPrecondition, "signature-refused", &error.to_string(), ""));
        }
        let order: StandingOrder = canonical::from_signed(&envelope.payload).unwrap();
        assert_eq!(order.check(fake.fleet), Ok(()));
        let (schedule, until) = (order.schedule.clone(), Some(order.not_after));
        state.authorised.retain(|known| known.schedule != schedule);
        state.authorised.push(order);
        answer.items.push(AuthoriseItem { schedule, what: Authorised::Authorised, until, why: vec![] });
    }
    view(&answer)
}
