//! Managers. (contract stub)

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use wavetank_model::{Incarnation, Instant, NodeId, Timers};

use crate::process::{Context, Input, Process};
use crate::record::Stored;

/// How a manager without durable records starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// As one of the first members: all of them start with the same list.
    Bootstrap {
        /// The first members by their ids in the consensus group, 1 and up.
        members: BTreeMap<u64, NodeId>,
    },
    /// By asking one of these to let it in. Also after its disk was wiped.
    Join {
        /// Managers to ask.
        contacts: Vec<NodeId>,
    },
}

/// What a manager is told when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerConfig {
    /// Its identity.
    pub id: NodeId,
    /// Which boot this is.
    pub incarnation: Incarnation,
    /// What to do if its disk is empty.
    pub boot: Boot,
    /// Its timers.
    pub timers: Timers,
}

/// One manager.
pub struct Manager {}

impl Manager {
    /// Starts a manager from what its disk holds. `rng` is used only here.
    pub fn start(
        config: ManagerConfig,
        stored: Vec<Stored>,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, String> {
        let _ = (config, stored, now, rng);
        Err("not built yet".into())
    }
}

impl Process for Manager {
    fn handle(&mut self, _ctx: &mut Context<'_>, _input: Input) {}
    fn next_deadline(&self) -> Instant {
        Instant::NEVER
    }
}
