//! Everything that happens passes here once: it gets its number, enters the digest, is judged, and
//! goes to whoever keeps the trace.

use wavetank_checkers::Judge;
use wavetank_model::NodeId;
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Digest, Event, EventId, Payload, VirtualTime};

use crate::Keep;

/// Records a run.
pub struct Recorder<'a> {
    digest: Digest,
    judge: Judge,
    sink: &'a mut dyn FnMut(&Event),
    keep: Keep,
    last: u64,
    buffer: Vec<u8>,
}

impl<'a> Recorder<'a> {
    /// A recorder for a run of `plan`.
    pub fn new(plan: &Plan, keep: Keep, sink: &'a mut dyn FnMut(&Event)) -> Self {
        Recorder {
            digest: Digest::new(),
            judge: Judge::new(plan),
            sink,
            keep,
            last: 0,
            buffer: Vec::new(),
        }
    }

    /// Records an event that checkers read.
    pub fn record(
        &mut self,
        at: VirtualTime,
        host: Option<NodeId>,
        cause: EventId,
        payload: Payload,
    ) -> Event {
        self.last += 1;
        let cause = (cause.0 > 0).then_some(cause);
        let event = Event {
            id: EventId(self.last),
            at,
            host,
            cause,
            payload,
        };
        self.buffer.clear();
        // Serialising plain data into memory cannot fail; a shorter digest would show if it did.
        let written = serde_json::to_writer(&mut self.buffer, &event);
        debug_assert!(written.is_ok(), "an event is plain data");
        self.digest.bytes(&self.buffer);
        self.judge.observe(&event);
        if self.keep != Keep::Nothing {
            (self.sink)(&event);
        }
        event
    }

    /// Records an event that is kept only in full traces. It has a number and a place in the
    /// digest all the same, so that neither depends on what is kept.
    pub fn record_detail(
        &mut self,
        at: VirtualTime,
        host: NodeId,
        cause: EventId,
        numbers: [u64; 2],
        payload: impl FnOnce() -> Payload,
    ) -> EventId {
        self.last += 1;
        let place = u64::from(host.number) << 8 | host.role as u64;
        self.digest.numbers(&[at.0, place, numbers[0], numbers[1]]);
        if self.keep == Keep::Full {
            let cause = (cause.0 > 0).then_some(cause);
            let payload = payload();
            (self.sink)(&Event {
                id: EventId(self.last),
                at,
                host: Some(host),
                cause,
                payload,
            });
        }
        EventId(self.last)
    }

    /// The end: the digest and the verdict.
    pub fn finish(self) -> (String, wavetank_checkers::Judgement) {
        (self.digest.to_string(), self.judge.finish())
    }
}
