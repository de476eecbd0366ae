//! What faults do to links, disks, the registry, runtimes and containers, for every world that has
//! such things: an action in, a rule or a deed out. Nothing here knows hosts or queues.

use std::collections::BTreeSet;

use wavetank_model::NodeId;
use wavetank_port::ContainerId;
use wavetank_scenario::plan::{Action, Direction, Shape, Target};
use wavetank_trace::{ExitCause, VirtualTime};
use wavetank_world::{
    DiskFault, LinkEffect, LinkRule, LocalClock, RegistryEffect, RegistryRule, Runtime,
    RuntimeEffect, RuntimeRule, Selection,
};

use crate::roster::Roster;

/// The link rule that an action stands for, if it is about links.
pub fn link_rule(fault: u32, action: &Action, places: &[u32], roster: Roster) -> Option<LinkRule> {
    let touching = || Selection::Touching(places.iter().copied().collect());
    let (selection, effect) = match action {
        Action::Partition { shape, direction } => (
            selection(shape, *direction, places, roster),
            LinkEffect::Cut,
        ),
        Action::LinkDelay { by } => (touching(), LinkEffect::Delay(*by)),
        Action::LinkLoss { percent } => (touching(), LinkEffect::Loss(*percent)),
        Action::LinkDuplicate { percent } => (touching(), LinkEffect::Duplicate(*percent)),
        Action::LinkReorder { percent, by } => (touching(), LinkEffect::Reorder(*percent, *by)),
        Action::LinkCorrupt { percent } => (touching(), LinkEffect::Corrupt(*percent)),
        Action::LinkBandwidth { bytes_per_second } => {
            (touching(), LinkEffect::Bandwidth(*bytes_per_second))
        }
        Action::LinkHold => (touching(), LinkEffect::Hold),
        _ => return None,
    };
    Some(LinkRule {
        fault,
        selection,
        effect,
    })
}

fn selection(shape: &Shape, direction: Direction, places: &[u32], roster: Roster) -> Selection {
    let (outward, inward) = match direction {
        Direction::Both => (true, true),
        Direction::From => (true, false),
        Direction::To => (false, true),
    };
    let set = |nodes: &[NodeId]| -> BTreeSet<u32> {
        nodes
            .iter()
            .filter_map(|node| roster.place_of(*node))
            .collect()
    };
    match shape {
        Shape::Isolate => Selection::Border(places.iter().copied().collect(), outward, inward),
        Shape::FromManagers => {
            let others = (0..roster.managers).filter(|place| !places.contains(place));
            let groups = vec![places.iter().copied().collect(), others.collect()];
            Selection::Groups(groups, outward, inward)
        }
        Shape::Groups(groups) => {
            Selection::Groups(groups.iter().map(|g| set(g)).collect(), outward, inward)
        }
        Shape::Bridge { left, right } => {
            Selection::Groups(vec![set(left), set(right)], outward, inward)
        }
        Shape::Pairs(pairs) => {
            let place = |pair: &(NodeId, NodeId)| {
                Some((roster.place_of(pair.0)?, roster.place_of(pair.1)?))
            };
            Selection::Pairs(pairs.iter().filter_map(place).collect())
        }
    }
}

/// What an action does to a disk, if it is about disks. Bit rot is a deed, not a state.
pub fn disk_fault(action: &Action) -> Option<DiskFault> {
    Some(match action {
        Action::DiskFull => DiskFault::Full,
        Action::DiskError => DiskFault::Error,
        Action::DiskSlow { by } => DiskFault::Slow(*by),
        Action::DiskLies => DiskFault::Lies,
        _ => return None,
    })
}

/// The registry rule that an action stands for, if it is about the registry.
pub fn registry_rule(fault: u32, action: &Action, target: &Target) -> Option<RegistryRule> {
    let (effect, count) = match action {
        Action::RegistryError { class, count } => (RegistryEffect::Error(*class), *count),
        Action::RegistrySlow { bytes_per_second } => {
            (RegistryEffect::Slow(*bytes_per_second), None)
        }
        Action::RegistryStall { after_bytes } => (RegistryEffect::Stall(*after_bytes), None),
        Action::RegistryTruncate { count } => (RegistryEffect::Truncate, *count),
        Action::RegistryWrongDigest { count } => (RegistryEffect::WrongDigest, *count),
        Action::RegistryMovedTag => (RegistryEffect::MovedTag, None),
        _ => return None,
    };
    let images = match target {
        Target::Registry { images } => images.clone(),
        _ => Vec::new(),
    };
    Some(RegistryRule {
        fault,
        images,
        effect,
        count,
    })
}

/// True for actions that strike running containers, one by one.
pub fn strikes_containers(action: &Action) -> bool {
    matches!(
        action,
        Action::TaskExit { .. } | Action::TaskOom | Action::TaskUnhealthy | Action::MonitorKill
    )
}

/// Does to one running container what such an action says.
pub fn strike_container(
    fault: u32,
    action: &Action,
    runtime: &mut Runtime,
    now: VirtualTime,
    clock: &LocalClock,
    id: &ContainerId,
) {
    match action {
        Action::TaskExit { code } => runtime.end_running(now, clock, id, *code, ExitCause::Fault),
        Action::TaskOom => runtime.end_running(now, clock, id, 137, ExitCause::OutOfMemory),
        Action::MonitorKill => runtime.forget_exit(now, clock, id, ExitCause::Fault),
        _ => runtime.set_unhealthy(id, fault, true),
    }
}

/// Does to one machine's runtime what an action says; true if that alone is a hit. Actions that
/// are not about runtimes do nothing.
pub fn strike_runtime(
    fault: u32,
    action: &Action,
    runtime: &mut Runtime,
    now: VirtualTime,
    clock: &LocalClock,
) -> bool {
    match action {
        Action::DaemonRestart { keeps_state } => {
            runtime.daemon_down(now, clock, fault, *keeps_state);
        }
        Action::Orphan => {
            let id = ContainerId(format!("wt-task-{}.1", 900_000 + fault));
            runtime.add_orphan(now, clock, &id);
            return true;
        }
        action => {
            if let Some((effect, count)) = runtime_rule(action) {
                runtime.add_rule(RuntimeRule {
                    fault,
                    effect,
                    count,
                });
            }
        }
    }
    false
}

/// The runtime rule that an action stands for.
fn runtime_rule(action: &Action) -> Option<(RuntimeEffect, Option<u32>)> {
    Some(match action {
        Action::DiskFull => (RuntimeEffect::NoSpace, None),
        Action::RuntimeError { call, class, count } => {
            (RuntimeEffect::Error(call.clone(), *class), *count)
        }
        Action::RuntimeDelay { call, by } => (RuntimeEffect::Delay(call.clone(), *by), None),
        Action::RuntimeHang { call } => (RuntimeEffect::Hang(call.clone()), None),
        Action::RuntimeLostReply { call, count } => {
            (RuntimeEffect::LostReply(call.clone()), Some(*count))
        }
        Action::RuntimeEventDrop { event, count } => {
            (RuntimeEffect::DropEvent(event.clone()), *count)
        }
        Action::RuntimeEventDuplicate { event, count } => {
            (RuntimeEffect::DuplicateEvent(event.clone()), *count)
        }
        Action::RuntimeEventDelay { event, by, count } => {
            (RuntimeEffect::DelayEvent(event.clone(), *by), *count)
        }
        Action::ExitBeforeStart { count, code } => {
            (RuntimeEffect::ExitBeforeStart(*code), Some(*count))
        }
        Action::ExitLate { by, count } => (RuntimeEffect::ExitLate(*by), Some(*count)),
        Action::ExitCodeWrong { count, code } => {
            (RuntimeEffect::ExitCodeWrong(*code), Some(*count))
        }
        Action::ExitCodeLost { count } => (RuntimeEffect::ExitCodeLost, Some(*count)),
        Action::ExitTimeMissing { count } => (RuntimeEffect::ExitTimeMissing, Some(*count)),
        Action::KillDeadErrors => (RuntimeEffect::KillDeadErrors, None),
        Action::EmptyListing { count } => (RuntimeEffect::EmptyListing, *count),
        _ => return None,
    })
}

/// Takes back from one machine's runtime what an action did, if it is one that was struck.
pub fn relieve_runtime(
    fault: u32,
    action: &Action,
    runtime: &mut Runtime,
    now: VirtualTime,
    is_struck: bool,
) {
    runtime.remove_rules(now, fault);
    if is_struck && matches!(action, Action::DaemonRestart { .. }) {
        runtime.daemon_up(now, fault);
    }
}
