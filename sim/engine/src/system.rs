//! What is being tested: how managers, agents and clients are made.

use rand_chacha::ChaCha8Rng;
use wavetank_core::{
    Agent, AgentConfig, Client, ClientConfig, Manager, ManagerConfig, Process, Stored,
};
use wavetank_model::Instant;

/// Makes processes. Tests of the testbed put broken ones in.
pub trait System {
    /// A manager starts from what its disk holds; `Err` if the disk cannot be trusted.
    fn manager(
        &self,
        config: ManagerConfig,
        stored: Vec<Stored>,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Result<Box<dyn Process>, String> {
        Manager::start(config, stored, now, rng).map(|it| Box::new(it) as Box<dyn Process>)
    }

    /// An agent starts from what its disk holds; `Err` if the disk cannot be trusted.
    fn agent(
        &self,
        config: AgentConfig,
        stored: Vec<Stored>,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Result<Box<dyn Process>, String> {
        Agent::start(config, stored, now, rng).map(|it| Box::new(it) as Box<dyn Process>)
    }

    /// A client starts.
    fn client(&self, config: ClientConfig, now: Instant, rng: &mut ChaCha8Rng) -> Box<dyn Process> {
        Box::new(Client::start(config, now, rng))
    }
}

/// The orchestrator that ships.
pub struct Orchestrator;

impl System for Orchestrator {}
