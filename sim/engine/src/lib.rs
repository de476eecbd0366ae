//! The event world: a discrete-event engine that drives managers, agents and clients through one
//! seeded run. No ticking: time jumps from one event to the next, so idle time is free.
//!
//! Map: `queue` (what will happen, in order), `host` (one machine and its process), `engine` (the
//! loop), `build` (the machines of a plan), `process` (start, crash, end), `delivery` (effects
//! leave a host; messages travel), `containers` (runtimes are asked and answer), `clients`
//! (operator and load clients), `strike` (what each fault does and undoes), `system` (what is being
//! tested), `codec` (messages between two versions), `bench` (steady state for measurements).
//!
//! What other worlds do the same way is public: `roster` (who takes part), `boot` (what a process
//! is told when it starts), `workload` (what operators and load clients ask), `faults` (when faults
//! fire), `aim` (what they strike), `blows` (what they do to disks, links, runtimes), `leadership`
//! (who leads), `recorder` (trace, digest, judge).
//!
//! # Determinism
//! One thread, one queue ordered by time and then by insertion, ordered maps, streams of random
//! numbers per entity and purpose, and no other input than the plan. The same plan gives the same
//! digest on every machine.

pub mod aim;
pub mod bench;
pub mod blows;
pub mod boot;
pub mod build;
mod clients;
mod codec;
mod containers;
mod delivery;
mod engine;
pub mod faults;
mod host;
pub mod leadership;
mod process;
pub mod queue;
pub mod recorder;
pub mod roster;
mod strike;
pub mod system;
pub mod workload;

use std::time::Duration;

use wavetank_checkers::Judgement;
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, FORMAT_VERSION, Header};

pub use system::{Orchestrator, System};

/// Which events the sink gets. The digest and the verdict do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// None.
    Nothing,
    /// All that checkers read.
    Events,
    /// Also every message and every write.
    Full,
}

/// How to run a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// What the sink gets.
    pub keep: Keep,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// Rolling digest over everything that happened.
    pub digest: String,
    /// Events that the engine processed.
    pub events: u64,
    /// Virtual time that passed.
    pub virtual_time: Duration,
    /// The verdict, with its findings.
    pub judgement: Judgement,
}

/// Runs a plan with the orchestrator that ships.
pub fn run(plan: &Plan, options: &RunOptions, sink: &mut dyn FnMut(&Event)) -> RunResult {
    run_system(plan, &Orchestrator, options, sink)
}

/// Runs a plan with another system, for example one that was broken on purpose.
pub fn run_system(
    plan: &Plan,
    system: &dyn System,
    options: &RunOptions,
    sink: &mut dyn FnMut(&Event),
) -> RunResult {
    engine::Engine::new(plan, system, *options, sink).run()
}

/// The header that belongs to the stored trace of a run in a world.
pub fn header(plan: &Plan, world: &str) -> Result<Header, serde_json::Error> {
    Ok(Header {
        wavetank_trace: FORMAT_VERSION,
        world: world.to_owned(),
        seed: plan.seed,
        plan: serde_json::to_value(plan)?,
    })
}
