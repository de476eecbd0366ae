//! Builds the machines and clients of a plan.

use std::collections::{BTreeSet, VecDeque};

use wavetank_model::{Incarnation, NodeId, NodeRole};
use wavetank_scenario::plan::Plan;
use wavetank_trace::VirtualTime;
use wavetank_world::{Disk, LocalClock, Runtime, RuntimeConfig, Stream, random};

use crate::host::Host;
use crate::roster::Roster;
use crate::workload::Load;

/// All machines: managers, agents, clients.
pub(crate) fn build_hosts(plan: &Plan, roster: Roster) -> Vec<Host> {
    roster.nodes().map(|id| build_host(plan, id)).collect()
}

fn build_host(plan: &Plan, id: NodeId) -> Host {
    let name = id.to_string();
    let stream = |purpose| Stream::new(plan.seed, &name, purpose);
    let runtime = (id.role == NodeRole::Agent).then(|| {
        let config = RuntimeConfig {
            node: id,
            latency: plan.cluster.runtime_latency,
            event_delay: plan.cluster.event_delay,
            steps: plan.cluster.runtime_steps.clone(),
        };
        Runtime::new(config, stream("runtime"))
    });
    Host {
        id,
        clock: build_clock(plan.seed, id),
        disk: Disk::new(stream("disk"), plan.cluster.fsync),
        runtime,
        rng: random::generator(plan.seed, &name, "process"),
        process: None,
        boot: 0,
        incarnation: Incarnation(0),
        power: true,
        down_by: BTreeSet::new(),
        paused_by: BTreeSet::new(),
        paused_since: VirtualTime::ZERO,
        slowed_by: Vec::new(),
        seasoned: false,
        waiting: None,
        inbox: VecDeque::new(),
        timer: None,
        runtime_timer: None,
        spins: (VirtualTime::ZERO, 0),
    }
}

/// A machine's clocks: up to an hour of uptime, so that no two monotonic clocks agree.
pub fn build_clock(seed: u64, id: NodeId) -> LocalClock {
    let mut stream = Stream::new(seed, &id.to_string(), "clock");
    LocalClock::new(stream.below(3_600_000_000_000))
}

/// The load clients.
pub fn build_loads(plan: &Plan) -> Vec<Load> {
    let numbered = plan.cluster.clients.iter().zip(2..);
    numbered
        .map(|(config, number)| {
            let id = NodeId::client(number);
            Load::new(
                id,
                config.clone(),
                Stream::new(plan.seed, &id.to_string(), "load"),
            )
        })
        .collect()
}
