//! The worlds `turmoil` and `madsim`: the node as it ships (driver, transport with TLS, journal on
//! redb) inside two independent simulators, over the same simulated container runtime, registry
//! and clocks as the event world, from the same plan, into the same trace, judged by the same
//! checkers.
//!
//! Map: `stage` (workload, faults, records; what no simulator knows), `process` (start and end),
//! `strike` (what faults do), `unable` (what they cannot do here), `simulator` (what the stage
//! asks of a simulator), `turmoil` and `madsim` (the simulators), `machine` (what outlives a
//! boot), `life` (one boot), `witness` (what the driver tells), `log` (what was said), `platter`
//! (a disk below redb), `links` (who reaches whom), `variant` (the shell that ships, or a broken
//! one).
//!
//! # Determinism
//! One thread runs everything. Time is the simulator's; the order of its hosts or tasks is drawn
//! from the seed; what waits for several things asks them in a fixed order; maps are ordered. Every
//! machine's entropy is a stream of its own. The one source of real entropy is ring, within TLS:
//! it decides the bytes of a handshake and of sealed records, never their number or length (keys
//! and signatures are of fixed sizes, certificates are made from the seed), and nothing that is
//! recorded or decided depends on bytes that the other side has not opened. A run that depends on
//! anything else is found by `--check-determinism`.

mod life;
mod links;
mod log;
mod machine;
#[cfg(madsim)]
mod madsim;
pub mod platter;
mod process;
mod simulator;
mod stage;
mod strike;
mod turmoil;
mod unable;
pub mod variant;
mod witness;

use std::io;

use wavetank_engine::roster::Roster;
use wavetank_engine::{RunOptions, RunResult};
use wavetank_model::NodeId;
use wavetank_node::identity::IdentityError;
use wavetank_scenario::plan::Plan;
use wavetank_trace::Event;

/// Why a plan could not be run.
pub type RunError = IdentityError;

/// Runs a plan in turmoil.
///
/// # Errors
/// If the machines' certificates cannot be made.
pub fn run_turmoil(
    plan: &Plan,
    options: &RunOptions,
    sink: &mut dyn FnMut(&Event),
) -> Result<RunResult, RunError> {
    turmoil::run(&variant::Shipped, plan, options, sink)
}

/// As [`run_turmoil`], with a shell that may be broken.
///
/// # Errors
/// If the machines' certificates cannot be made.
pub fn run_variant(
    variant: &impl variant::Variant,
    plan: &Plan,
    options: &RunOptions,
    sink: &mut dyn FnMut(&Event),
) -> Result<RunResult, RunError> {
    turmoil::run(variant, plan, options, sink)
}

/// Runs a plan in madsim.
///
/// # Errors
/// If the machines' certificates cannot be made.
#[cfg(madsim)]
pub fn run_madsim(
    plan: &Plan,
    options: &RunOptions,
    sink: &mut dyn FnMut(&Event),
) -> Result<RunResult, RunError> {
    madsim::run(plan, options, sink)
}

/// The port of `host:port`.
fn port_of(address: &str) -> io::Result<u16> {
    let port = address.rsplit(':').next().unwrap_or_default();
    port.parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("no port: {address}")))
}

/// The place of the host of `host:port`.
fn peer_of(address: &str, roster: Roster) -> io::Result<u32> {
    let host = address.split(':').next().unwrap_or_default();
    let node = host.parse::<NodeId>().ok();
    node.and_then(|node| roster.place_of(node))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no host {host}")))
}
