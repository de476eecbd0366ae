//! A peer that says whatever a test wants it to, over TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ciborium::Value;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wavetank_model::{Incarnation, NodeId};
use wavetank_node::identity::{Identity, Tls, WallClock, digest_of, joiner, name_of};
use wavetank_node::wire::{self, Frame, Hello};

use crate::support::{Cluster, Machine};

pub struct Raw {
    stream: TlsStream<TcpStream>,
}

impl Raw {
    /// Connects with a certificate to whoever is `manager`.
    pub async fn with(identity: &Identity, manager: (NodeId, SocketAddr)) -> io::Result<Self> {
        let clock = Arc::new(WallClock(Machine::new()));
        let tls = Tls::new(identity, clock).expect("a configuration");
        Raw::connect(tls.client, manager).await
    }

    /// Connects without one.
    pub async fn without(cluster: &Cluster, manager: (NodeId, SocketAddr)) -> io::Result<Self> {
        let clock = Arc::new(WallClock(cluster.machine.clone()));
        let authority = digest_of(cluster.ca.certificate());
        Raw::connect(joiner(authority, clock).expect("a configuration"), manager).await
    }

    async fn connect(tls: Arc<ClientConfig>, (node, at): (NodeId, SocketAddr)) -> io::Result<Self> {
        let stream = TcpStream::connect(at).await?;
        let name = ServerName::try_from(name_of(node)).expect("a name");
        let stream = TlsConnector::from(tls).connect(name, stream).await?;
        Ok(Raw { stream })
    }

    pub async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        wire::encode(frame, &mut bytes);
        self.send_bytes(&bytes).await
    }

    /// Sends any CBOR value as a frame.
    pub async fn send_value(&mut self, value: &Value) -> io::Result<()> {
        let mut body = Vec::new();
        ciborium::into_writer(value, &mut body).expect("CBOR");
        let length = u32::try_from(body.len()).expect("a short frame");
        let bytes = [length.to_be_bytes().as_slice(), &body].concat();
        self.send_bytes(&bytes).await
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Says hello and hears it.
    pub async fn greet(&mut self, node: NodeId, incarnation: u64) -> io::Result<Frame> {
        self.send(&Frame::Hello(hello(node, incarnation))).await?;
        self.receive().await
    }

    /// The next frame; fails when the connection ends.
    pub async fn receive(&mut self) -> io::Result<Frame> {
        let length = self.stream.read_u32().await?;
        let mut body = vec![0; usize::try_from(length).expect("a length")];
        self.stream.read_exact(&mut body).await?;
        let frame = wire::decode(&body).map_err(io::Error::other)?;
        Ok(frame.expect("a frame of this version"))
    }

    /// Waits until the other side ends the connection; answers what it said before, other than
    /// that it lives.
    pub async fn until_end(&mut self) -> Vec<Frame> {
        let mut said = Vec::new();
        let listen = async {
            while let Ok(frame) = self.receive().await {
                if !matches!(frame, Frame::Acknowledge { .. } | Frame::Addresses(_)) {
                    said.push(frame);
                }
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), listen).await;
        ended.expect("the connection is ended");
        said
    }
}

pub fn hello(node: NodeId, incarnation: u64) -> Hello {
    Hello {
        version: wire::VERSION,
        node,
        incarnation: Incarnation(incarnation),
        advertise: None,
        received: None,
    }
}
