//! The only door of the executor: framed messages over a Unix socket pair, also within one process.
//!
//! A frame is a length of four bytes, big-endian, and one protobuf message. A longer one than the limit ends
//! the connection: whoever sent it does not speak this protocol. Used by the executor on its side and by
//! the agent's core on the other.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, OwnedFd};

use fleet_proto::pb::{CoreMessage, ExecutorMessage, JoinCommand, JoinReply};
use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Largest message: that of the wire (security-and-delivery §1.22), since documents pass through.
pub const MAX_FRAME_BYTES: usize = fleet_proto::MAX_MESSAGE_BYTES;
/// Read at a time; control messages are a few hundred bytes.
const READ_BYTES: usize = 16 * 1024;

/// The socket pair failed.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Reading or writing failed, or the other side left in the middle of a message.
    #[error("the socket between core and executor failed")]
    Io(#[source] io::Error),
    /// A frame over the limit.
    #[error("a message of {0} bytes is over the limit of {MAX_FRAME_BYTES}")]
    TooLarge(usize),
    /// Not a message of this protocol.
    #[error("a message between core and executor cannot be read")]
    Malformed(#[source] prost::DecodeError),
}

/// One end of the pair, not yet bound to a runtime: it may be moved to another thread or process.
#[derive(Debug)]
pub struct Socket(std::os::unix::net::UnixStream);

/// The two ends: one for the core, one for the executor.
pub fn pair() -> io::Result<(Socket, Socket)> {
    let (core, executor) = std::os::unix::net::UnixStream::pair()?;
    Ok((Socket(core), Socket(executor)))
}

impl Socket {
    /// The end that this process was given as its standard input by the process that has the other end.
    pub fn from_standard_input() -> io::Result<Self> {
        let socket = std::os::unix::net::UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Fails where it is a terminal, a file or a pipe: nobody is at the other end.
        socket.peer_addr()?;
        Ok(Self(socket))
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.0.into()
    }
}

impl From<std::os::unix::net::UnixStream> for Socket {
    fn from(stream: std::os::unix::net::UnixStream) -> Self {
        Self(stream)
    }
}

/// The core's end.
pub type CorePort = Port<CoreMessage, ExecutorMessage>;
/// The executor's end.
pub type ExecutorPort = Port<ExecutorMessage, CoreMessage>;

/// The core's end while the node joins a fleet.
pub type CoreJoinPort = Port<JoinReply, JoinCommand>;
/// The executor's end while the node joins a fleet.
pub type ExecutorJoinPort = Port<JoinCommand, JoinReply>;

/// A bound end that sends one type of message and receives the other.
#[derive(Debug)]
pub struct Port<S, R> {
    /// Sends.
    pub sender: Sender<S>,
    /// Receives.
    pub receiver: Receiver<R>,
}

impl<S: Message, R: Message + Default> Port<S, R> {
    /// Binds an end to the runtime of the caller.
    pub fn bind(socket: Socket) -> io::Result<Self> {
        socket.0.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(socket.0)?.into_split();
        Ok(Self {
            sender: Sender { write, _message: PhantomData },
            receiver: Receiver { read, buffer: Vec::new(), _message: PhantomData },
        })
    }

    /// Both halves, for tasks of their own.
    pub fn split(self) -> (Sender<S>, Receiver<R>) {
        (self.sender, self.receiver)
    }
}

/// The sending half.
#[derive(Debug)]
pub struct Sender<S> {
    write: OwnedWriteHalf,
    _message: PhantomData<fn(S)>,
}

impl<S: Message> Sender<S> {
    /// Sends one message. Not to be dropped half-way: a cut frame ends the connection.
    pub async fn send(&mut self, message: &S) -> Result<(), SocketError> {
        let length = message.encoded_len();
        let size = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME_BYTES);
        let size = size.ok_or(SocketError::TooLarge(length))?;
        let mut frame = Vec::with_capacity(4 + length);
        frame.extend_from_slice(&size.to_be_bytes());
        // Encoding into a vector cannot run out of room.
        message.encode(&mut frame).map_err(|e| SocketError::Io(io::Error::other(e)))?;
        self.write.write_all(&frame).await.map_err(SocketError::Io)
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<R> {
    read: OwnedReadHalf,
    buffer: Vec<u8>,
    _message: PhantomData<fn() -> R>,
}

impl<R: Message + Default> Receiver<R> {
    /// The next message; none when the other side has left. Safe to be cancelled: a part read stays.
    pub async fn receive(&mut self) -> Result<Option<R>, SocketError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            self.buffer.reserve(READ_BYTES);
            let count = self.read.read_buf(&mut self.buffer).await.map_err(SocketError::Io)?;
            if count == 0 {
                let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
                return if self.buffer.is_empty() { Ok(None) } else { Err(SocketError::Io(cut)) };
            }
        }
    }

    fn take(&mut self) -> Result<Option<R>, SocketError> {
        let Some(header) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*header) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(SocketError::TooLarge(length));
        }
        let Some(payload) = self.buffer.get(4..4 + length) else { return Ok(None) };
        let message = R::decode(payload).map_err(SocketError::Malformed)?;
        self.buffer.drain(..4 + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use fleet_proto::pb::{Cancel, core_message};

    use super::*;

    fn cancel(reason: &str) -> CoreMessage {
        let cancel = Cancel { run: "r-0000000001".to_owned(), attempt: 1, reason: reason.to_owned() };
        CoreMessage { body: Some(core_message::Body::Cancel(cancel)) }
    }

    #[tokio::test]
    async fn messages_arrive_whole_and_in_order() {
        let (core, executor) = pair().unwrap();
        let mut core = CorePort::bind(core).unwrap();
        let mut executor = ExecutorPort::bind(executor).unwrap();
        let long = "x".repeat(200_000);
        let sending = async {
            for text in ["a", &long, "b"] {
                core.sender.send(&cancel(text)).await.unwrap();
            }
        };
        let receiving = async {
            for text in ["a", &long, "b"] {
                assert_eq!(executor.receiver.receive().await.unwrap(), Some(cancel(text)));
            }
        };
        tokio::join!(sending, receiving);
        drop(core);
        assert_eq!(executor.receiver.receive().await.unwrap(), None);
    }

    #[tokio::test]
    async fn frames_over_the_limit_and_cut_ones_are_errors() {
        for (bytes, large) in [(u32::MAX.to_be_bytes().to_vec(), true), (vec![0, 0, 0, 9, 1], false)] {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let mut port = ExecutorPort::bind(Socket::from(theirs)).unwrap();
            (&ours).write_all(&bytes).unwrap();
            drop(ours);
            let error = port.receiver.receive().await.unwrap_err();
            assert_eq!(matches!(error, SocketError::TooLarge(_)), large, "{error}");
        }
        let (core, _executor) = pair().unwrap();
        let mut core = CorePort::bind(core).unwrap();
        let refused = core.sender.send(&cancel(&"x".repeat(MAX_FRAME_BYTES))).await;
        assert!(matches!(refused, Err(SocketError::TooLarge(_))));
    }
}
