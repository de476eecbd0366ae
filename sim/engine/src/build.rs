//! Builds the machines of a plan.

use std::collections::{BTreeSet, VecDeque};

use wavetank_model::{Incarnation, NodeId, NodeRole};
use wavetank_scenario::plan::{Plan, Target};
use wavetank_trace::VirtualTime;
use wavetank_world::{Disk, LocalClock, Runtime, RuntimeConfig, Stream, random};

use crate::engine::index;
use crate::host::Host;
use crate::workload::Load;

/// Managers that the plan starts with, and those that faults bring in later.
pub(crate) fn manager_count(plan: &Plan) -> u32 {
    let named = plan.faults.iter().filter_map(|fault| match &fault.target {
        Target::Nodes(nodes) => nodes
            .iter()
            .filter(|node| node.role == NodeRole::Manager)
            .map(|node| node.number)
            .max(),
        _ => None,
    });
    named.max().unwrap_or(0).max(plan.cluster.managers)
}

/// All machines: managers, agents, clients.
pub(crate) fn build_hosts(plan: &Plan, managers: u32) -> Vec<Host> {
    let agents = index(plan.cluster.agents.len());
    let clients = index(plan.cluster.clients.len()) + 1;
    (1..=managers)
        .map(NodeId::manager)
        .chain((1..=agents).map(NodeId::agent))
        .chain((1..=clients).map(NodeId::client))
        .map(|id| build_host(plan, id))
        .collect()
}

fn build_host(plan: &Plan, id: NodeId) -> Host {
    let name = id.to_string();
    let stream = |purpose| Stream::new(plan.seed, &name, purpose);
    // Up to an hour of uptime, so that no two machines' monotonic clocks agree.
    let uptime = stream("clock").below(3_600_000_000_000);
    let runtime = (id.role == NodeRole::Agent).then(|| {
        let config = RuntimeConfig {
            node: id,
            latency: plan.cluster.runtime_latency,
            event_delay: plan.cluster.event_delay,
        };
        Runtime::new(config, stream("runtime"))
    });
    Host {
        id,
        clock: LocalClock::new(uptime),
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

/// The load clients.
pub(crate) fn build_loads(plan: &Plan) -> Vec<Load> {
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
