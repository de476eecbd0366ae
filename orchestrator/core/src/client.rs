//! Clients: follow the leader, repeat until answered. (contract stub)

use rand_chacha::ChaCha8Rng;
use wavetank_model::{Incarnation, Instant, NodeId, Timers};

use crate::process::{Context, Input, Process};

/// What a client is told when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Its identity.
    pub id: NodeId,
    /// Which boot this is.
    pub incarnation: Incarnation,
    /// Managers to try.
    pub managers: Vec<NodeId>,
    /// Its timers (`request_retry`).
    pub timers: Timers,
}

/// One client: takes `Input::Submit`, answers with completions.
pub struct Client {}

impl Client {
    /// A client without requests.
    pub fn start(config: ClientConfig, now: Instant, rng: &mut ChaCha8Rng) -> Self {
        let _ = (config, now, rng);
        Client {}
    }
}

impl Process for Client {
    fn handle(&mut self, _ctx: &mut Context<'_>, _input: Input) {}
    fn next_deadline(&self) -> Instant {
        Instant::NEVER
    }
}
