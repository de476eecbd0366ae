//! `swarm`: faults drawn for each seed. First a random subset of the actions and a rate, as in
//! swarm testing: runs that leave some faults out reach states that runs with all of them never
//! do. Then single faults, each from streams of its own.

use std::time::Duration;

use wavetank_model::NodeId;
use wavetank_port::ErrorClass;

use crate::draw::{Draws, Stream};
use crate::expand::{partition, some_of};
use crate::faults::{CALLS, FaultInfo, RUNTIME_EVENTS};
use crate::plan::{Action, Direction, Fault, Range, Target, Trigger};
use crate::resolve::fault::ShapeDefinition;
use crate::resolve::swarm::SwarmDefinition;
use crate::resolve::target::Mode;
use crate::scenario::Definition;

/// The swarm's faults for a seed, in time order.
pub(crate) fn faults(swarm: &SwarmDefinition, definition: &Definition, draws: Draws) -> Vec<Fault> {
    let actions = subset(&swarm.actions, &mut draws.stream("swarm", "actions"));
    let total = number(
        swarm,
        definition.horizon,
        &mut draws.stream("swarm", "rate"),
    );
    let mut times: Vec<Duration> = (0..total)
        .map(|index| time(index, definition.horizon, draws))
        .collect();
    times.sort_unstable();
    times
        .into_iter()
        .enumerate()
        .filter_map(|(index, at)| fault(index + 1, at, &actions, swarm, definition, draws))
        .collect()
}

/// Each action with even chance, but at least one.
fn subset(actions: &[&'static FaultInfo], stream: &mut Stream) -> Vec<&'static FaultInfo> {
    let certain = stream.pick(actions);
    let mut chosen: Vec<&'static FaultInfo> = Vec::new();
    for info in actions {
        let drawn = stream.percent(50);
        let kept = drawn || certain.is_some_and(|certain| certain.action == info.action);
        if kept && !chosen.iter().any(|known| known.action == info.action) {
            chosen.push(info);
        }
    }
    chosen
}

/// From a quarter of the named rate to all of it, but at least one fault.
fn number(swarm: &SwarmDefinition, horizon: Duration, stream: &mut Stream) -> u64 {
    let most = horizon.as_nanos() * u128::from(swarm.rate.0) / swarm.rate.1.as_nanos().max(1);
    let most = u64::try_from(most).unwrap_or(0).max(1);
    (most * stream.between(25, 100) / 100).max(1)
}

/// Within the horizon, but not in its first tenth: a cluster that never came up is no test.
fn time(index: u64, horizon: Duration, draws: Draws) -> Duration {
    let range = Range {
        min: horizon / 10,
        max: horizon - horizon / 20,
    };
    draws
        .stream("swarm", &format!("time-{index}"))
        .duration(range)
}

fn fault(
    number: usize,
    at: Duration,
    actions: &[&'static FaultInfo],
    swarm: &SwarmDefinition,
    definition: &Definition,
    draws: Draws,
) -> Option<Fault> {
    let key = format!("swarm-{number}");
    let info = draws.stream(&key, "action").pick(actions)?;
    let mut stream = draws.stream(&key, "arguments");
    let target = target(info, definition, &mut draws.stream(&key, "target"))?;
    let (action, target) = action(info.action, target, definition, &mut stream)?;
    Some(Fault {
        name: format!("{key}-{}", info.action),
        action,
        target,
        trigger: Trigger::At(at),
        duration: Some(draws.stream(&key, "for").duration(swarm.duration)),
        heals: true,
        optional: true,
    })
}

/// Where a drawn fault strikes. What destroys durable state strikes agents only: a majority of
/// managers that forgot is beyond any consensus.
fn target(info: &FaultInfo, definition: &Definition, stream: &mut Stream) -> Option<Target> {
    let agents: Vec<NodeId> = node_ids(definition, false);
    if info.targets.contains(&"registry") {
        return Some(Target::Registry { images: Vec::new() });
    }
    if info.targets == ["task"] {
        let take = u32::try_from(stream.between(1, 2)).unwrap_or(1);
        return Some(Target::Tasks {
            service: None,
            take,
            draw: stream.any(),
        });
    }
    let forgets = matches!(info.action, "wipe" | "disk-lies" | "bit-rot");
    if forgets || info.targets.contains(&"runtime") {
        return one_of(&agents, stream);
    }
    match stream.below(4) {
        0 => Some(Target::Leader),
        1 => one_of(&node_ids(definition, true), stream),
        _ => one_of(&agents, stream).or(Some(Target::Leader)),
    }
}

/// All managers and agents, or the agents alone.
fn node_ids(definition: &Definition, managers: bool) -> Vec<NodeId> {
    let agents = (1..)
        .map(NodeId::agent)
        .zip(&definition.cluster.agents)
        .map(|(id, _)| id);
    let count = if managers {
        definition.cluster.managers
    } else {
        0
    };
    (1..=count).map(NodeId::manager).chain(agents).collect()
}

fn one_of(nodes: &[NodeId], stream: &mut Stream) -> Option<Target> {
    let chosen = some_of(nodes, Mode::One, stream);
    (!chosen.is_empty()).then_some(Target::Nodes(chosen))
}

/// Draws sensible arguments. `None` for an action that the swarm cannot draw.
fn action(
    name: &str,
    target: Target,
    definition: &Definition,
    stream: &mut Stream,
) -> Option<(Action, Target)> {
    if name == "partition" {
        return Some(drawn_partition(target, definition, stream));
    }
    let action = machine(name, stream)
        .or_else(|| link(name, stream))
        .or_else(|| registry(name, stream))
        .or_else(|| runtime(name, stream))?;
    Some((action, target))
}

fn drawn_partition(
    target: Target,
    definition: &Definition,
    stream: &mut Stream,
) -> (Action, Target) {
    let managers: Vec<NodeId> = (1..=definition.cluster.managers)
        .map(NodeId::manager)
        .collect();
    let all = node_ids(definition, true);
    let (shape, pool) = match stream.below(6) {
        0 if managers.len() >= 3 => (ShapeDefinition::MajoritiesRing, Target::Nodes(managers)),
        1 if managers.len() >= 3 => (ShapeDefinition::Bridge, Target::Nodes(managers)),
        2 if all.len() >= 2 => (ShapeDefinition::RandomHalves, Target::Nodes(all)),
        _ => (ShapeDefinition::Isolate, target),
    };
    let direction = stream.pick(&[
        Direction::Both,
        Direction::Both,
        Direction::From,
        Direction::To,
    ]);
    let (shape, target) = partition(&shape, pool, stream);
    (
        Action::Partition {
            shape,
            direction: direction.unwrap_or(Direction::Both),
        },
        target,
    )
}

fn millis(min: u64, max: u64) -> Range {
    Range {
        min: Duration::from_millis(min),
        max: Duration::from_millis(max),
    }
}

/// A range that begins at zero and ends at a drawn moment.
fn up_to(max: u64, stream: &mut Stream) -> Range {
    millis(0, stream.between(1, max))
}

fn sign(stream: &mut Stream) -> i64 {
    if stream.percent(50) { 1 } else { -1 }
}

fn small(stream: &mut Stream, min: u64, max: u64) -> u32 {
    u32::try_from(stream.between(min, max)).unwrap_or(1)
}

fn machine(name: &str, stream: &mut Stream) -> Option<Action> {
    Some(match name {
        "process-exit" => Action::ProcessExit,
        "process-kill" => Action::ProcessKill,
        "power-loss" => Action::PowerLoss {
            torn: stream.percent(50),
        },
        "wipe" => Action::Wipe,
        "pause" => Action::Pause,
        "slow-cpu" => Action::SlowCpu {
            factor: small(stream, 2, 100),
        },
        "clock-jump" => {
            let nanos = i64::try_from(stream.between(1, 3_600_000)).unwrap_or(1) * 1_000_000;
            Action::ClockJump {
                by_ns: nanos * sign(stream),
            }
        }
        "clock-drift" => {
            let ppm = i64::try_from(stream.between(10, 50_000)).unwrap_or(10);
            Action::ClockDrift {
                ppm: ppm * sign(stream),
            }
        }
        "disk-full" => Action::DiskFull,
        "disk-slow" => Action::DiskSlow {
            by: up_to(500, stream),
        },
        "disk-error" => Action::DiskError,
        "disk-lies" => Action::DiskLies,
        "bit-rot" => Action::BitRot { draw: stream.any() },
        _ => return None,
    })
}

fn link(name: &str, stream: &mut Stream) -> Option<Action> {
    Some(match name {
        "link-delay" => Action::LinkDelay {
            by: up_to(2_000, stream),
        },
        "link-loss" => Action::LinkLoss {
            percent: small(stream, 1, 50),
        },
        "link-duplicate" => Action::LinkDuplicate {
            percent: small(stream, 1, 50),
        },
        "link-reorder" => Action::LinkReorder {
            percent: small(stream, 1, 50),
            by: Duration::from_millis(stream.between(1, 500)),
        },
        "link-corrupt" => Action::LinkCorrupt {
            percent: small(stream, 1, 20),
        },
        "link-bandwidth" => Action::LinkBandwidth {
            bytes_per_second: stream.between(1, 64) << 10,
        },
        "link-hold" => Action::LinkHold,
        _ => return None,
    })
}

fn registry(name: &str, stream: &mut Stream) -> Option<Action> {
    let classes = [
        ErrorClass::NotFound,
        ErrorClass::Unauthenticated,
        ErrorClass::ResourceExhausted,
        ErrorClass::Unavailable,
    ];
    Some(match name {
        "registry-error" => Action::RegistryError {
            class: stream.pick(&classes)?,
            count: count(stream),
        },
        "registry-slow" => Action::RegistrySlow {
            bytes_per_second: stream.between(16, 4_096) << 10,
        },
        "registry-stall" => Action::RegistryStall {
            after_bytes: stream.between(0, 8) << 20,
        },
        "registry-truncate" => Action::RegistryTruncate {
            count: count(stream),
        },
        "registry-wrong-digest" => Action::RegistryWrongDigest {
            count: count(stream),
        },
        "registry-moved-tag" => Action::RegistryMovedTag,
        _ => return None,
    })
}

/// A few, or all while in force.
fn count(stream: &mut Stream) -> Option<u32> {
    if stream.percent(50) {
        Some(small(stream, 1, 5))
    } else {
        None
    }
}

fn runtime(name: &str, stream: &mut Stream) -> Option<Action> {
    let call = |stream: &mut Stream| {
        if stream.percent(30) {
            None
        } else {
            stream.pick(CALLS).map(str::to_owned)
        }
    };
    let event = |stream: &mut Stream| stream.pick(RUNTIME_EVENTS).unwrap_or("exit").to_owned();
    let classes = [
        ErrorClass::Unavailable,
        ErrorClass::Unknown,
        ErrorClass::DeadlineExceeded,
    ];
    Some(match name {
        "runtime-error" => Action::RuntimeError {
            call: call(stream),
            class: stream.pick(&classes)?,
            count: count(stream),
        },
        "runtime-delay" => Action::RuntimeDelay {
            call: call(stream),
            by: up_to(15_000, stream),
        },
        "runtime-hang" => Action::RuntimeHang { call: call(stream) },
        "runtime-lost-reply" => Action::RuntimeLostReply {
            call: stream.pick(CALLS)?.to_owned(),
            count: small(stream, 1, 3),
        },
        "runtime-event-drop" => Action::RuntimeEventDrop {
            event: event(stream),
            count: count(stream),
        },
        "runtime-event-duplicate" => Action::RuntimeEventDuplicate {
            event: event(stream),
            count: count(stream),
        },
        "runtime-event-delay" => Action::RuntimeEventDelay {
            event: event(stream),
            by: up_to(10_000, stream),
            count: count(stream),
        },
        "kill-dead-errors" => Action::KillDeadErrors,
        "monitor-kill" => Action::MonitorKill,
        "daemon-restart" => Action::DaemonRestart {
            keeps_state: stream.percent(70),
        },
        "empty-listing" => Action::EmptyListing {
            count: count(stream),
        },
        "orphan" => Action::Orphan,
        _ => return ends(name, stream),
    })
}

/// How processes end, and what is said of it.
fn ends(name: &str, stream: &mut Stream) -> Option<Action> {
    Some(match name {
        "exit-before-start" => Action::ExitBeforeStart {
            count: small(stream, 1, 3),
            code: exit_code(stream),
        },
        "exit-late" => Action::ExitLate {
            by: up_to(10_000, stream),
            count: small(stream, 1, 3),
        },
        "exit-code-wrong" => Action::ExitCodeWrong {
            count: small(stream, 1, 3),
            code: exit_code(stream),
        },
        "exit-code-lost" => Action::ExitCodeLost {
            count: small(stream, 1, 3),
        },
        "exit-time-missing" => Action::ExitTimeMissing {
            count: small(stream, 1, 3),
        },
        "task-exit" => Action::TaskExit {
            code: exit_code(stream),
        },
        "task-oom" => Action::TaskOom,
        "task-unhealthy" => Action::TaskUnhealthy,
        _ => return None,
    })
}

fn exit_code(stream: &mut Stream) -> i32 {
    i32::try_from(stream.between(0, 3)).unwrap_or(0)
}
