//! Nodes of a cluster that exists for one test.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use wavetank_core::Message;
use wavetank_model::{Incarnation, Instant, NodeId};
use wavetank_node::identity::{Ca, Identity, LIFETIME, PrivateKey};
use wavetank_node::transport::{AddressBook, Arrival, Limits, Transport, TransportConfig};
use wavetank_node::{Os, Platform, Task};
use wavetank_port::WallTime;

/// The real machine with a wall clock that can be set.
#[derive(Clone)]
pub struct Machine {
    os: Os,
    ahead_seconds: Arc<AtomicI64>,
    panicked: Arc<AtomicBool>,
    clock_readings: Arc<AtomicU64>,
}

impl Machine {
    pub fn new() -> Self {
        Machine {
            os: Os::new(),
            ahead_seconds: Arc::default(),
            panicked: Arc::default(),
            clock_readings: Arc::default(),
        }
    }

    /// How often anybody asked what time it is, which whoever waits does.
    pub fn clock_readings(&self) -> u64 {
        self.clock_readings.load(Ordering::Relaxed)
    }

    /// A panic in a task would otherwise end that task alone, unseen.
    pub fn assert_no_panics(&self) {
        assert!(!self.panicked.load(Ordering::Relaxed), "a task panicked");
    }

    pub fn set_clock_ahead(&self, by: Duration) {
        let seconds = i64::try_from(by.as_secs()).expect("a reasonable time");
        self.ahead_seconds.store(seconds, Ordering::Relaxed);
    }
}

impl Platform for Machine {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn listen(&self, address: &str) -> io::Result<TcpListener> {
        self.os.listen(address).await
    }

    fn local_address(&self, listener: &TcpListener) -> io::Result<SocketAddr> {
        self.os.local_address(listener)
    }

    async fn accept(&self, listener: &mut TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        self.os.accept(listener).await
    }

    async fn connect(&self, address: &str) -> io::Result<TcpStream> {
        self.os.connect(address).await
    }

    fn now(&self) -> Instant {
        self.clock_readings.fetch_add(1, Ordering::Relaxed);
        self.os.now()
    }

    fn wall(&self) -> WallTime {
        let ahead = self.ahead_seconds.load(Ordering::Relaxed) * 1_000_000_000;
        WallTime(self.os.wall().0.saturating_add_signed(ahead))
    }

    async fn sleep_until(&self, at: Instant) {
        self.os.sleep_until(at).await;
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Task {
        let task = tokio::spawn(future);
        let abort = task.abort_handle();
        let panicked = self.panicked.clone();
        tokio::spawn(async move {
            if task.await.is_err_and(|error| error.is_panic()) {
                panicked.store(true, Ordering::Relaxed);
            }
        });
        Task::new(move || abort.abort())
    }

    fn entropy(&self, bytes: &mut [u8]) {
        self.os.entropy(bytes);
    }
}

/// A certificate authority and what it takes to make nodes.
pub struct Cluster {
    pub machine: Machine,
    pub ca: Ca,
}

impl Cluster {
    pub fn new() -> Self {
        let machine = Machine::new();
        let key = PrivateKey::generate(&machine);
        let ca = Ca::create(key, machine.wall()).expect("an authority");
        Cluster { machine, ca }
    }

    pub fn identity(&self, node: NodeId) -> Identity {
        let key = PrivateKey::generate(&self.machine);
        let now = self.machine.wall();
        self.ca.mint(node, key, now, LIFETIME).expect("an identity")
    }

    /// A node's configuration: managers listen on a free port.
    pub fn config(&self, node: NodeId, managers: &[(NodeId, SocketAddr)]) -> TransportConfig {
        TransportConfig {
            identity: Arc::new(self.identity(node)),
            incarnation: Incarnation(1),
            listen: (node.role == wavetank_model::NodeRole::Manager)
                .then(|| "127.0.0.1:0".to_owned()),
            advertise: None,
            addresses: managers
                .iter()
                .map(|(node, at)| (*node, at.to_string()))
                .collect::<AddressBook>(),
            limits: Limits::usual(),
            jitter: ChaCha8Rng::seed_from_u64(7),
        }
    }

    pub async fn start(&self, config: TransportConfig) -> Node {
        Cluster::start_on(&self.machine, config).await
    }

    /// On a machine of its own.
    pub async fn start_on(machine: &Machine, config: TransportConfig) -> Node {
        let node = config.identity.node();
        let started = Transport::start(machine.clone(), config).await;
        let (transport, arrivals) = started.expect("a transport");
        Node {
            node,
            transport,
            arrivals,
        }
    }
}

/// A running transport and what arrives at it.
pub struct Node {
    pub node: NodeId,
    pub transport: Transport,
    pub arrivals: mpsc::Receiver<Arrival>,
}

impl Node {
    pub fn at(&self) -> (NodeId, SocketAddr) {
        let at = self.transport.local_address().expect("it listens");
        (self.node, at)
    }

    pub fn send(&self, to: NodeId, number: u64) {
        self.transport.send(to, &numbered(number));
    }

    /// The next arrival. A test that waits for what never comes fails instead of hanging.
    pub async fn next(&mut self) -> Arrival {
        let arrival = tokio::time::timeout(Duration::from_secs(60), self.arrivals.recv()).await;
        arrival.expect("in time").expect("the transport lives")
    }

    /// The next message's number; whatever else arrives is passed over.
    pub async fn number(&mut self) -> u64 {
        loop {
            if let Arrival::Message { message, .. } = self.next().await {
                return number_of(&message);
            }
        }
    }
}

/// A message that can be told from others.
pub fn numbered(number: u64) -> Message {
    Message::Join {
        incarnation: Incarnation(number),
    }
}

pub fn number_of(message: &Message) -> u64 {
    match message {
        Message::Join { incarnation } => incarnation.0,
        other => panic!("nobody sent {other:?}"),
    }
}

/// Waits until something holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
