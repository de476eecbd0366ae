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
use crate::wire::{self, Frame};

/// How much is written in one go.
const BATCH_BYTES: usize = 64 << 10;

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

/// How far a peer's messages have come. Held while one is passed on, so that two connections
/// cannot pass on the same one.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// The peer's newest boot.
    pub(super) incarnation: Option<Incarnation>,
    /// The last message of it.
    pub(super) through: u64,
}

/// One peer.
pub(super) struct Link {
    pub(super) peer: NodeId,
    pub(super) inbound: tokio::sync::Mutex<Inbound>,
    /// There is something to send and no connection.
    pub(super) wanted: Notify,
    outbound: Mutex<Outbound>,
}

#[derive(Default)]
struct Outbound {
    /// Not acknowledged, oldest first.
    queue: VecDeque<Queued>,
    /// What the queue holds.
    bytes: usize,
    /// The number of the newest message ever queued.
    last: u64,
    /// The last message that was written to the newest connection.
    written: u64,
    /// The last of the peer's own messages that has arrived.
    received: u64,
    connections: BTreeMap<ConnectionId, (Direction, Signals)>,
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

impl Outbound {
    fn pop(&mut self) {
        if let Some(oldest) = self.queue.pop_front() {
            self.bytes -= oldest.cost();
        }
    }

    /// Wakes whoever can get the queue sent.
    fn wake(&self, wanted: &Notify) {
        match self.connections.last_key_value() {
            Some((_, (_, signals))) => signals.wake.notify_one(),
            None => wanted.notify_one(),
        }
    }
}

impl Link {
    pub(super) fn new(peer: NodeId) -> Self {
        Link {
            peer,
            inbound: tokio::sync::Mutex::default(),
            wanted: Notify::new(),
            outbound: Mutex::default(),
        }
    }

    fn outbound(&self) -> MutexGuard<'_, Outbound> {
        self.outbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message; answers how many older ones had to go for it.
    pub(super) fn push(&self, body: Bytes, limits: &Limits) -> usize {
        let mut outbound = self.outbound();
        outbound.last += 1;
        let queued = Queued {
            sequence: outbound.last,
            body,
        };
        outbound.bytes += queued.cost();
        outbound.queue.push_back(queued);
        let before = outbound.queue.len();
        while outbound.queue.len() > 1
            && (outbound.queue.len() > limits.queue_messages_max
                || outbound.bytes > limits.queue_bytes_max)
        {
            outbound.pop();
        }
        outbound.wake(&self.wanted);
        before - outbound.queue.len()
    }

    /// True if messages wait and nothing carries them.
    pub(super) fn needs_connection(&self) -> bool {
        let outbound = self.outbound();
        !outbound.queue.is_empty() && outbound.connections.is_empty()
    }

    pub(super) fn is_connected(&self) -> bool {
        !self.outbound().connections.is_empty()
    }

    /// A new connection takes over; one of the same direction is superseded.
    pub(super) fn attach(self: &Arc<Self>, id: ConnectionId, direction: Direction) -> Attachment {
        let mut outbound = self.outbound();
        for (of, signals) in outbound.connections.values() {
            if *of == direction {
                signals.close.notify_one();
            }
        }
        let signals = Signals::default();
        outbound
            .connections
            .insert(id, (direction, signals.clone()));
        outbound.written = 0;
        Attachment {
            link: self.clone(),
            id,
            signals,
        }
    }

    /// Appends the next messages that connection `id` has to carry; answers how many.
    fn take(&self, id: ConnectionId, out: &mut BytesMut) -> usize {
        let mut outbound = self.outbound();
        let newest = outbound.connections.last_key_value().map(|(id, _)| *id);
        if newest != Some(id) {
            return 0;
        }
        let written = outbound.written;
        let first = outbound.queue.partition_point(|m| m.sequence <= written);
        let mut taken = 0;
        let mut last = written;
        for queued in outbound.queue.range(first..) {
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
        outbound.written = last;
        taken
    }

    /// The peer has everything up to `through`.
    pub(super) fn acknowledge(&self, through: u64) {
        let mut outbound = self.outbound();
        while outbound
            .queue
            .front()
            .is_some_and(|m| m.sequence <= through)
        {
            outbound.pop();
        }
    }

    /// The peer's messages have arrived up to `through`.
    pub(super) fn received(&self, through: u64) {
        self.outbound().received = through;
    }

    /// What there is to acknowledge.
    pub(super) fn received_through(&self) -> u64 {
        self.outbound().received
    }

    /// The peer has started anew: nothing that was meant for its past is sent. Answers how many
    /// messages that were.
    pub(super) fn start_anew(&self) -> usize {
        let mut outbound = self.outbound();
        for (_, signals) in outbound.connections.values() {
            signals.close.notify_one();
        }
        outbound.bytes = 0;
        let outlived = outbound.queue.len();
        outbound.queue.clear();
        outlived
    }
}

/// One connection's place among those of its peer, until it is dropped.
pub(super) struct Attachment {
    pub(super) link: Arc<Link>,
    id: ConnectionId,
    pub(super) signals: Signals,
}

impl Attachment {
    /// Appends the next messages that this connection has to carry; answers how many.
    pub(super) fn take(&self, out: &mut BytesMut) -> usize {
        self.link.take(self.id, out)
    }
}

impl Drop for Attachment {
    /// Whatever connection is left takes over.
    fn drop(&mut self) {
        let mut outbound = self.link.outbound();
        outbound.connections.remove(&self.id);
        outbound.written = 0;
        outbound.wake(&self.link.wanted);
    }
}
