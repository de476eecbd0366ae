//! Finds what a fault strikes: concrete nodes and containers for what a plan leaves symbolic.

use std::collections::BTreeSet;

use wavetank_model::{NodeId, NodeRole};
use wavetank_port::ContainerId;
use wavetank_scenario::plan::{Action, Fault, Shape, Target};

use crate::roster::Roster;

/// What a fault is about to strike.
pub struct Struck {
    /// Hosts, by their places.
    pub places: Vec<u32>,
    /// Containers, each with its host's place.
    pub containers: Vec<(u32, ContainerId)>,
    /// Nodes whose health nobody must count on meanwhile.
    pub disturbs: Vec<NodeId>,
    /// For a person.
    pub detail: String,
}

/// What a world lets those see who aim.
pub trait Sight {
    /// Who takes part.
    fn roster(&self) -> Roster;
    /// Who leads now.
    fn leader(&self) -> Option<u32>;
    /// Whether a process runs there now.
    fn is_up(&self, place: u32) -> bool;
    /// Containers whose process lives now, of one service or of any, by place and then by id.
    fn running_tasks(&self, service: Option<&str>) -> Vec<(u32, ContainerId)>;
}

/// Finds a fault's concrete target; `None` if there is none right now. `trigger` is the host of
/// the event that the fault waited for.
pub fn aim(fault: &Fault, trigger: Option<NodeId>, sight: &dyn Sight) -> Option<Struck> {
    let (mut places, mut containers) = (Vec::new(), Vec::new());
    match &fault.target {
        Target::Tasks {
            service,
            take,
            draw,
        } => containers = choose_tasks(sight, service.as_deref(), *take, *draw)?,
        Target::Registry { .. } | Target::Cluster => {}
        target => places = choose_hosts(sight, target, trigger)?,
    }
    let roster = sight.roster();
    let mut named: BTreeSet<NodeId> = places.iter().map(|place| roster.id_of(*place)).collect();
    if let Action::Partition { shape, .. } = &fault.action {
        named.extend(nodes_of(shape));
    }
    let detail = detail(&fault.action, &fault.target, &named, &containers);
    let disturbs = match disturbs_nodes(&fault.action) {
        true => named.into_iter().collect(),
        false => Vec::new(),
    };
    Some(Struck {
        places,
        containers,
        disturbs,
        detail,
    })
}

fn choose_hosts(sight: &dyn Sight, target: &Target, trigger: Option<NodeId>) -> Option<Vec<u32>> {
    let roster = sight.roster();
    let places = match target {
        Target::Nodes(nodes) => nodes
            .iter()
            .filter_map(|node| roster.place_of(*node))
            .collect(),
        Target::Leader => vec![sight.leader()?],
        Target::Followers { take, draw } => {
            let leader = sight.leader();
            let candidates: Vec<u32> = (0..roster.managers)
                .filter(|place| Some(*place) != leader && sight.is_up(*place))
                .collect();
            rotate(candidates, *take, *draw)
        }
        Target::EventHost => vec![roster.place_of(trigger?)?],
        Target::TaskNode { service, draw } => {
            let tasks = sight.running_tasks(Some(service));
            let places: BTreeSet<u32> = tasks.into_iter().map(|(place, _)| place).collect();
            rotate(places.into_iter().collect(), 1, *draw)
        }
        Target::Tasks { .. } | Target::Registry { .. } | Target::Cluster => Vec::new(),
    };
    (!places.is_empty()).then_some(places)
}

fn choose_tasks(
    sight: &dyn Sight,
    service: Option<&str>,
    take: u32,
    draw: u64,
) -> Option<Vec<(u32, ContainerId)>> {
    let chosen = rotate(sight.running_tasks(service), take, draw);
    (!chosen.is_empty()).then_some(chosen)
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
