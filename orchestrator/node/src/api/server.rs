//! Connections to the API: mutual TLS, and bounds on what a caller can make a manager spend.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;

use super::Caller;
use crate::identity::node_of;
use crate::os::Os;
use crate::transport::meter::Metered;

/// Bounds on callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiLimits {
    /// Connections at once.
    pub connections_max: usize,
    /// From the first byte to the end of the TLS handshake, and for the head of each request.
    pub handshake_timeout: Duration,
    /// A caller that takes no bytes for this long (or twice that) is given up: nobody may be there
    /// any more. Longer than any answer takes to begin, and than one that goes on is silent.
    pub stall_timeout: Duration,
    /// How long requests under way may take once the manager is asked to end.
    pub drain_timeout: Duration,
}

/// The API's listener.
pub struct ApiServer {
    listener: TcpListener,
    /// The newest certificate of this manager.
    tls: watch::Receiver<Arc<ServerConfig>>,
    router: Router,
    limits: ApiLimits,
}

impl ApiServer {
    /// Listens on `host:port`.
    pub async fn bind(
        address: &str,
        tls: watch::Receiver<Arc<ServerConfig>>,
        router: Router,
        limits: ApiLimits,
    ) -> io::Result<Self> {
        Ok(ApiServer {
            listener: TcpListener::bind(address).await?,
            tls,
            router,
            limits,
        })
    }

    /// Where it listens.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers callers until `stop` comes back, then lets those under way end.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let free = Arc::new(Semaphore::new(self.limits.connections_max));
        let (closing, closed) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&self.listener, &free) => accepted,
            };
            let Some((stream, permit)) = accepted else {
                continue;
            };
            let connection = Connection {
                tls: TlsAcceptor::from(self.tls.borrow().clone()),
                router: self.router.clone(),
                limits: self.limits,
                closed: closed.clone(),
                _permit: permit,
            };
            connections.spawn(connection.run(stream));
        }
        // Nobody waits for this any more if nobody is connected.
        let _ = closing.send(true);
        let ended = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(self.limits.drain_timeout, ended).await;
    }
}

async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = free.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            tracing::warn!(%error, "the API cannot accept a connection");
            // Out of file descriptors, most likely: trying again at once would not help.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

struct Connection {
    tls: TlsAcceptor,
    router: Router,
    limits: ApiLimits,
    closed: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(mut self, stream: TcpStream) {
        // What is counted is what passes between nodes.
        let stream = Metered::new(stream, Arc::default());
        let written = stream.written.clone();
        let handshake = self.tls.accept(stream);
        let shaken = tokio::time::timeout(self.limits.handshake_timeout, handshake).await;
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "refused a caller of the API"),
            Err(_) => return tracing::debug!("a caller of the API took too long"),
        };
        let Some(caller) = caller_of(&stream) else {
            return tracing::debug!("refused a caller of the API without a certificate");
        };
        let router = self.router;
        let service = hyper::service::service_fn(move |mut request: http::Request<_>| {
            request.extensions_mut().insert(caller);
            router.clone().oneshot(request)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.handshake_timeout)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let closed = async { drop(self.closed.wait_for(|closed| *closed).await) };
        let os = Os::new();
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = written.stands_still(&os, self.limits.stall_timeout) => {
                return tracing::debug!("gave up a caller of the API who takes nothing");
            }
            () = closed => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the API broke");
        }
    }
}

/// Whom the caller's certificate names; nobody without one.
fn caller_of(stream: &TlsStream<Metered<TcpStream>>) -> Option<Caller> {
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates()?.first()?;
    node_of(certificate).ok().map(Caller)
}
