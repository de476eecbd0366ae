//! From a scenario and a seed to a plan: draws every random choice and lists every occurrence.
//! Cannot fail: whatever could has been found when the file was read.

use std::time::Duration;

use wavetank_model::NodeId;

use crate::draw::{Draws, Stream};
use crate::plan::{Action, Fault, Plan, Range, Shape, Target, Trigger};
use crate::resolve::fault::{
    ActionDefinition, FaultDefinition, ShapeDefinition, TriggerDefinition,
};
use crate::resolve::target::{Mode, TargetDefinition};
use crate::scenario::Definition;
use crate::swarm;

/// The plan for a seed.
pub(crate) fn plan(definition: &Definition, file: &str, seed: u64) -> Plan {
    let draws = Draws::new(seed);
    let mut faults = Expansion::new(definition, draws).faults();
    if let Some(swarm) = &definition.swarm {
        faults.extend(swarm::faults(swarm, definition, draws));
    }
    Plan {
        name: definition.name.clone(),
        file: file.to_owned(),
        seed,
        profile: definition.profile.clone(),
        horizon: definition.horizon,
        settle: definition.settle,
        cluster: definition.cluster.clone(),
        images: definition.images.clone(),
        workload: definition.workload.clone(),
        faults,
        expect: definition.expect.clone(),
        worlds: definition.worlds.clone(),
    }
}

struct Expansion<'d> {
    definition: &'d Definition,
    draws: Draws,
    /// Number of occurrences of each fault.
    counts: Vec<u32>,
    /// Number in the plan of each fault's first occurrence.
    firsts: Vec<u32>,
    /// Times of faults that have times.
    times: Vec<Vec<Duration>>,
}

impl<'d> Expansion<'d> {
    fn new(definition: &'d Definition, draws: Draws) -> Self {
        let times: Vec<Vec<Duration>> = definition
            .faults
            .iter()
            .map(|fault| times(fault, draws))
            .collect();
        let counts: Vec<u32> = (0..definition.faults.len())
            .map(|index| count(definition, &times, index))
            .collect();
        let firsts = counts
            .iter()
            .scan(0, |next, count| {
                let first = *next;
                *next += count;
                Some(first)
            })
            .collect();
        Expansion {
            definition,
            draws,
            counts,
            firsts,
            times,
        }
    }

    fn faults(&self) -> Vec<Fault> {
        let mut list = Vec::new();
        for (index, fault) in self.definition.faults.iter().enumerate() {
            for occurrence in 0..self.counts[index] {
                list.push(self.fault(index, fault, occurrence));
            }
        }
        list
    }

    fn fault(&self, index: usize, fault: &FaultDefinition, occurrence: u32) -> Fault {
        let name = match occurrence {
            0 => fault.name.clone(),
            more => format!("{}#{}", fault.name, more + 1),
        };
        let target = target(
            &fault.target,
            self.definition,
            &mut self.draws.stream(&name, "target"),
        );
        let mut shape = self.draws.stream(&name, "shape");
        let (action, target) = action(&fault.action, target, &mut shape);
        let duration = fault
            .duration
            .map(|range| self.draws.stream(&name, "for").duration(range));
        Fault {
            trigger: self.trigger(index, fault, occurrence),
            name,
            action,
            target,
            duration,
            heals: fault.heals,
            optional: fault.optional,
        }
    }

    fn trigger(&self, index: usize, fault: &FaultDefinition, number: u32) -> Trigger {
        match &fault.trigger {
            TriggerDefinition::At { .. } | TriggerDefinition::Every { .. } => {
                let at = self.times[index]
                    .get(number as usize)
                    .copied()
                    .unwrap_or_default();
                Trigger::At(at)
            }
            TriggerDefinition::After { fault, delay } => {
                let first = self.firsts.get(*fault).copied().unwrap_or_default();
                Trigger::AfterFault {
                    fault: first + number,
                    delay: *delay,
                }
            }
            TriggerDefinition::On {
                event,
                condition,
                occurrence,
                point,
                delay,
                ..
            } => Trigger::OnEvent {
                event: event.clone(),
                condition: condition.clone(),
                occurrence: occurrence.saturating_add(number),
                point: *point,
                delay: *delay,
            },
        }
    }
}

/// When a fault with times strikes. The plain name is the key of the first occurrence, so that a
/// change of `times` leaves the earlier ones as they were.
fn times(fault: &FaultDefinition, draws: Draws) -> Vec<Duration> {
    let draw = |purpose: &str, number: u32, max: Duration| {
        let purpose = format!("{purpose}-{number}");
        draws.stream(&fault.name, &purpose).duration(Range {
            min: Duration::ZERO,
            max,
        })
    };
    match fault.trigger {
        TriggerDefinition::At { at, jitter } => {
            let base = draws.stream(&fault.name, "at").duration(at);
            vec![base + draw("jitter", 0, jitter)]
        }
        TriggerDefinition::Every {
            first,
            every,
            jitter,
            until,
            times,
        } => {
            let first = draws.stream(&fault.name, "at").duration(first);
            (0..times)
                .map(|number| (number, first + every * number))
                .take_while(|(_, at)| *at < until)
                .map(|(number, at)| at + draw("jitter", number, jitter))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// How often a fault occurs: one that follows another does so each time.
fn count(definition: &Definition, times: &[Vec<Duration>], index: usize) -> u32 {
    let mut at = index;
    // Cycles are errors of the file; the bound only says so.
    for _ in 0..=definition.faults.len() {
        match definition.faults.get(at).map(|fault| &fault.trigger) {
            Some(TriggerDefinition::After { fault, .. }) => at = *fault,
            Some(TriggerDefinition::On { times, .. }) => return *times,
            Some(_) => return u32::try_from(times[at].len()).unwrap_or(u32::MAX),
            None => return 0,
        }
    }
    0
}

/// Draws where a fault strikes.
fn target(of: &TargetDefinition, definition: &Definition, stream: &mut Stream) -> Target {
    match of {
        TargetDefinition::Pool { nodes, mode } => Target::Nodes(some_of(nodes, *mode, stream)),
        TargetDefinition::Leader => Target::Leader,
        TargetDefinition::Followers { mode } => {
            let followers = definition.cluster.managers.saturating_sub(1);
            let take = match mode {
                // Minority and majority are of all managers, not of those that do not lead.
                Mode::Minority | Mode::Majority => mode
                    .most(definition.cluster.managers as usize)
                    .min(followers as usize),
                mode => how_many(*mode, followers as usize, stream),
            };
            Target::Followers {
                take: u32::try_from(take).unwrap_or(u32::MAX),
                draw: stream.any(),
            }
        }
        TargetDefinition::EventHost => Target::EventHost,
        TargetDefinition::TaskNode { service } => Target::TaskNode {
            service: service.clone(),
            draw: stream.any(),
        },
        TargetDefinition::Tasks { service, mode } => {
            let take = match mode {
                Mode::All => u32::MAX,
                mode => u32::try_from(how_many(*mode, 0, stream)).unwrap_or(u32::MAX),
            };
            Target::Tasks {
                service: service.clone(),
                take,
                draw: stream.any(),
            }
        }
        TargetDefinition::Registry { images } => Target::Registry {
            images: images.clone(),
        },
        TargetDefinition::Cluster => Target::Cluster,
    }
}

/// How many of `total`; only `random` is drawn.
fn how_many(mode: Mode, total: usize, stream: &mut Stream) -> usize {
    match mode {
        Mode::Random(most) => {
            usize::try_from(stream.between(1, u64::from(most.max(1)))).unwrap_or(1)
        }
        mode => mode.most(total),
    }
}

/// Some of the nodes, in node order.
pub(crate) fn some_of(nodes: &[NodeId], mode: Mode, stream: &mut Stream) -> Vec<NodeId> {
    let count = how_many(mode, nodes.len(), stream);
    let mut chosen = stream.choose(nodes, count);
    chosen.sort_unstable();
    chosen
}

/// Draws what a fault does; a partition's shape may narrow its target.
fn action(of: &ActionDefinition, target: Target, stream: &mut Stream) -> (Action, Target) {
    match of {
        ActionDefinition::Fixed(action) => ((**action).clone(), target),
        ActionDefinition::BitRot => (Action::BitRot { draw: stream.any() }, target),
        ActionDefinition::Partition { shape, direction } => {
            let (shape, target) = partition(shape, target, stream);
            (
                Action::Partition {
                    shape,
                    direction: *direction,
                },
                target,
            )
        }
    }
}

/// Draws the shape of a partition over the target's nodes.
pub(crate) fn partition(
    shape: &ShapeDefinition,
    target: Target,
    stream: &mut Stream,
) -> (Shape, Target) {
    let pool = match &target {
        Target::Nodes(nodes) => nodes.clone(),
        _ => Vec::new(),
    };
    let isolated = |mode: Mode, stream: &mut Stream| {
        (Shape::Isolate, Target::Nodes(some_of(&pool, mode, stream)))
    };
    let shape = match shape {
        ShapeDefinition::Isolate => Shape::Isolate,
        ShapeDefinition::FromManagers => Shape::FromManagers,
        ShapeDefinition::One => return isolated(Mode::One, stream),
        ShapeDefinition::Minority => return isolated(Mode::Minority, stream),
        ShapeDefinition::Majority => return isolated(Mode::Majority, stream),
        ShapeDefinition::Groups(groups) => Shape::Groups(groups.clone()),
        ShapeDefinition::Halves => Shape::Groups(halves(&pool)),
        ShapeDefinition::RandomHalves => Shape::Groups(halves(&stream.choose(&pool, pool.len()))),
        ShapeDefinition::Bridge => bridge(stream.choose(&pool, pool.len())),
        ShapeDefinition::MajoritiesRing => {
            Shape::Pairs(majorities_ring(&stream.choose(&pool, pool.len())))
        }
    };
    (shape, target)
}

fn halves(nodes: &[NodeId]) -> Vec<Vec<NodeId>> {
    let (left, right) = nodes.split_at(nodes.len() / 2);
    let mut halves = vec![left.to_vec(), right.to_vec()];
    halves.iter_mut().for_each(|half| half.sort_unstable());
    halves
}

/// The first drawn node stays between the halves of the others.
fn bridge(mut nodes: Vec<NodeId>) -> Shape {
    if !nodes.is_empty() {
        nodes.remove(0);
    }
    let mut halves = halves(&nodes).into_iter();
    Shape::Bridge {
        left: halves.next().unwrap_or_default(),
        right: halves.next().unwrap_or_default(),
    }
}

/// Every node hears a majority of which it is the middle, and no two the same. Shape and name are
/// Jepsen's. The pairs are `(from, to)`: what is not in `to`'s majority does not reach it.
fn majorities_ring(ring: &[NodeId]) -> Vec<(NodeId, NodeId)> {
    let total = ring.len();
    let majority = total / 2 + 1;
    let mut cut = Vec::new();
    for (index, to) in ring.iter().enumerate() {
        let first = index + total - (majority - 1) / 2;
        let heard: Vec<NodeId> = (first..first + majority)
            .map(|at| ring[at % total])
            .collect();
        cut.extend(
            ring.iter()
                .filter(|from| !heard.contains(from))
                .map(|from| (*from, *to)),
        );
    }
    cut.sort_unstable();
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_ring_each_hears_a_majority_and_no_two_the_same() {
        for total in 3..8u32 {
            let ring: Vec<NodeId> = (1..=total).map(NodeId::manager).collect();
            let cut = majorities_ring(&ring);
            let heard = |to: &NodeId| -> Vec<NodeId> {
                ring.iter()
                    .filter(|from| !cut.contains(&(**from, *to)))
                    .copied()
                    .collect()
            };
            let sets: std::collections::BTreeSet<Vec<NodeId>> = ring.iter().map(heard).collect();
            assert_eq!(sets.len(), total as usize);
            assert!(sets.iter().all(|set| set.len() == total as usize / 2 + 1));
            assert!(ring.iter().all(|node| heard(node).contains(node)));
        }
    }

    #[test]
    fn a_bridge_leaves_one_node_out_of_both_halves() {
        let nodes: Vec<NodeId> = (1..=5).map(NodeId::manager).collect();
        let Shape::Bridge { left, right } = bridge(nodes) else {
            unreachable!()
        };
        assert_eq!((left.len(), right.len()), (2, 2));
        assert!(left.iter().all(|node| !right.contains(node)));
    }
}
