//! What each process of a plan is told when it starts.

use wavetank_core::{AgentConfig, Boot, ClientConfig, ManagerConfig};
use wavetank_model::{Incarnation, NodeId};
use wavetank_scenario::plan::Plan;

use crate::roster::Roster;

/// A manager. The founders' first boot founds the group; whoever comes later, or has lost its
/// disk, joins.
pub fn manager(plan: &Plan, id: NodeId, incarnation: Incarnation, seasoned: bool) -> ManagerConfig {
    let initial = plan.cluster.managers;
    let boot = if !seasoned && id.number <= initial {
        let member = |n| (u64::from(n), NodeId::manager(n));
        Boot::Bootstrap {
            members: (1..=initial).map(member).collect(),
        }
    } else {
        let others = Roster::of(plan).managers().filter(|other| *other != id);
        Boot::Join {
            contacts: others.collect(),
        }
    };
    ManagerConfig {
        id,
        incarnation,
        boot,
        timers: plan.cluster.timers.clone(),
    }
}

/// An agent.
pub fn agent(plan: &Plan, id: NodeId, incarnation: Incarnation) -> AgentConfig {
    let agent = &plan.cluster.agents[id.number as usize - 1];
    AgentConfig {
        id,
        incarnation,
        managers: Roster::of(plan).managers().collect(),
        resources: agent.resources,
        labels: agent.labels.clone(),
        timers: plan.cluster.timers.clone(),
    }
}

/// A client.
pub fn client(plan: &Plan, id: NodeId, incarnation: Incarnation) -> ClientConfig {
    ClientConfig {
        id,
        incarnation,
        managers: Roster::of(plan).managers().collect(),
        timers: plan.cluster.timers.clone(),
    }
}
