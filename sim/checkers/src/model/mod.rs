//! What several checkers need to know about a run so far, kept once for all of them.

use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, Payload, Phase, VirtualTime};

/// The run so far.
pub struct Model {
    /// When the settle phase began.
    pub settle_at: Option<VirtualTime>,
    /// When the run ended by itself.
    pub end_at: Option<VirtualTime>,
}

impl Model {
    /// Before the first event.
    pub fn new(_plan: &Plan) -> Self {
        Model { settle_at: None, end_at: None }
    }

    /// Takes in the next event.
    pub fn advance(&mut self, event: &Event) {
        match event.payload {
            Payload::Phase { phase: Phase::Settle } => self.settle_at = Some(event.at),
            Payload::Phase { phase: Phase::End } => self.end_at = Some(event.at),
            _ => {}
        }
    }
}
