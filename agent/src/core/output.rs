//! The bounded spool of steps' output between the executor and the controller. Pure.
//!
//! Output has credits on both sides: the core lets the executor send as much as it has room for, the
//! controller lets the core send as much as it has room for. Bytes stay here until the controller says that
//! it has stored them; a new stream starts again from there. When there is no room the executor gets no
//! credit, keeps head and tail itself and marks the middle: output is dropped before results
//! (security-and-delivery §2.9). Used by the link's owner only.

use std::collections::VecDeque;

use fleet_proto::convert::FieldError;
use fleet_proto::pb;

use super::outbox::JobKey;

/// Room for one step: several seconds of a chatty program, what one round trip to a far controller needs to
/// stay busy, and what the executor sends of a step before its first credit.
pub const STEP_BYTES: usize = 256 * 1024;
/// From here on steps that ended make room for new ones; those that run (a handful) stay. The memory budget
/// of core and executor together is 25 MiB.
pub const TOTAL_BYTES: usize = 2 * 1024 * 1024;
/// Sent of a step before the controller has granted anything: one chunk's worth.
pub const INITIAL_CREDIT: u64 = 64 * 1024;
/// A step whose output was under way so often when the stream was refused is given up.
const MAX_REFUSED: u32 = 3;
/// Largest piece in one message; with its names it stays below the 64 KiB of an output message.
const PIECE_BYTES: usize = 32 * 1024;

#[derive(Debug)]
struct Step {
    job: JobKey,
    /// As on the wire, so that answers match.
    run: String,
    name: String,
    /// Stored by the controller up to here.
    stored: u64,
    /// Sent over the present stream up to here.
    sent: u64,
    /// May be sent up to here.
    limit: u64,
    /// Pieces from `stored` on, in order; there may be gaps where the executor dropped the middle.
    pieces: VecDeque<(u64, Vec<u8>)>,
    /// Taken up to here.
    end: u64,
    ended: bool,
    end_sent: bool,
    /// The job's report is acknowledged: nobody waits for this output any more.
    late: bool,
    /// How often the controller has ended the stream while this was under way.
    refused: u32,
}

impl Step {
    fn bytes(&self) -> usize {
        self.pieces.iter().map(|(_, data)| data.len()).sum()
    }

    fn is_done(&self) -> bool {
        self.ended && self.end_sent && self.stored >= self.end
    }

    fn drop_stored(&mut self) {
        while self.pieces.front().is_some_and(|(offset, data)| offset + data.len() as u64 <= self.stored) {
            self.pieces.pop_front();
        }
    }

    /// Would [`Self::next`] give something?
    fn has_next(&self) -> bool {
        match self.pieces.iter().find(|(start, data)| start + data.len() as u64 > self.sent) {
            Some((start, _)) => self.limit > self.sent.max(*start),
            None => self.ended && !self.end_sent,
        }
    }

    fn next(&mut self) -> Option<pb::OutputChunk> {
        let mut chunk = pb::OutputChunk {
            run: self.run.clone(),
            attempt: self.job.attempt.0,
            step: self.name.clone(),
            offset: self.end,
            data: Vec::new(),
            last: false,
        };
        if let Some((start, data)) =
            self.pieces.iter().find(|(start, data)| start + data.len() as u64 > self.sent)
        {
            chunk.offset = self.sent.max(*start);
            let room = usize::try_from(self.limit.saturating_sub(chunk.offset)).unwrap_or(usize::MAX);
            // Inside the piece, because the piece reaches beyond `sent`.
            let from = usize::try_from(chunk.offset - start).unwrap_or(0);
            let rest = data.get(from..).unwrap_or_default();
            chunk.data = rest[..rest.len().min(PIECE_BYTES).min(room)].to_vec();
            if chunk.data.is_empty() {
                return None;
            }
        } else if !self.ended || self.end_sent {
            return None;
        }
        self.sent = chunk.offset + chunk.data.len() as u64;
        chunk.last = self.ended && self.sent >= self.end;
        self.end_sent |= chunk.last;
        Some(chunk)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Spool {
    steps: VecDeque<Step>,
}

impl Spool {
    /// Takes a piece from the executor; answers how far and how much more it may send.
    pub fn on_chunk(&mut self, chunk: &pb::OutputChunk) -> Result<pb::OutputCredit, FieldError> {
        let job = JobKey::read(&chunk.run, chunk.attempt)?;
        let found = self.steps.iter().position(|step| step.job == job && step.name == chunk.step);
        if found.is_none() {
            self.make_room();
        }
        let index = found.unwrap_or_else(|| {
            self.steps.push_back(Step::new(job, chunk));
            self.steps.len() - 1
        });
        // The index was found or made just above.
        let Some(step) = self.steps.get_mut(index) else {
            return Err(FieldError::new("output.step", "is lost"));
        };
        let end = chunk.offset.saturating_add(chunk.data.len() as u64);
        let fits = step.bytes() + chunk.data.len() <= STEP_BYTES;
        if end >= step.end && (fits || chunk.data.is_empty()) {
            // What was taken before is cut off, so that a repeated piece does no harm.
            let known = usize::try_from(step.end.saturating_sub(chunk.offset)).unwrap_or(usize::MAX);
            let fresh = chunk.data.get(known..).unwrap_or_default();
            if !fresh.is_empty() {
                step.pieces.push_back((end - fresh.len() as u64, fresh.to_vec()));
            }
            step.end = end;
            step.ended |= chunk.last;
        }
        Ok(self.credit(index))
    }

    /// The controller has stored output and grants more. Answers the executor's new credit.
    pub fn on_credit(&mut self, credit: &pb::OutputCredit) -> Option<pb::OutputCredit> {
        let job = JobKey::read(&credit.run, credit.attempt).ok()?;
        let index = self.steps.iter().position(|step| step.job == job && step.name == credit.step)?;
        let step = self.steps.get_mut(index)?;
        // A controller cannot have stored what was never taken here.
        step.stored = step.stored.max(credit.offset.min(step.end));
        step.sent = step.sent.max(step.stored);
        step.limit = step.stored + u64::from(credit.credit);
        step.drop_stored();
        let answer = self.credit(index);
        if self.steps.get(index).is_some_and(Step::is_done) {
            self.steps.remove(index);
            return None;
        }
        Some(answer)
    }

    /// No stream any more: over the next one everything that is not stored is sent again.
    pub fn on_stream_lost(&mut self) {
        for step in &mut self.steps {
            step.sent = step.stored;
            step.limit = step.stored + INITIAL_CREDIT;
            step.end_sent = false;
        }
    }

    /// The controller ended the stream with a plain "no", which says nothing about whose output it was: what
    /// was under way each time is given up, so that it does not stand in the way of the rest.
    pub fn on_stream_refused(&mut self) {
        for step in self.steps.iter_mut().filter(|step| step.sent > step.stored || step.end_sent) {
            step.refused += 1;
        }
        self.steps.retain(|step| step.refused < MAX_REFUSED);
        if let Some(first) = self.steps.pop_front() {
            self.steps.push_back(first);
        }
    }

    /// The report of a job is acknowledged: its output makes room first.
    pub fn on_job_acked(&mut self, job: JobKey) {
        for step in self.steps.iter_mut().filter(|step| step.job == job) {
            step.late = true;
        }
    }

    /// What to send now; steps take turns.
    pub fn next_chunk(&mut self) -> Option<pb::OutputChunk> {
        for _ in 0..self.steps.len() {
            let mut step = self.steps.pop_front()?;
            let chunk = step.next();
            self.steps.push_back(step);
            if chunk.is_some() {
                return chunk;
            }
        }
        None
    }

    /// Would [`Self::next_chunk`] give something?
    pub fn has_next(&self) -> bool {
        self.steps.iter().any(Step::has_next)
    }

    /// Is there anything that the controller has not stored?
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn credit(&self, index: usize) -> pb::OutputCredit {
        let Some(step) = self.steps.get(index) else { return pb::OutputCredit::default() };
        let room = STEP_BYTES.saturating_sub(step.bytes());
        pb::OutputCredit {
            run: step.run.clone(),
            attempt: step.job.attempt.0,
            step: step.name.clone(),
            offset: step.end,
            credit: u32::try_from(room).unwrap_or(u32::MAX),
        }
    }

    /// Before a new step begins: output that nobody waits for any more goes first, then the oldest that ended.
    fn make_room(&mut self) {
        while self.steps.iter().map(Step::bytes).sum::<usize>() + STEP_BYTES > TOTAL_BYTES {
            let late = self.steps.iter().position(|step| step.late);
            match late.or_else(|| self.steps.iter().position(|step| step.ended)) {
                Some(index) => drop(self.steps.remove(index)),
                None => return,
            }
        }
    }
}

impl Step {
    fn new(job: JobKey, chunk: &pb::OutputChunk) -> Self {
        Self {
            job,
            run: chunk.run.clone(),
            name: chunk.step.clone(),
            stored: chunk.offset,
            sent: chunk.offset,
            limit: chunk.offset.saturating_add(INITIAL_CREDIT),
            pieces: VecDeque::new(),
            end: chunk.offset,
            ended: false,
            end_sent: false,
            late: false,
            refused: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_types::id::RunId;

    fn chunk(offset: u64, length: usize, last: bool) -> pb::OutputChunk {
        let run = RunId::from_number(5).to_string();
        pb::OutputChunk { run, attempt: 1, step: "s".to_owned(), offset, data: vec![7; length], last }
    }

    fn credit(offset: u64, credit: u32) -> pb::OutputCredit {
        pb::OutputCredit {
            run: RunId::from_number(5).to_string(),
            attempt: 1,
            step: "s".to_owned(),
            offset,
            credit,
        }
    }

    fn drain(spool: &mut Spool) -> Vec<(u64, usize, bool)> {
        std::iter::from_fn(|| spool.next_chunk())
            .map(|chunk| (chunk.offset, chunk.data.len(), chunk.last))
            .collect()
    }

    #[test]
    fn memory_is_bounded_and_the_executor_is_told() {
        let mut spool = Spool::default();
        let mut offset = 0;
        for _ in 0..100 {
            let answer = spool.on_chunk(&chunk(offset, 60_000, false)).unwrap();
            offset = answer.offset;
        }
        let answer = spool.on_chunk(&chunk(offset, 60_000, false)).unwrap();
        assert_eq!((answer.offset, answer.credit), (240_000, u32::try_from(STEP_BYTES - 240_000).unwrap()));
    }

    #[test]
    fn only_what_is_granted_is_sent_and_what_is_stored_is_forgotten() {
        let mut spool = Spool::default();
        spool.on_chunk(&chunk(0, 100_000, false)).unwrap();
        spool.on_chunk(&chunk(100_000, 0, true)).unwrap();
        assert_eq!(drain(&mut spool).iter().map(|c| c.1).sum::<usize>(), 65_536);
        let answer = spool.on_credit(&credit(65_536, 100_000)).unwrap();
        assert_eq!(answer.offset, 100_000);
        assert_eq!(drain(&mut spool), [(65_536, 32_768, false), (98_304, 1_696, true)]);
        assert!(spool.on_credit(&credit(100_000, 100_000)).is_none());
        assert!(spool.is_empty());
    }

    #[test]
    fn a_new_stream_starts_where_the_controller_is() {
        let mut spool = Spool::default();
        spool.on_chunk(&chunk(0, 30_000, false)).unwrap();
        spool.on_chunk(&chunk(30_000, 10, true)).unwrap();
        assert_eq!(drain(&mut spool), [(0, 30_000, false), (30_000, 10, true)]);
        spool.on_credit(&credit(20_000, 65_536));
        spool.on_stream_lost();
        assert_eq!(drain(&mut spool), [(20_000, 10_000, false), (30_000, 10, true)]);
        // A controller that claims more than was taken changes nothing beyond the end.
        assert!(spool.on_credit(&credit(99_999, 1)).is_none() && spool.is_empty());
    }

    #[test]
    fn output_that_the_controller_does_not_want_is_given_up() {
        let mut spool = Spool::default();
        spool.on_chunk(&chunk(0, 100, true)).unwrap();
        for _ in 0..MAX_REFUSED {
            assert_eq!(drain(&mut spool), [(0, 100, true)]);
            spool.on_stream_refused();
            spool.on_stream_lost();
        }
        assert!(spool.is_empty());
    }

    #[test]
    fn repeated_pieces_and_gaps_do_no_harm() {
        let mut spool = Spool::default();
        spool.on_chunk(&chunk(0, 100, false)).unwrap();
        spool.on_chunk(&chunk(50, 100, false)).unwrap();
        spool.on_chunk(&chunk(0, 10, false)).unwrap();
        spool.on_chunk(&chunk(1_000, 5, true)).unwrap();
        assert_eq!(drain(&mut spool), [(0, 100, false), (100, 50, false), (1_000, 5, true)]);
    }

    #[test]
    fn hostile_credits_do_not_panic() {
        let mut spool = Spool::default();
        spool.on_chunk(&chunk(0, 100, false)).unwrap();
        for offset in [u64::MAX, 0, 50] {
            spool.on_credit(&credit(offset, u32::MAX));
        }
        assert!(spool.on_credit(&pb::OutputCredit { run: "x".to_owned(), ..Default::default() }).is_none());
    }
}
