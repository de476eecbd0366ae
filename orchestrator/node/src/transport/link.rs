//! What a node knows of one peer: the messages that the peer has not acknowledged, the
//! connections to it, and how far its own messages have come.
//!
//! At any time one connection carries the messages: the newest. When it changes, everything that
//! is not acknowledged is sent again on the new one, from the oldest on; the receiver drops what
//! it has had. So nothing is lost, nothing arrives twice and the order holds, whatever becomes of
//! the connections, for as long as neither side starts anew.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use wavetank_model::{Incarnation, NodeId};

use super::limits::Limits;
use super::streams::Streams;
use crate::wire::{self, Frame, Received};

/// How much is written in one go.
pub(super) const BATCH_BYTES: usize = 64 << 10;

/// What a message costs besides its bytes.
const OVERHEAD_BYTES: usize = 64;

/// Numbers a node's connections in the order in which they began.
pub(super) type ConnectionId = u64;

/// Who made a connection. There is at most one of each kind with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Dialled,
    Accepted,
}

/// How a connection is told that there is something to do.
#[derive(Clone, Debug, Default)]
pub(super) struct Signals {
    /// There is something to send.
    pub(super) wake: Arc<Notify>,
    /// It is superseded and has to end.
    pub(super) close: Arc<Notify>,
}

/// One peer.
pub(super) struct Link {
    pub(super) peer: NodeId,
    /// Held while a message is passed on, so that two connections cannot pass on the same one.
    pub(super) delivering: tokio::sync::Mutex<()>,
    /// There is something to send and no connection.
    pub(super) wanted: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The peer's newest boot, and how far its messages have come.
    heard: Option<Received>,
    /// Not acknowledged, oldest first.
    queue: VecDeque<Queued>,
    /// What the queue holds.
    bytes: usize,
    /// The number of the newest message ever queued.
    last: u64,
    /// The last message that was written to the newest connection.
    written: u64,
    connections: BTreeMap<ConnectionId, Connection>,
}

/// A connection, as its peer's link knows it.
struct Connection {
    direction: Direction,
    signals: Signals,
    streams: Arc<Streams>,
}

struct Queued {
    sequence: u64,
    body: Bytes,
}

impl Queued {
    fn cost(&self) -> usize {
        self.body.len() + OVERHEAD_BYTES
    }
}

impl State {
    fn pop(&mut self) {
        if let Some(oldest) = self.queue.pop_front() {
            self.bytes -= oldest.cost();
        }
    }

    /// The connection that carries the messages.
    fn newest(&self) -> Option<ConnectionId> {
        self.connections.last_key_value().map(|(id, _)| *id)
    }

    /// Tells connections of some directions to end.
    fn close(&self, which: impl Fn(Direction) -> bool) {
        let connections = self.connections.values();
        for connection in connections.filter(|it| which(it.direction)) {
            connection.signals.close.notify_one();
        }
    }

    /// Wakes whoever can get the queue sent.
    fn wake(&self, wanted: &Notify) {
        match self.connections.last_key_value() {
            Some((_, connection)) => connection.signals.wake.notify_one(),
            None => wanted.notify_one(),
        }
    }
}

impl Link {
    pub(super) fn new(peer: NodeId) -> Self {
        Link {
            peer,
            delivering: tokio::sync::Mutex::default(),
            wanted: Notify::new(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message; answers how many older ones had to go for it.
    pub(super) fn push(&self, body: Bytes, limits: &Limits) -> usize {
        let mut state = self.state();
        state.last += 1;
        let queued = Queued {
            sequence: state.last,
            body,
        };
        state.bytes += queued.cost();
        state.queue.push_back(queued);
        let before = state.queue.len();
        while state.queue.len() > 1
            && (state.queue.len() > limits.queue_messages_max
                || state.bytes > limits.queue_bytes_max)
        {
            state.pop();
        }
        state.wake(&self.wanted);
        before - state.queue.len()
    }

    /// True if messages wait and nothing carries them.
    pub(super) fn needs_connection(&self) -> bool {
        let state = self.state();
        !state.queue.is_empty() && state.connections.is_empty()
    }

    pub(super) fn is_connected(&self) -> bool {
        !self.state().connections.is_empty()
    }

    /// A new connection takes over.
    pub(super) fn attach(self: &Arc<Self>, id: ConnectionId, direction: Direction) -> Attachment {
        let mut state = self.state();
        state.close(|of| of == direction);
        let signals = Signals::default();
        let streams = Arc::new(Streams::new(signals.wake.clone()));
        let connection = Connection {
            direction,
            signals: signals.clone(),
            streams: streams.clone(),
        };
        state.connections.insert(id, connection);
        state.written = 0;
        Attachment {
            link: self.clone(),
            id,
            signals,
            streams,
        }
    }

    /// The streams of the connection that carries the messages.
    pub(super) fn streams(&self) -> Option<Arc<Streams>> {
        let state = self.state();
        let newest = state.connections.last_key_value();
        newest.map(|(_, connection)| connection.streams.clone())
    }

    /// Appends the next messages that connection `id` has to carry; answers how many.
    fn take(&self, id: ConnectionId, out: &mut BytesMut) -> usize {
        let mut state = self.state();
        if state.newest() != Some(id) {
            return 0;
        }
        let written = state.written;
        let first = state.queue.partition_point(|m| m.sequence <= written);
        let mut taken = 0;
        let mut last = written;
        for queued in state.queue.range(first..) {
            if out.len() >= BATCH_BYTES {
                break;
            }
            let frame = Frame::Message {
                sequence: queued.sequence,
                body: queued.body.clone(),
            };
            wire::encode(&frame, out);
            last = queued.sequence;
            taken += 1;
        }
        state.written = last;
        taken
    }

    /// The peer has everything up to `through`.
    pub(super) fn acknowledge(&self, through: u64) {
        let mut state = self.state();
        while state.queue.front().is_some_and(|m| m.sequence <= through) {
            state.pop();
        }
    }

    /// The peer's newest boot, and how far its messages have come.
    pub(super) fn heard(&self) -> Option<Received> {
        self.state().heard
    }

    /// A boot's messages have arrived up to `through`.
    pub(super) fn hear(&self, received: Received) {
        self.state().heard = Some(received);
    }

    /// Tells connections to end that one from this boot takes the place of.
    pub(super) fn supersede(&self, incarnation: Incarnation, direction: Direction) {
        let state = self.state();
        let same_boot = state
            .heard
            .is_none_or(|heard| heard.incarnation == incarnation);
        state.close(|of| of == direction || !same_boot);
    }

    /// The peer is in a new boot. Nothing that was meant for its past is sent; answers how many
    /// messages that were.
    pub(super) fn start_anew(&self, incarnation: Incarnation) -> usize {
        let mut state = self.state();
        state.heard = Some(Received {
            incarnation,
            through: 0,
        });
        state.bytes = 0;
        let outlived = state.queue.len();
        state.queue.clear();
        outlived
    }
}

/// One connection's place among those of its peer, until it is dropped.
pub(super) struct Attachment {
    pub(super) link: Arc<Link>,
    id: ConnectionId,
    pub(super) signals: Signals,
    pub(super) streams: Arc<Streams>,
}

impl Attachment {
    /// Appends the next messages that this connection has to carry; answers how many.
    pub(super) fn take(&self, out: &mut BytesMut) -> usize {
        self.link.take(self.id, out)
    }
}

impl Drop for Attachment {
    /// Whatever connection is left takes over; streams end.
    fn drop(&mut self) {
        self.streams.close();
        let mut state = self.link.state();
        if state.newest() == Some(self.id) {
            state.written = 0;
        }
        state.connections.remove(&self.id);
        state.wake(&self.link.wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(messages: usize) -> Arc<Link> {
        let link = Arc::new(Link::new(NodeId::manager(1)));
        for _ in 0..messages {
            link.push(Bytes::from_static(b"message"), &Limits::usual());
        }
        link
    }

    fn taken(attachment: &Attachment) -> usize {
        attachment.take(&mut BytesMut::new())
    }

    #[test]
    fn the_newest_connection_carries_all_that_is_not_acknowledged() {
        let link = link(5);
        let first = link.attach(1, Direction::Dialled);
        assert_eq!(taken(&first), 5);
        assert_eq!(taken(&first), 0, "each once");
        link.acknowledge(2);
        let second = link.attach(2, Direction::Accepted);
        assert_eq!(taken(&first), 0, "it carries nothing more");
        assert_eq!(taken(&second), 3, "again, but for what has arrived");
        drop(first);
        assert_eq!(taken(&second), 0, "the end of an older one changes nothing");
        let third = link.attach(3, Direction::Dialled);
        assert_eq!(taken(&third), 3);
        drop(third);
        assert_eq!(taken(&second), 3, "what is left takes over");
        drop(second);
        assert!(link.needs_connection());
        link.acknowledge(5);
        assert!(!link.needs_connection());
    }

    #[test]
    fn one_message_may_be_larger_than_the_queue() {
        let mut limits = Limits::usual();
        limits.queue_bytes_max = 1000;
        let link = link(3);
        assert_eq!(link.push(Bytes::from(vec![0; 5000]), &limits), 3);
        assert_eq!(taken(&link.attach(1, Direction::Dialled)), 1);
        assert_eq!(link.push(Bytes::from_static(b"next"), &limits), 1);
    }
}
