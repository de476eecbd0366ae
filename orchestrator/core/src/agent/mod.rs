//! Agents. (contract stub)

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use wavetank_model::{Incarnation, Instant, NodeId, Resources, Timers};

use crate::process::{Context, Input, Process};
use crate::record::Stored;

pub mod recovery;

/// What an agent is told when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Its identity.
    pub id: NodeId,
    /// Which boot this is.
    pub incarnation: Incarnation,
    /// Managers to try, in any order.
    pub managers: Vec<NodeId>,
    /// What it has to offer.
    pub resources: Resources,
    /// What it is like.
    pub labels: BTreeMap<String, String>,
    /// Its timers.
    pub timers: Timers,
}

/// One agent.
pub struct Agent {}

impl Agent {
    /// Starts an agent from what its disk holds. `rng` is used only here.
    pub fn start(
        config: AgentConfig,
        stored: Vec<Stored>,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, String> {
        let _ = (config, stored, now, rng);
        Err("not built yet".into())
    }
}

impl Process for Agent {
    fn handle(&mut self, _ctx: &mut Context<'_>, _input: Input) {}
    fn next_deadline(&self) -> Instant {
        Instant::NEVER
    }
}
