//! Output of steps on its way from the executor to the controller. Pure.
//!
//! The executor keeps it until it is stored there, and has little under way at a time; here stand only the pieces that
//! wait for room on their stream. Used by the link's owner only.

use std::collections::VecDeque;

use fleet_proto::pb;

/// Four times what the executor has under way of all steps together, in pieces of its size. One that sends more has lost
/// count; what it sends then is dropped, and comes again with the next stream.
const MAX_PIECES: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Waiting {
    pieces: VecDeque<pb::OutputChunk>,
}

impl Waiting {
    /// Takes a piece; false when there is no room.
    pub fn push(&mut self, piece: pb::OutputChunk) -> bool {
        let has_room = self.pieces.len() < MAX_PIECES;
        if has_room {
            self.pieces.push_back(piece);
        }
        has_room
    }

    /// The next piece, in the order in which they came.
    pub fn pop(&mut self) -> Option<pb::OutputChunk> {
        self.pieces.pop_front()
    }

    /// Is there nothing to send?
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// No stream any more: the executor sends all again that is not stored.
    pub fn clear(&mut self) {
        self.pieces.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_wait_in_order_and_not_without_end() {
        let mut waiting = Waiting::default();
        let piece = |offset| pb::OutputChunk { offset, ..Default::default() };
        let taken = (0..100).filter(|offset| waiting.push(piece(*offset))).count();
        assert_eq!(taken, MAX_PIECES);
        assert_eq!(waiting.pop().map(|piece| piece.offset), Some(0));
        assert!(waiting.push(piece(100)));
        waiting.clear();
        assert!(waiting.is_empty() && waiting.pop().is_none());
    }
}
