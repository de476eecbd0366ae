//! Finds what a fault strikes: concrete nodes and containers for what a plan leaves symbolic.

use std::collections::BTreeSet;

use wavetank_model::{NodeId, NodeRole};
use wavetank_port::ContainerId;
use wavetank_scenario::plan::{Action, Shape, Target};

use crate::engine::Engine;

/// What a fault is about to strike.
pub(crate) struct Struck {
    pub(crate) places: Vec<u32>,
    pub(crate) containers: Vec<(u32, ContainerId)>,
    pub(crate) disturbs: Vec<NodeId>,
    pub(crate) detail: String,
}

impl Engine<'_> {
    /// Finds a fault's concrete target; `None` if there is none right now.
    pub(crate) fn aim(&self, fault: u32) -> Option<Struck> {
        let planned = &self.plan.faults[fault as usize];
        let mut struck = Struck {
            places: Vec::new(),
            containers: Vec::new(),
            disturbs: Vec::new(),
            detail: String::new(),
        };
        match &planned.target {
            Target::Tasks {
                service,
                take,
                draw,
            } => {
                struck.containers = self.choose_tasks(service.as_deref(), *take, *draw)?;
            }
            Target::Registry { .. } | Target::Cluster => {}
            target => struck.places = self.choose_hosts(fault, target)?,
        }
        let mut named: BTreeSet<NodeId> = struck
            .places
            .iter()
            .map(|place| self.hosts[*place as usize].id)
            .collect();
        if let Action::Partition { shape, .. } = &planned.action {
            named.extend(nodes_of(shape));
        }
        struck.detail = detail(&planned.action, &planned.target, &named, &struck.containers);
        if disturbs_nodes(&planned.action) {
            struck.disturbs = named.into_iter().collect();
        }
        Some(struck)
    }

    fn choose_hosts(&self, fault: u32, target: &Target) -> Option<Vec<u32>> {
        let places = match target {
            Target::Nodes(nodes) => nodes
                .iter()
                .filter_map(|node| self.place_of(*node))
                .collect(),
            Target::Leader => vec![self.leader?.1],
            Target::Followers { take, draw } => {
                let leader = self.leader.map(|(_, place)| place);
                let candidates: Vec<u32> = (0..self.managers)
                    .filter(|place| Some(*place) != leader)
                    .filter(|place| self.hosts[*place as usize].process.is_some())
                    .collect();
                rotate(candidates, *take, *draw)
            }
            Target::EventHost => {
                let (host, _) = self.faults.runs[fault as usize].trigger?;
                vec![self.place_of(host?)?]
            }
            Target::TaskNode { service, draw } => {
                let tasks = self.running_tasks(Some(service));
                let places: BTreeSet<u32> = tasks.into_iter().map(|(place, _)| place).collect();
                rotate(places.into_iter().collect(), 1, *draw)
            }
            Target::Tasks { .. } | Target::Registry { .. } | Target::Cluster => Vec::new(),
        };
        (!places.is_empty()).then_some(places)
    }

    fn choose_tasks(
        &self,
        service: Option<&str>,
        take: u32,
        draw: u64,
    ) -> Option<Vec<(u32, ContainerId)>> {
        let chosen = rotate(self.running_tasks(service), take, draw);
        (!chosen.is_empty()).then_some(chosen)
    }

    fn running_tasks(&self, service: Option<&str>) -> Vec<(u32, ContainerId)> {
        let mut tasks = Vec::new();
        for (host, place) in self.hosts.iter().zip(0..) {
            if let Some(runtime) = &host.runtime {
                tasks.extend(runtime.running_of(service).map(|id| (place, id.clone())));
            }
        }
        tasks
    }
}

/// Faults that take a node's health away. Others are what a correct system copes with while its
/// nodes stay healthy.
fn disturbs_nodes(action: &Action) -> bool {
    matches!(
        action,
        Action::ProcessExit
            | Action::ProcessKill
            | Action::PowerLoss { .. }
            | Action::Wipe
            | Action::Pause
            | Action::SlowCpu { .. }
            | Action::ClockDrift { .. }
            | Action::Membership { .. }
            | Action::Partition { .. }
            | Action::LinkDelay { .. }
            | Action::LinkLoss { .. }
            | Action::LinkReorder { .. }
            | Action::LinkCorrupt { .. }
            | Action::LinkBandwidth { .. }
            | Action::LinkHold
            | Action::DiskFull
            | Action::DiskError
            | Action::DiskSlow { .. }
            | Action::DiskLies
            | Action::BitRot { .. }
    )
}

fn nodes_of(shape: &Shape) -> Vec<NodeId> {
    match shape {
        Shape::Isolate | Shape::FromManagers => Vec::new(),
        Shape::Groups(groups) => groups.iter().flatten().copied().collect(),
        Shape::Bridge { left, right } => left.iter().chain(right).copied().collect(),
        Shape::Pairs(pairs) => pairs.iter().flat_map(|(from, to)| [*from, *to]).collect(),
    }
}

/// At most `take` of the candidates, from the drawn one on, in order.
fn rotate<T>(mut candidates: Vec<T>, take: u32, draw: u64) -> Vec<T> {
    let count = candidates.len() as u64;
    if let Some(offset) = draw.checked_rem(count) {
        candidates.rotate_left(usize::try_from(offset).unwrap_or(0));
    }
    candidates.truncate(take as usize);
    candidates
}

fn detail(
    action: &Action,
    target: &Target,
    nodes: &BTreeSet<NodeId>,
    containers: &[(u32, ContainerId)],
) -> String {
    let names = |names: Vec<String>| names.join(", ");
    let place = match target {
        Target::Registry { images } if images.is_empty() => "registry".to_owned(),
        Target::Registry { images } => format!("registry: {}", images.join(", ")),
        Target::Cluster => "cluster".to_owned(),
        _ if !containers.is_empty() => {
            names(containers.iter().map(|(_, id)| id.to_string()).collect())
        }
        _ if nodes.len() > 8 => format!("{} nodes", nodes.len()),
        _ => names(nodes.iter().map(NodeId::to_string).collect()),
    };
    let roles = nodes.iter().all(|node| node.role == NodeRole::Manager) && !nodes.is_empty();
    let group = if roles && matches!(target, Target::Leader) {
        " (leader)"
    } else {
        ""
    };
    format!("{} on {place}{group}", action.name())
}
