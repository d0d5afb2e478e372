//! A packet filter between a node and its controller, for stories without a network of their own: a relay on loopback
//! that refuses new connections while a file of the node's root says so, and lets established ones go on, as `ct state
//! established accept` does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
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
    /// Relays to `to` unless `file` begins with a 1.
    pub async fn before(to: SocketAddr, file: &Path) -> Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let file = file.to_owned();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if !drops(&file) {
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

fn drops(file: &PathBuf) -> bool {
    std::fs::read(file).is_ok_and(|text| text.starts_with(b"1"))
}

async fn relay(mut from: TcpStream, to: SocketAddr) {
    if let Ok(mut to) = TcpStream::connect(to).await {
        // Either side may go at any time.
        let _ = copy_bidirectional(&mut from, &mut to).await;
    }
}
