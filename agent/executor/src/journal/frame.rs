//! One frame of the journal file: length, CRC32C, sequence, payload; and the reading of a whole file.
//!
//! Pure: bytes in, frames out. It must never take damaged bytes for an entry, and never call damage in the
//! middle a torn tail. Called by the journal's file alone.

/// First bytes of the file; a later format gets another line.
pub const MAGIC: &[u8] = b"fleet-journal 1\n";
/// The shortest journal there is: the first line and a frame that says nothing but its number (`null`).
pub const SHORTEST_BYTES: u64 = (MAGIC.len() + HEADER_BYTES + 4) as u64;
/// Largest payload: a step's report within [`fleet_types::report::MAX_REPORT_BYTES`], with room around it.
pub const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;
/// Length, checksum and sequence.
const HEADER_BYTES: usize = 4 + 4 + 8;
/// A frame found behind damage must have a sequence within this distance of the last good one; a million
/// entries lie between two compactions at most.
const MAX_SEQUENCE_STEP: u64 = 1_000_000;

/// The bytes of one frame. The checksum covers sequence and payload.
pub fn encode(sequence: u64, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(8 + payload.len());
    body.extend_from_slice(&sequence.to_be_bytes());
    body.extend_from_slice(payload);
    // Callers keep payloads within MAX_PAYLOAD_BYTES.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(8 + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    frame.extend_from_slice(&body);
    frame
}

/// One good frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its number; rises from frame to frame.
    pub sequence: u64,
    /// The entry, JSON.
    pub payload: &'a [u8],
}

/// How a file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With its last good frame.
    Clean,
    /// With part of a frame that a crash cut short; the good part is this long.
    Torn {
        /// Bytes to keep.
        keep: usize,
    },
    /// Damaged at this byte, with good frames behind it or more lost than one frame.
    Damaged {
        /// Where.
        at: usize,
    },
}

/// Reads one frame at the start of `bytes`; gives the frame and its whole length.
fn read_one(bytes: &[u8], after: u64) -> Option<(Frame<'_>, usize)> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    if length > MAX_PAYLOAD_BYTES {
        return None;
    }
    let checksum = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
    let sequence = u64::from_be_bytes(bytes.get(8..HEADER_BYTES)?.try_into().ok()?);
    // Cheap test first: it spares the checksum when looking for frames behind damage.
    if sequence <= after || sequence - after > MAX_SEQUENCE_STEP {
        return None;
    }
    let body = bytes.get(8..HEADER_BYTES + length)?;
    if crc32c::crc32c(body) != checksum {
        return None;
    }
    Some((Frame { sequence, payload: &body[8..] }, HEADER_BYTES + length))
}

/// Reads all good frames of a file, those behind damage too, and says how it ends.
pub fn read_all(bytes: &[u8]) -> (Vec<Frame<'_>>, Ending) {
    if !bytes.starts_with(MAGIC) {
        // A crash while the file was made leaves a part of the first line and nothing else.
        let ending =
            if MAGIC.starts_with(bytes) { Ending::Torn { keep: 0 } } else { Ending::Damaged { at: 0 } };
        return (Vec::new(), ending);
    }
    let mut frames = Vec::new();
    let mut damaged = None;
    let mut at = MAGIC.len();
    let mut last = 0;
    while at < bytes.len() {
        // The first frame of a file may have any number: a compacted file begins high.
        let after = if frames.is_empty() { first_after(&bytes[at..]) } else { last };
        if let Some((frame, length)) = read_one(&bytes[at..], after) {
            last = frame.sequence;
            frames.push(frame);
            at += length;
        } else if let Some(skip) = next_good(&bytes[at..], last) {
            damaged.get_or_insert(at);
            at += skip;
        } else {
            let ending = tail_at(bytes, at);
            return (frames, damaged.map_or(ending, |at| Ending::Damaged { at }));
        }
    }
    (frames, damaged.map_or(Ending::Clean, |at| Ending::Damaged { at }))
}

fn first_after(bytes: &[u8]) -> u64 {
    let number = bytes.get(8..HEADER_BYTES).and_then(|n| n.try_into().ok()).map_or(0, u64::from_be_bytes);
    number.saturating_sub(1)
}

/// Where the next good frame begins behind a bad one.
fn next_good(rest: &[u8], last: u64) -> Option<usize> {
    (1..rest.len()).find(|skip| read_one(&rest[*skip..], last).is_some())
}

/// A bad frame with nothing good behind it is a torn tail if no more than one frame is lost: frames are
/// written one at a time, each durable before the next.
fn tail_at(bytes: &[u8], at: usize) -> Ending {
    let rest = &bytes[at..];
    let one_frame = rest.len() <= HEADER_BYTES + MAX_PAYLOAD_BYTES || rest.iter().all(|b| *b == 0);
    if one_frame { Ending::Torn { keep: at } } else { Ending::Damaged { at } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (n, payload) in payloads.iter().enumerate() {
            bytes.extend(encode(n as u64 + 41, payload));
        }
        bytes
    }

    #[test]
    fn a_tail_torn_at_any_byte_is_cut_and_nothing_else() {
        let whole = file(&[b"{\"a\":1}", b"{\"b\":2}", b"{\"c\":3}"]);
        let keep = file(&[b"{\"a\":1}", b"{\"b\":2}"]).len();
        for end in keep + 1..whole.len() {
            let (frames, ending) = read_all(&whole[..end]);
            assert_eq!((frames.len(), ending), (2, Ending::Torn { keep }), "cut at {end}");
            // The same with the file grown by zeros, as some file systems leave it.
            let mut grown = whole[..end].to_vec();
            grown.resize(whole.len() + 4096, 0);
            assert_eq!(read_all(&grown).1, Ending::Torn { keep }, "zeros after {end}");
        }
        for end in 0..MAGIC.len() {
            assert_eq!(read_all(&whole[..end]).1, Ending::Torn { keep: 0 });
        }
        assert_eq!(read_all(&whole).1, Ending::Clean);
        assert_eq!(read_all(&whole).0[2], Frame { sequence: 43, payload: b"{\"c\":3}" });
    }

    #[test]
    fn damage_before_the_last_frame_is_never_a_torn_tail() {
        let whole = file(&[b"{\"a\":1}", b"{\"b\":2}", b"{\"c\":3}"]);
        let first = file(&[b"{\"a\":1}"]).len();
        let second = file(&[b"{\"a\":1}", b"{\"b\":2}"]).len();
        for at in first..second {
            let mut bad = whole.clone();
            bad[at] ^= 0x40;
            let (frames, ending) = read_all(&bad);
            assert_eq!(ending, Ending::Damaged { at: first }, "flipped byte {at}");
            let kept: Vec<_> = frames.iter().map(|frame| frame.sequence).collect();
            assert_eq!(kept, [41, 43], "what lies behind the damage is still read");
        }
        assert_eq!(read_all(b"something else").1, Ending::Damaged { at: 0 });
    }
}
