//! What was said is put in order and recorded; in the end it is judged.

use std::collections::BTreeSet;

use wavetank_engine::RunResult;
use wavetank_model::NodeId;
use wavetank_port::WallTime;
use wavetank_trace::{EventId, Payload, Phase};

use crate::evidence::Evidence;
use crate::scene::SceneError;
use crate::stage::{Stage, TELLING};

/// While daemons are down nobody can ask what becomes of containers, so that it is told late.
#[derive(Debug, Default)]
pub(crate) struct Blindness {
    /// The faults that keep daemons down.
    by: BTreeSet<u32>,
    /// Until when everything had been told when it began.
    since: Option<WallTime>,
    /// When it was over.
    over: Option<WallTime>,
}

impl Blindness {
    /// A fault takes daemons down; all that happened until `told` has been told.
    pub fn begins(&mut self, fault: u32, told: WallTime) {
        self.by.insert(fault);
        self.since.get_or_insert(told);
    }

    /// They are back.
    pub fn ends(&mut self, fault: u32, now: WallTime) {
        self.by.remove(&fault);
        self.over = Some(now);
    }

    /// Until when everything has been told, where that would be `told` if all could be seen.
    pub fn limit(&mut self, told: WallTime) -> WallTime {
        let Some(since) = self.since else {
            return told;
        };
        if self.by.is_empty() && self.over.is_some_and(|over| over <= told) {
            *self = Blindness::default();
            return told;
        }
        since.min(told)
    }
}

impl Stage<'_> {
    /// Records what happened until then.
    pub(crate) fn file(&mut self, until: WallTime) {
        while let Some((at, host, payload)) = self.shelf.pop_until(until) {
            if let Some(evidence) = Evidence::of(&payload) {
                for truth in self.shelf.pull(host, |payload| evidence.proves(payload)) {
                    self.record(at, host, truth);
                }
            }
            self.record(at, host, payload);
        }
    }

    fn record(&mut self, at: WallTime, host: Option<NodeId>, payload: Payload) {
        let cause = match &payload {
            Payload::ClientReturned { request, .. } => self.asked.remove(request),
            _ => None,
        };
        self.last = self.last.max(self.scene.pace.at(at)).min(self.end());
        let cause = cause.unwrap_or(EventId(0));
        let event = self.recorder.record(self.last, host, cause, payload);
        if let Payload::ClientInvoked { request, .. } = &event.payload {
            self.asked.insert(*request, event.id);
        }
    }

    /// The end of the run: everything that was said until then, and the verdict.
    pub(crate) async fn finish(mut self) -> Result<RunResult, SceneError> {
        let over = self.wall();
        let told = tokio::time::Instant::now() + TELLING;
        while let Ok(Some(draft)) = tokio::time::timeout_at(told, self.drafts.recv()).await {
            self.hear(draft);
        }
        self.scene.fall_silent();
        self.file(over);
        self.last = self.end();
        let phase = Phase::End;
        let end = Payload::Phase { phase };
        self.recorder.record(self.last, None, EventId(0), end);
        let virtual_time = self.last.as_duration();
        let (digest, judgement) = self.recorder.finish();
        self.scene.close().await?;
        Ok(RunResult {
            digest,
            events: self.events,
            virtual_time,
            judgement,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_filed_that_a_daemon_may_still_have_to_tell() {
        let mut blindness = Blindness::default();
        let limit = |blindness: &mut Blindness, told| blindness.limit(WallTime(told)).0;
        assert_eq!(limit(&mut blindness, 10), 10);
        blindness.begins(1, WallTime(12));
        blindness.begins(2, WallTime(15));
        assert_eq!(limit(&mut blindness, 11), 11);
        assert_eq!(limit(&mut blindness, 20), 12);
        blindness.ends(1, WallTime(21));
        assert_eq!(limit(&mut blindness, 30), 12, "another one is down");
        blindness.ends(2, WallTime(31));
        assert_eq!(limit(&mut blindness, 30), 12, "it has just come back");
        assert_eq!(limit(&mut blindness, 31), 31);
        assert_eq!(limit(&mut blindness, 32), 32);
    }
}
