//! What stands in for a node's packet filter: a relay on loopback between one node and the controller, which refuses new
//! connections while a file of the node's root says so and lets established ones go on, as `ct state established accept`
//! does. A development node has no network of its own in which nft could do it.
//!
//! Called by the story of `fleetctl dev` and by tests.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// See the module. Dropping it refuses everybody.
#[derive(Debug)]
pub struct PacketFilter {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl PacketFilter {
    /// Relays to `to`, unless `drops` says of the text of `file` that it drops what is new. A file that is not there drops
    /// nothing.
    pub async fn before(to: SocketAddr, file: &Path, drops: fn(&str) -> bool) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let file: PathBuf = file.to_owned();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if !std::fs::read_to_string(&file).is_ok_and(|rules| drops(&rules)) {
                    tokio::spawn(relay(stream, to));
                }
            }
        });
        Ok(Self { address, accepting })
    }

    /// Where the node dials.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for PacketFilter {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn relay(mut from: TcpStream, to: SocketAddr) {
    if let Ok(mut to) = TcpStream::connect(to).await {
        // Either side may go at any time.
        let _ = copy_bidirectional(&mut from, &mut to).await;
    }
}
