//! What was said is put in order and recorded; in the end it is judged.

use wavetank_engine::RunResult;
use wavetank_model::NodeId;
use wavetank_port::WallTime;
use wavetank_trace::{EventId, Payload, Phase};

use crate::evidence::Evidence;
use crate::scene::SceneError;
use crate::stage::{Stage, TELLING};

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
