//! What is said during a run, by whom and when: nodes through their event logs, observers of
//! runtimes, clients, and the run itself.

use std::collections::BTreeMap;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use wavetank_model::NodeId;
use wavetank_port::WallTime;
use wavetank_trace::Payload;

/// One thing said.
#[derive(Clone, Debug)]
pub struct Draft {
    /// When, by the machine's wall clock.
    pub at: WallTime,
    /// By whom; `None` for the run itself.
    pub host: Option<NodeId>,
    /// What.
    pub said: Said,
}

/// What can be said.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are events; a box would be in everyone's way"
)]
pub enum Said {
    /// Something for the trace.
    Event(Payload),
    /// The node's process has ended without being told to: which of its lives, and why.
    Ended {
        /// Counted by whoever starts it.
        life: u64,
        /// How it ended, and the end of its log.
        why: String,
    },
}

/// Says things to a run.
#[derive(Clone, Debug)]
pub struct Log(UnboundedSender<Draft>);

impl Log {
    /// A log, and where it can be read.
    pub fn new() -> (Self, UnboundedReceiver<Draft>) {
        let (sender, receiver) = unbounded_channel();
        (Log(sender), receiver)
    }

    /// Says something.
    pub fn say(&self, at: WallTime, host: Option<NodeId>, said: Said) {
        // Once a run is over nobody listens.
        let _ = self.0.send(Draft { at, host, said });
    }
}

/// Events that wait for their place in the trace: who saw what happened first may say it last.
#[derive(Debug, Default)]
pub struct Shelf {
    waiting: BTreeMap<(WallTime, u64), (Option<NodeId>, Payload)>,
    taken: u64,
}

impl Shelf {
    /// Puts an event in its place.
    pub fn put(&mut self, at: WallTime, host: Option<NodeId>, payload: Payload) {
        self.taken += 1;
        self.waiting.insert((at, self.taken), (host, payload));
    }

    /// Takes what a host told that is as wanted, in its order, whenever it was said to have
    /// happened.
    pub fn pull(
        &mut self,
        host: Option<NodeId>,
        wanted: impl Fn(&Payload) -> bool,
    ) -> Vec<Payload> {
        let pulled = self
            .waiting
            .extract_if(.., |_, (by, payload)| *by == host && wanted(payload));
        pulled.map(|(_, (_, payload))| payload).collect()
    }

    /// Takes the first event, unless it happened after `until`.
    pub fn pop_until(&mut self, until: WallTime) -> Option<(WallTime, Option<NodeId>, Payload)> {
        let first = self.waiting.first_entry()?;
        if first.key().0 > until {
            return None;
        }
        let ((at, _), (host, payload)) = first.remove_entry();
        Some((at, host, payload))
    }
}

#[cfg(test)]
mod tests {
    use wavetank_trace::Phase;

    use super::*;

    #[test]
    fn what_happened_first_comes_first_and_equal_times_keep_their_order() {
        let mut shelf = Shelf::default();
        for (at, phase) in [(5, Phase::End), (2, Phase::Faults), (5, Phase::Settle)] {
            shelf.put(WallTime(at), None, Payload::Phase { phase });
        }
        let mut order = Vec::new();
        while let Some((at, _, Payload::Phase { phase })) = shelf.pop_until(WallTime(5)) {
            order.push((at.0, phase));
        }
        assert_eq!(
            order,
            [(2, Phase::Faults), (5, Phase::End), (5, Phase::Settle)]
        );
        shelf.put(WallTime(9), None, Payload::Phase { phase: Phase::End });
        assert!(shelf.pop_until(WallTime(8)).is_none());
    }
}
