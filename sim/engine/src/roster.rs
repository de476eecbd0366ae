//! Who takes part in a run, each by a dense place: managers first, then agents, then clients.

use wavetank_model::{NodeId, NodeRole};
use wavetank_scenario::plan::{Plan, Target};

/// How many of each there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roster {
    /// Managers that the plan starts with, and those that faults bring in later.
    pub managers: u32,
    /// Agents.
    pub agents: u32,
    /// The operator and the load clients.
    pub clients: u32,
}

impl Roster {
    /// Everyone that a plan names.
    pub fn of(plan: &Plan) -> Self {
        Roster {
            managers: manager_count(plan),
            agents: index(plan.cluster.agents.len()),
            clients: index(plan.cluster.clients.len()) + 1,
        }
    }

    /// Everyone, in the order of their places.
    pub fn nodes(self) -> impl Iterator<Item = NodeId> {
        (1..=self.managers)
            .map(NodeId::manager)
            .chain((1..=self.agents).map(NodeId::agent))
            .chain((1..=self.clients).map(NodeId::client))
    }

    /// All managers, those that join later included.
    pub fn managers(self) -> impl Iterator<Item = NodeId> {
        (1..=self.managers).map(NodeId::manager)
    }

    /// The place of a node, if it takes part.
    pub fn place_of(self, id: NodeId) -> Option<u32> {
        let (base, count) = match id.role {
            NodeRole::Manager => (0, self.managers),
            NodeRole::Agent => (self.managers, self.agents),
            NodeRole::Client => (self.managers + self.agents, self.clients),
        };
        (1..=count)
            .contains(&id.number)
            .then(|| base + id.number - 1)
    }

    /// Who has a place. Places beyond the last are clients that nobody started.
    pub fn id_of(self, place: u32) -> NodeId {
        let beyond_managers = place.checked_sub(self.managers);
        match beyond_managers {
            None => NodeId::manager(place + 1),
            Some(agent) if agent < self.agents => NodeId::agent(agent + 1),
            Some(other) => NodeId::client(other - self.agents + 1),
        }
    }
}

fn manager_count(plan: &Plan) -> u32 {
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

/// A dense place as networks and queues keep it.
pub(crate) fn index(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_nodes_are_each_others_inverse() {
        let roster = Roster {
            managers: 3,
            agents: 2,
            clients: 2,
        };
        for (place, id) in (0..).zip(roster.nodes()) {
            assert_eq!(roster.place_of(id), Some(place));
            assert_eq!(roster.id_of(place), id);
        }
        assert_eq!(roster.place_of(NodeId::manager(4)), None);
        assert_eq!(roster.place_of(NodeId::agent(0)), None);
    }
}
