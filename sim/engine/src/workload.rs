//! What operators and load clients do. The operator asks one thing after the other and waits for
//! each answer; load clients read and write keys of the store without pause.

use std::collections::VecDeque;

use wavetank_model::{NodeId, Operation};
use wavetank_scenario::plan::LoadClient;
use wavetank_trace::{EventId, VirtualTime};
use wavetank_world::Stream;

/// The operator's node.
pub const OPERATOR: NodeId = NodeId::client(1);

/// The operator: a queue of things to ask, one at a time.
#[derive(Default)]
pub struct Operator {
    backlog: VecDeque<(Operation, EventId)>,
    asking: bool,
}

impl Operator {
    /// Something more to ask, and what led to it.
    pub fn push(&mut self, operation: Operation, cause: EventId) {
        self.backlog.push_back((operation, cause));
    }

    /// The next thing to ask, if the last one was answered.
    pub fn take_next(&mut self) -> Option<(Operation, EventId)> {
        if self.asking {
            return None;
        }
        let next = self.backlog.pop_front();
        self.asking = next.is_some();
        next
    }

    /// The last thing was answered.
    pub fn answered(&mut self) {
        self.asking = false;
    }
}

/// One load client's random choices.
pub struct Load {
    /// What it is to do.
    pub config: LoadClient,
    stream: Stream,
    writes: u64,
    id: NodeId,
}

impl Load {
    /// A load client that has done nothing yet.
    pub fn new(id: NodeId, config: LoadClient, stream: Stream) -> Self {
        Load {
            config,
            stream,
            writes: 0,
            id,
        }
    }

    /// What it asks next; `None` once its time is over. Every value it writes is its own, so that
    /// a history shows whose write a read saw.
    pub fn next(&mut self, now: VirtualTime) -> Option<Operation> {
        if now.as_duration() >= self.config.until {
            return None;
        }
        let key = format!(
            "key-{}",
            self.stream.below(u64::from(self.config.keys.max(1)))
        );
        if self.stream.chance(self.config.reads_percent) {
            return Some(Operation::Get { key });
        }
        self.writes += 1;
        let value = format!("{}-{}", self.id, self.writes);
        Some(Operation::Put {
            key,
            value,
            claim: None,
        })
    }
}
