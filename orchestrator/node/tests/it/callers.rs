//! Callers of the API that mean no good, or are no longer there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wavetank_model::{
    DesiredState, Generation, NodeId, Operation, OperationError, Outcome, RolloutState,
    ServiceSpec, ServiceView, TaskId, TaskStatus, TaskView,
};
use wavetank_node::api::logs::{Answered, AskAgents};
use wavetank_node::api::manifest::ServiceManifest;
use wavetank_node::api::{ApiLimits, ApiServer, Submit};
use wavetank_node::driver::Gone;
use wavetank_node::identity::{Tls, WallClock, digest_of, joiner, name_of};
use wavetank_node::logs::{LogQuestion, Part, Written};
use wavetank_node::transport::StreamError;
use wavetank_port::OutputStream;

use crate::memory::Watch;
use crate::requests::{ask_many, router_with};
use crate::support::{Cluster, eventually};

const MANAGER: NodeId = NodeId::manager(1);
const MIB: usize = 1 << 20;
/// Everything that callers may take their time for, longer than those need who do not.
const LIMITS: ApiLimits = limits(Duration::from_secs(3));
/// The same, short enough to wait for.
const SHORT_LIMITS: ApiLimits = limits(Duration::from_millis(300));

const fn limits(timeout: Duration) -> ApiLimits {
    ApiLimits {
        connections_max: 32,
        handshake_timeout: timeout,
        stall_timeout: timeout,
        drain_timeout: Duration::from_millis(100),
    }
}

/// Managers that know one task, on agent-1.
struct OneTask;

#[async_trait]
impl Submit for OneTask {
    async fn submit(&self, _: Operation) -> Result<Result<Outcome, OperationError>, Gone> {
        let manifest: ServiceManifest =
            serde_json::from_str(r#"{"name": "web", "image": "web:1"}"#).expect("a manifest");
        let task = TaskView {
            task: TaskId(1),
            slot: 1,
            generation: Generation(1),
            node: Some(NodeId::agent(1)),
            desired: DesiredState::Running,
            status: TaskStatus {
                attempt: 1,
                ..TaskStatus::pending()
            },
        };
        let view = ServiceView {
            spec: ServiceSpec::try_from(manifest).expect("a service"),
            generation: Generation(1),
            rollout: RolloutState::Completed,
            stopped: false,
            deleting: false,
            tasks: vec![task],
        };
        let services = vec![view];
        Ok(Ok(Outcome::Services { services }))
    }
}

/// An agent whose task writes without end, and how many read it.
#[derive(Default)]
struct Endless(Arc<AtomicU64>);

struct Reading {
    begun: bool,
    readers: Arc<AtomicU64>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Answered for Reading {
    async fn next(&mut self) -> Result<Option<Part>, StreamError> {
        if !std::mem::replace(&mut self.begun, true) {
            return Ok(Some(Part::Open));
        }
        tokio::task::yield_now().await;
        Ok(Some(Part::Written(Written {
            stream: OutputStream::Stdout,
            at: None,
            bytes: vec![b'x'; 16 << 10].into(),
        })))
    }
}

impl AskAgents for Endless {
    fn ask(&self, _: NodeId, _: &LogQuestion) -> Result<Box<dyn Answered>, StreamError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Reading {
            begun: false,
            readers: Arc::clone(&self.0),
        }))
    }
}

/// A real API server on loopback.
struct Server {
    cluster: Cluster,
    at: SocketAddr,
    readers: Arc<AtomicU64>,
    _stop: oneshot::Sender<()>,
    _tls: watch::Sender<Arc<rustls::ServerConfig>>,
}

type Stream = TlsStream<TcpStream>;

impl Server {
    async fn start(limits: ApiLimits) -> Self {
        let cluster = Cluster::new();
        let clock = Arc::new(WallClock(cluster.machine.clone()));
        let tls = Tls::new(&cluster.identity(MANAGER), clock).expect("a configuration");
        let (tls_sender, tls) = watch::channel(tls.server);
        let agents = Endless::default();
        let readers = Arc::clone(&agents.0);
        let router = router_with(OneTask, Arc::new(agents));
        let bound = ApiServer::bind("127.0.0.1:0", tls, router, limits).await;
        let server = bound.expect("a port is free");
        let at = server.local_address().expect("it listens");
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(server.serve(async { drop(stopped.await) }));
        Server {
            cluster,
            at,
            readers,
            _stop: stop,
            _tls: tls_sender,
        }
    }

    /// A caller with a certificate.
    async fn caller(&self) -> Stream {
        let clock = Arc::new(WallClock(self.cluster.machine.clone()));
        let identity = self.cluster.identity(NodeId::client(7));
        let tls = Tls::new(&identity, clock).expect("a configuration");
        self.connect(tls.client).await
    }

    async fn connect(&self, tls: Arc<rustls::ClientConfig>) -> Stream {
        let stream = TcpStream::connect(self.at).await.expect("it listens");
        let name = ServerName::try_from(name_of(MANAGER)).expect("a name");
        let connected = TlsConnector::from(tls).connect(name, stream).await;
        connected.expect("TLS")
    }

    /// The status that a caller is answered when it says this; nothing if it is hung up on.
    async fn status(&self, say: &[u8]) -> Option<u16> {
        let mut stream = self.caller().await;
        // It may be hung up on before it has said everything.
        let _ = stream.write_all(say).await;
        let _ = stream.flush().await;
        status_of(&mut stream).await
    }

    /// Somebody who behaves is answered.
    async fn assert_well(&self) {
        let said = b"GET /v1/services HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n";
        assert_eq!(self.status(said).await, Some(200));
        self.cluster.machine.assert_no_panics();
    }
}

/// Reads to the end of the head, and says the status in it.
async fn status_of(stream: &mut Stream) -> Option<u16> {
    let mut head = Vec::new();
    let read = async {
        while head.len() < 64 << 10 && !head.windows(4).any(|it| it == b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(60), read).await;
    read.expect("it is answered or hung up on");
    let head = String::from_utf8_lossy(&head);
    head.split(' ').nth(1)?.parse().ok()
}

/// Waits until the other side has hung up.
async fn until_end(stream: &mut Stream) {
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    let end = tokio::time::timeout(Duration::from_secs(60), end).await;
    // With a farewell or without.
    let _ = end.expect("it is hung up on");
}

#[tokio::test]
async fn nonsense_is_no_request() {
    let server = Server::start(LIMITS).await;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..50 {
        let mut noise = vec![0; 2000];
        rng.fill_bytes(&mut noise);
        // Without TLS, and within it.
        let mut stream = TcpStream::connect(server.at).await.expect("it listens");
        let _ = stream.write_all(&noise).await;
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest);
        let end = tokio::time::timeout(Duration::from_secs(60), end).await;
        drop(end.expect("it is hung up on"));
        let status = server.status(&noise).await;
        assert!(matches!(status, Some(400) | None), "{status:?}");
    }
    for (line, status) in [
        ("GET", 400),
        ("GET /v1/services HTTP/9.9", 400),
        ("G(T /v1/services HTTP/1.1", 400),
        ("GET /v1/ser vices HTTP/1.1", 400),
        ("BREW /v1/services HTTP/1.1", 405),
        ("DELETE /v1/services HTTP/1.1", 405),
        ("GET /v1/../v1/services HTTP/1.1", 404),
        ("GET http://elsewhere/v1/services HTTP/1.1", 200),
    ] {
        let said = format!("{line}\r\nhost: api\r\n\r\n");
        assert_eq!(server.status(said.as_bytes()).await, Some(status), "{line}");
    }
    server.assert_well().await;
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_hung_up_on() {
    let server = Server::start(LIMITS).await;
    let clock = Arc::new(WallClock(server.cluster.machine.clone()));
    let authority = digest_of(server.cluster.ca.certificate());
    let stranger = joiner(authority, clock).expect("a configuration");
    let mut stream = server.connect(stranger).await;
    let _ = stream
        .write_all(b"GET /v1/services HTTP/1.1\r\nhost: api\r\n\r\n")
        .await;
    assert_eq!(status_of(&mut stream).await, None);
    server.assert_well().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_not_kept() {
    let server = Server::start(LIMITS).await;
    let watch = Watch::begin();
    let endless_head = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'x'; 8 * MIB]].concat();
    assert_eq!(server.status(&endless_head).await, Some(431));
    let many = "x: y\r\n".repeat(20_000);
    let many = format!("GET / HTTP/1.1\r\n{many}\r\n");
    assert_eq!(server.status(many.as_bytes()).await, Some(431));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    assert_eq!(server.status(long.as_bytes()).await, Some(414));
    let head = "PUT /v1/services/web HTTP/1.1\r\nhost: api\r\ncontent-type: application/json\r\n";
    let promised = format!("{head}content-length: 99999999999\r\n\r\n{{");
    assert_eq!(server.status(promised.as_bytes()).await, Some(413));
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let chunks = format!(
        "{head}transfer-encoding: chunked\r\n\r\n{}",
        chunk.repeat(64)
    );
    assert_eq!(server.status(chunks.as_bytes()).await, Some(413));
    let deep = "[".repeat(60_000);
    let deep = format!("{head}content-length: {}\r\n\r\n{deep}", deep.len());
    assert_eq!(server.status(deep.as_bytes()).await, Some(422));
    // What this test itself says is 8 MiB and, as TLS, as much again.
    assert!(watch.peak() < 28 * MIB, "{} bytes", watch.peak());
    server.assert_well().await;
}

#[tokio::test]
async fn callers_that_go_silent_give_their_places_back() {
    let server = Server::start(SHORT_LIMITS).await;
    // Silent from the beginning, after TLS, within a head, within a body: more than there are
    // places for.
    for round in 0..3 {
        let mut strangers = Vec::new();
        let mut callers = Vec::new();
        for _ in 0..8 {
            strangers.push(TcpStream::connect(server.at).await.expect("it listens"));
            for said in [
                "",
                "GET /v1/serv",
                "PUT /v1/services/web HTTP/1.1\r\nhost: a\r\n\
                content-type: application/json\r\ncontent-length: 100\r\n\r\n{",
            ] {
                let mut caller = server.caller().await;
                caller.write_all(said.as_bytes()).await.expect("it listens");
                caller.flush().await.expect("it listens");
                callers.push(caller);
            }
        }
        if round == 2 {
            server.assert_well().await;
        }
        for caller in &mut callers {
            until_end(caller).await;
        }
    }
    let half = "PUT /v1/services/web HTTP/1.1\r\nhost: api\r\ncontent-length: 100\r\n\r\n{";
    assert_eq!(server.status(half.as_bytes()).await, Some(408));
    server.assert_well().await;
}

#[tokio::test]
async fn a_reader_who_takes_nothing_is_given_up_and_costs_little() {
    let server = Server::start(SHORT_LIMITS).await;
    let watch = Watch::begin();
    let mut callers = Vec::new();
    for _ in 0..8 {
        let mut caller = server.caller().await;
        let said = b"GET /v1/tasks/task-1/logs?follow=true HTTP/1.1\r\nhost: api\r\n\r\n";
        caller.write_all(said).await.expect("it listens");
        assert_eq!(status_of(&mut caller).await, Some(200));
        callers.push(caller);
    }
    server.assert_well().await;
    eventually("their logs are read no longer", || {
        server.readers.load(Ordering::Relaxed) == 0
    })
    .await;
    assert!(watch.peak() < 16 * MIB, "{} bytes", watch.peak());
    // And whoever goes away is noticed at once.
    let mut caller = server.caller().await;
    let said = b"GET /v1/tasks/task-1/logs?follow=true HTTP/1.1\r\nhost: api\r\n\r\n";
    caller.write_all(said).await.expect("it listens");
    assert_eq!(status_of(&mut caller).await, Some(200));
    drop(caller);
    eventually("nobody reads", || {
        server.readers.load(Ordering::Relaxed) == 0
    })
    .await;
    server.assert_well().await;
}

/// A million of these: `examples/mutate.rs`.
#[tokio::test]
async fn requests_that_were_right_once_are_done_or_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let asked = ask_many(20_000, &mut rng).await;
    let [not_http, done, refused] = asked.unwrap_or_else(|why| panic!("{why}"));
    assert!(
        not_http > 500 && done > 500 && refused > 5000,
        "{not_http} {done} {refused}"
    );
}
