//! The world `live`: a plan on this machine. Each host is a network namespace with its own address
//! on a private bridge, in which a real `wavetank-node` runs beside a real container runtime;
//! faults are done to them for real; what happened is told by the nodes' event logs and by an
//! observer that asks the runtimes on its own; the trace is judged by the same checkers.
//!
//! Map: `room` (hosts, the network between them and daemons on them, and getting rid of it all),
//! `images` (what a plan's images are in real life), `truth` (what really became of containers),
//! `calls` (what goes wrong between a node and its runtime), `agent` (all three on one host),
//! `scene` (all that a run has: room, nodes, runtimes, registry, clients), `cluster` (the nodes'
//! folders), `client`, `gate` (the way to the registry), `teller` and `tail` (event logs), `pace`
//! and `translation` (the plan's words and the nodes'), `log` (what is said), `evidence` (what must
//! have happened by then), `stage` (one run), `filing` (what was said, in order, to the verdict),
//! `network`, `process`, `strike` and `parts` (what it does to hosts), `wall_clock` (nodes' own
//! clocks), `unable` (what cannot be done).
//!
//! # Determinism
//! There is none: this is the real machine. What a run does is the plan's; when it happens, and in
//! which order, is not.

mod agent;
pub mod calls;
mod client;
mod cluster;
mod evidence;
mod filing;
mod gate;
pub mod images;
mod log;
mod network;
mod pace;
mod parts;
mod process;
pub mod room;
mod scene;
mod stage;
mod strike;
mod tail;
mod teller;
mod translation;
pub mod truth;
mod unable;
mod wall_clock;

use wavetank_engine::{Keep, RunResult};
use wavetank_scenario::plan::Plan;
use wavetank_trace::Event;

pub use scene::{SceneConfig, SceneError};

/// Runs a plan. Everything that it takes from the machine is gone when this comes back, and when it
/// is dropped.
///
/// # Errors
/// If this machine cannot do it: there is no verdict then.
pub async fn run(
    plan: &Plan,
    config: &SceneConfig,
    keep: Keep,
    sink: &mut dyn FnMut(&Event),
) -> Result<RunResult, SceneError> {
    let (log, drafts) = log::Log::new();
    let scene = scene::Scene::set(plan, config, log).await?;
    stage::Stage::new(plan, keep, sink, scene, drafts)
        .run()
        .await
}
