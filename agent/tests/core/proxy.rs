//! A TCP proxy that can fall silent without closing anything: a half-open link.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

pub struct Proxy {
    pub address: SocketAddr,
    silent: watch::Sender<usize>,
    _serving: AbortOnDropHandle<()>,
}

impl Proxy {
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Connections with a number below this carry no byte any more.
        let (silent, watched) = watch::channel(0);
        let serving = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut number = 0;
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(target).await.unwrap();
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                tokio::spawn(pump(near_read, far_write, number, watched.clone()));
                tokio::spawn(pump(far_read, near_write, number, watched.clone()));
                number += 1;
            }
        }));
        Self { address, silent, _serving: serving }
    }

    /// The first `connections` fall silent for good; later ones work.
    pub fn silence(&self, connections: usize) {
        self.silent.send_replace(connections);
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    number: usize,
    mut silent: watch::Receiver<usize>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    if to.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            },
            () = silenced(&mut silent, number) => {
                // Both sockets stay open and nothing moves.
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn silenced(silent: &mut watch::Receiver<usize>, number: usize) {
    if silent.wait_for(|below| number < *below).await.is_err() {
        std::future::pending::<()>().await;
    }
}
