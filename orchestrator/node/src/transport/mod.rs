//! Messages between nodes: authenticated, in order, and again until they are acknowledged.
//!
//! Between two boots that know each other, every message arrives once and in order, across any
//! number of connections, unless so many wait that the oldest have to go. When a peer starts
//! anew, whatever was meant for its past is dropped and [`Arrival::Lost`] says so. `Lost` also
//! tells that a peer's last connection broke, or that its machine refuses connections; silence
//! alone is no news here, the core's own timers judge it.
//!
//! Only managers are dialled, and only when there is something to say; whatever connection there
//! is carries both directions. Beside messages it carries streams: answers that are too large or
//! too long to be messages, such as logs.
//!
//! Map: `link` (one peer: queue and acknowledgement), `connection` (one connection), `streams`
//! (what is asked and answered on it, piece by piece), `dialer` and
//! `listener` (how it begins; also where nodes are let in, see `admission`), `address_book` and
//! `board` (how it is followed), `limits` (bounds, counters, complaints), `meter` (whether
//! anything moves).

mod address_book;
mod board;
mod connection;
mod dialer;
mod limits;
mod link;
mod listener;
pub(crate) mod meter;
mod streams;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rustls::time_provider::TimeProvider;
use tokio::sync::{Semaphore, mpsc};
use wavetank_core::Message;
use wavetank_model::{Incarnation, NodeId, NodeRole};

pub use address_book::AddressBook;
pub use board::Follower;
pub(crate) use dialer::ask;
pub use limits::{Counter, Counters, Limits};
pub use streams::{
    Answer, PIECE_BYTES_MAX, QUESTION_BYTES_MAX, STREAMS_MAX, StreamError, StreamReader,
    StreamWriter, Unwanted,
};

use crate::admission::Admission;
use crate::identity::{Identity, IdentityError, Tls, WallClock};
use crate::platform::{Platform, Task};
use crate::wire::{self, Hello, VERSION};
use board::Board;
use limits::Complaints;
use link::{ConnectionId, Link};

/// What came from the network.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are messages; a box would be in everyone's way"
)]
pub enum Arrival {
    /// A message.
    Message {
        /// Who sent it; its certificate says so.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// Something that is no message of this version.
    Undecodable {
        /// Who sent it.
        from: NodeId,
        /// The kind it claimed to be.
        kind: &'static str,
        /// What was wrong.
        error: String,
    },
    /// A peer's process is gone, or is another one than before.
    Lost {
        /// Which peer.
        peer: NodeId,
    },
}

/// What a node needs to talk to others.
pub struct TransportConfig {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Which of its boots. Larger than that of every boot before: peers refuse older ones.
    pub incarnation: Incarnation,
    /// Where to accept connections, as `host:port`; nobody can dial a node that does not.
    pub listen: Option<String>,
    /// Where others reach it, if that is not where it listens.
    pub advertise: Option<String>,
    /// Where managers are, as far as is known.
    pub addresses: AddressBook,
    /// What it may spend.
    pub limits: Limits,
    /// Where the random part of pauses comes from.
    pub jitter: ChaCha8Rng,
}

/// Why a node cannot talk to others.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Its identity does not serve.
    #[error("cannot use the node's identity")]
    Identity(#[source] IdentityError),
    /// It cannot listen.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where it should.
        address: String,
        /// Why not.
        source: io::Error,
    },
}

/// A node's connections. They end when the last clone of this is dropped.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
    listens: Option<SocketAddr>,
    _tasks: Arc<Vec<Task>>,
}

/// What all tasks of a transport share.
struct Shared {
    node: NodeId,
    incarnation: Incarnation,
    advertise: Option<String>,
    limits: Limits,
    jitter: ChaCha8Rng,
    clock: Arc<dyn TimeProvider>,
    tls: Mutex<Tls>,
    arrivals: mpsc::Sender<Arrival>,
    book: Board<AddressBook>,
    links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
    /// Links that want a dialer.
    dialled: mpsc::UnboundedSender<Arc<Link>>,
    admission: OnceLock<Admission>,
    answers: OnceLock<Arc<dyn Answer>>,
    /// Joins and renewals that may be worked on.
    admissions: Semaphore,
    counters: Arc<Counters>,
    complaints: Complaints,
    connections: AtomicU64,
}

/// What every task has at hand.
struct Context<P> {
    platform: P,
    shared: Arc<Shared>,
}

impl<P: Platform> Clone for Context<P> {
    fn clone(&self) -> Self {
        Context {
            platform: self.platform.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl Transport {
    /// Listens, if it should, and answers what arrives. Whoever drops the receiver stops
    /// receiving.
    pub async fn start<P: Platform>(
        platform: P,
        config: TransportConfig,
    ) -> Result<(Transport, mpsc::Receiver<Arrival>), TransportError> {
        let clock: Arc<dyn TimeProvider> = Arc::new(WallClock(platform.clone()));
        let tls = Tls::new(&config.identity, clock.clone()).map_err(TransportError::Identity)?;
        let (listener, listens) = match &config.listen {
            Some(address) => {
                let (listener, at) = listen(&platform, address).await?;
                (Some(listener), Some(at))
            }
            None => (None, None),
        };
        let advertise = advertised(config.advertise, listens);
        if advertise.is_none() && config.identity.node().role == NodeRole::Manager {
            tracing::warn!(
                "this manager listens everywhere, so that nobody is told where it is; \
                 tell them by --advertise HOST:PORT"
            );
        }
        let (arrivals, arrived) = mpsc::channel(config.limits.arrivals_max);
        let (dialled, to_dial) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            node: config.identity.node(),
            incarnation: config.incarnation,
            advertise,
            limits: config.limits,
            jitter: config.jitter,
            clock,
            tls: Mutex::new(tls),
            arrivals,
            book: Board::new(config.addresses),
            links: Mutex::default(),
            dialled,
            admission: OnceLock::new(),
            answers: OnceLock::new(),
            admissions: Semaphore::new(config.limits.admissions_max),
            counters: Arc::default(),
            complaints: Complaints::default(),
            connections: AtomicU64::new(0),
        });
        if let Some(at) = shared.advertise.clone() {
            shared.learn(|book| book.learn(shared.node, at, shared.incarnation));
        }
        let context = Context { platform, shared };
        let transport = Transport {
            shared: context.shared.clone(),
            listens,
            _tasks: Arc::new(context.tasks(listener, to_dial)),
        };
        Ok((transport, arrived))
    }

    /// Sends a message as soon as there is a way to, and until it is acknowledged. Never waits.
    pub fn send(&self, to: NodeId, message: &Message) {
        let shared = &self.shared;
        shared.counters.messages_submitted.add(1);
        let body = wire::encode_message(message);
        let frame_bytes_max = shared.limits.frame_bytes_max_of(shared.node.role);
        if to == shared.node || body.len() + FRAME_OVERHEAD_BYTES > frame_bytes_max {
            tracing::warn!(%to, bytes = body.len(), kind = message.kind(), "cannot be sent");
            return shared.counters.messages_overflowed.add(1);
        }
        let overflowed = shared.link(to).push(body, &shared.limits);
        shared.counters.messages_overflowed.add(overflowed);
    }

    /// Where it listens, if it does.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.listens
    }

    /// Where managers are, now and whenever that changes.
    pub fn addresses(&self) -> Follower<AddressBook> {
        self.shared.book.subscribe()
    }

    /// Peers with a connection.
    pub fn connected(&self) -> Vec<NodeId> {
        let links = self.shared.links.lock();
        let links = links.unwrap_or_else(PoisonError::into_inner);
        let connected = links.values().filter(|link| link.is_connected());
        connected.map(|link| link.peer).collect()
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Lets nodes in from now on, and renews certificates. Only the first call counts.
    pub fn admit(&self, admission: Admission) {
        // A second authority would be a second cluster.
        let _ = self.shared.admission.set(admission);
    }

    /// Answers what managers ask from now on. Only the first call counts.
    pub fn answer_with(&self, answers: Arc<dyn Answer>) {
        // A second one would answer half of them.
        let _ = self.shared.answers.set(answers);
    }

    /// Asks a peer over the connection that there is; none is made for it.
    pub fn ask(&self, peer: NodeId, question: Bytes) -> Result<StreamReader, StreamError> {
        let links = self.shared.links.lock();
        let links = links.unwrap_or_else(PoisonError::into_inner);
        let streams = links.get(&peer).and_then(|link| link.streams());
        let streams = streams.ok_or(StreamError::NotConnected)?;
        self.shared.counters.streams_asked.add(1);
        streams.ask(question)
    }

    /// Shows the next certificate from now on; connections that stand keep standing.
    pub fn renew(&self, identity: &Identity) -> Result<(), IdentityError> {
        let tls = Tls::new(identity, self.shared.clock.clone())?;
        *self
            .shared
            .tls
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = tls;
        Ok(())
    }
}

/// What a frame needs around its message, at most.
const FRAME_OVERHEAD_BYTES: usize = 64;

async fn listen<P: Platform>(
    platform: &P,
    address: &str,
) -> Result<(P::Listener, SocketAddr), TransportError> {
    let error = |source| TransportError::Listen {
        address: address.to_owned(),
        source,
    };
    let listener = platform.listen(address).await.map_err(error)?;
    let at = platform.local_address(&listener).map_err(error)?;
    Ok((listener, at))
}

/// What a node says of where it is: nothing rather than an address that leads nowhere.
fn advertised(configured: Option<String>, listens: Option<SocketAddr>) -> Option<String> {
    configured.or_else(|| {
        listens
            .filter(|at| !at.ip().is_unspecified())
            .map(|at| at.to_string())
    })
}

impl Shared {
    fn hello(&self, link: &Link) -> Hello {
        Hello {
            version: VERSION,
            node: self.node,
            incarnation: self.incarnation,
            advertise: self.advertise.clone(),
            received: link.heard(),
        }
    }

    fn tls(&self) -> Tls {
        self.tls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn learn(&self, change: impl FnOnce(&mut AddressBook) -> bool) {
        self.book.send_if_modified(change);
    }

    /// What is known of a peer; the first question makes it known.
    fn link(&self, peer: NodeId) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = links.entry(peer).or_insert_with(|| {
            let link = Arc::new(Link::new(peer));
            if peer.role == NodeRole::Manager {
                // Fails only when everything is about to end.
                let _ = self.dialled.send(link.clone());
            }
            link
        });
        link.clone()
    }
}

impl<P: Platform> Context<P> {
    /// The tasks that everything else runs within.
    fn tasks(
        &self,
        listener: Option<P::Listener>,
        mut to_dial: mpsc::UnboundedReceiver<Arc<Link>>,
    ) -> Vec<Task> {
        let context = self.clone();
        let dialers = self.platform.spawn(async move {
            let mut dialers = Vec::new();
            while let Some(link) = to_dial.recv().await {
                let dialer = dialer::run(context.clone(), link);
                dialers.push(context.platform.spawn(dialer));
            }
        });
        let listening =
            listener.map(|listener| self.platform.spawn(listener::run(self.clone(), listener)));
        [dialers].into_iter().chain(listening).collect()
    }

    fn next_id(&self) -> ConnectionId {
        self.shared.connections.fetch_add(1, Ordering::Relaxed)
    }

    fn complain(&self, who: &dyn Display, why: &dyn Display) {
        let now = self.platform.now();
        self.shared.complaints.say(now, who, why);
    }

    /// Tells that a peer is gone, unless another connection proves that it is not.
    async fn lost(&self, link: &Link) {
        if !link.is_connected() {
            let lost = Arrival::Lost { peer: link.peer };
            // Nobody listens any more: then there is nothing to tell.
            let _ = self.shared.arrivals.send(lost).await;
        }
    }
}
