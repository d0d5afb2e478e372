//! Calls with bytes that no honest client would send: any path, any body, any metadata.
//!
//! For stories of bad input. The codec passes bytes through as they are.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use fleet_certs::ClientConfig;
use prost::bytes::{Buf, BufMut as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::channel::connector;

/// Passes bytes through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bytes;

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.len());
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length).to_vec()))
    }
}

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

/// Calls `path` (`/package.Service/Method`) with one message of these bytes.
pub async fn unary(channel: &Channel, path: &str, body: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = path.parse().map_err(|_| Status::invalid_argument("no path"))?;
    client.unary(Request::new(body), path, Bytes).await.map(tonic::Response::into_inner)
}

/// Opens a stream on `path` with messages of these bytes; the first answer, or why there is none.
pub async fn streaming(
    channel: &Channel,
    path: &str,
    bodies: Vec<Vec<u8>>,
) -> Result<Option<Vec<u8>>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = path.parse().map_err(|_| Status::invalid_argument("no path"))?;
    let request = Request::new(tokio_stream::iter(bodies));
    client.streaming(request, path, Bytes).await?.into_inner().message().await
}

/// Opens a call on `path` whose first message never comes; returns when the controller ends it.
pub async fn endless(channel: &Channel, path: &str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = path.parse().map_err(|_| Status::invalid_argument("no path"))?;
    let request = Request::new(tokio_stream::pending::<Vec<u8>>());
    client.streaming(request, path, Bytes).await?.into_inner().message().await.map(|_| ())
}

/// Makes a good TLS connection and says nothing.
pub async fn silent(
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    let uri: http::Uri = format!("http://{address}").parse()?;
    Ok(connector(tls).dial(&uri).await?)
}

/// Makes a good TLS connection and sends garbage instead of HTTP/2; returns when the other side closed it.
pub async fn garbage(address: SocketAddr, tls: &Arc<ClientConfig>, bytes: &[u8]) -> Result<()> {
    let uri: http::Uri = format!("http://{address}").parse()?;
    let mut stream = connector(tls).dial(&uri).await?;
    stream.write_all(bytes).await?;
    let mut sink = tokio::io::sink();
    // The close may come as a reset: both are an end.
    let _ = tokio::io::copy(&mut stream, &mut sink).await;
    Ok(())
}
