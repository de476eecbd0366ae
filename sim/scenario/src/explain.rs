//! A plan as text: every step and fault with what, where, when and for how long.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use wavetank_model::{Availability, NodeId, Operation, ServiceMode, ServiceSpec};

use crate::plan::{
    Action, Cluster, Direction, Fault, Plan, Point, Quantiles, RuntimeStep, RuntimeSteps, Shape,
    Step, Target, Trigger,
};
use crate::scalars::{show, show_decimal, show_range, show_signed, show_size};

/// The concrete timeline.
pub(crate) fn explain(plan: &Plan, description: Option<&str>) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} (seed {}, profile {})",
        plan.name, plan.seed, plan.profile
    );
    if let Some(description) = description {
        let _ = writeln!(text, "{}", description.trim());
    }
    let _ = writeln!(text, "\n{}", cluster(&plan.cluster));
    if !plan.cluster.runtime_steps.is_empty() {
        let _ = writeln!(text, "{}", measured(&plan.cluster.runtime_steps));
    }
    let _ = writeln!(text, "\nTimeline");
    for (at, what) in timeline(plan) {
        let _ = writeln!(text, "  {:>10}  {what}", show(at));
    }
    let waiting: Vec<&Fault> = plan
        .faults
        .iter()
        .filter(|fault| !matches!(fault.trigger, Trigger::At(_)))
        .collect();
    if !waiting.is_empty() {
        let _ = writeln!(text, "\nWhen it happens");
        for fault in waiting {
            let _ = writeln!(
                text,
                "  {}: {}",
                trigger(plan, &fault.trigger),
                strike(fault)
            );
        }
    }
    expectations(plan, &mut text);
    text
}

fn cluster(cluster: &Cluster) -> String {
    let agents = cluster.agents.len();
    let clients = match cluster.clients.len() {
        0 => String::new(),
        count => format!(", load clients: {count}"),
    };
    format!(
        "managers: {}, agents: {agents}{clients}; latency {}, fsync {}",
        cluster.managers,
        show_range(cluster.latency),
        show_range(cluster.fsync)
    )
}

/// Steps of the runtimes that take what was measured: the middle and the 95th in a hundred.
fn measured(steps: &RuntimeSteps) -> String {
    let step = |(step, times): (&RuntimeStep, &Quantiles)| {
        let [middle, late] = [50, 95].map(|percent| show_decimal(times.percent(percent)));
        format!("{} {middle} (p95 {late})", step.name())
    };
    let steps: Vec<String> = steps.iter().map(step).collect();
    format!("runtimes: {}", steps.join(", "))
}

/// Everything that has a time, in order.
fn timeline(plan: &Plan) -> Vec<(Duration, String)> {
    let mut lines: Vec<(Duration, String)> = Vec::new();
    lines.extend(plan.workload.iter().map(|one| (one.at, step(one))));
    for fault in &plan.faults {
        if let Trigger::At(at) = fault.trigger {
            lines.push((at, strike(fault)));
        }
    }
    let settled = plan.horizon + plan.settle;
    lines.push((
        plan.horizon,
        "everything heals; liveness is owed from here on".to_owned(),
    ));
    lines.push((settled, "end".to_owned()));
    lines.sort_by_key(|(at, _)| *at);
    lines
}

fn step(step: &Step) -> String {
    format!("operator: {}", operation(&step.operation))
}

fn strike(fault: &Fault) -> String {
    let how_long = match (fault.heals, fault.duration) {
        _ if is_moment(&fault.action) => String::new(),
        (false, _) => " for ever".to_owned(),
        (true, None) => " until everything heals".to_owned(),
        (true, Some(duration)) => format!(" for {}", show(duration)),
    };
    // Shapes that were drawn in full name their nodes.
    let named = match &fault.action {
        Action::Partition { shape, .. } => !matches!(shape, Shape::Isolate | Shape::FromManagers),
        _ => false,
    };
    let place = if named {
        String::new()
    } else {
        target(&fault.target)
    };
    let arrow = if place.is_empty() {
        String::new()
    } else {
        format!(" on {place}")
    };
    format!(
        "fault {}: {}{arrow}{how_long}",
        fault.name,
        action(&fault.action)
    )
}

/// True for what happens at once and has nothing to end.
fn is_moment(action: &Action) -> bool {
    matches!(
        action,
        Action::Operator { .. }
            | Action::Membership { .. }
            | Action::TaskExit { .. }
            | Action::TaskOom
            | Action::MonitorKill
            | Action::Orphan
            | Action::BitRot { .. }
    )
}

fn trigger(plan: &Plan, trigger: &Trigger) -> String {
    match trigger {
        Trigger::At(at) => format!("at {}", show(*at)),
        Trigger::AfterFault { fault, delay } => {
            let other = plan
                .faults
                .get(*fault as usize)
                .map_or("?", |fault| &fault.name);
            format!("{}after fault {other}", later(*delay))
        }
        Trigger::OnEvent {
            event,
            condition,
            occurrence,
            point,
            delay,
        } => {
            let side = if *point == Point::Before {
                "before"
            } else {
                "after"
            };
            let such = condition
                .as_ref()
                .map(|text| format!(" where {}", text.trim()));
            let such = such.unwrap_or_default();
            format!(
                "{}{side} event {event} number {occurrence}{such}",
                later(*delay)
            )
        }
    }
}

fn later(delay: Duration) -> String {
    if delay.is_zero() {
        String::new()
    } else {
        format!("{} ", show(delay))
    }
}

/// Where, in words.
fn target(target: &Target) -> String {
    match target {
        Target::Nodes(nodes) => nodes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        Target::Leader => "the leader".to_owned(),
        Target::Followers { take, .. } => format!("{take} of the followers"),
        Target::EventHost => "the event's node".to_owned(),
        Target::TaskNode { service, .. } => format!("the node of a task of {service}"),
        Target::Tasks { service, take, .. } => {
            let of = service
                .as_ref()
                .map_or("any service".to_owned(), Clone::clone);
            match take {
                &u32::MAX => format!("all running tasks of {of}"),
                1 => format!("a running task of {of}"),
                take => format!("{take} running tasks of {of}"),
            }
        }
        Target::Registry { images } if images.is_empty() => "the registry".to_owned(),
        Target::Registry { images } => format!("the registry's {}", images.join(", ")),
        Target::Cluster => String::new(),
    }
}

/// What, in words: the name and whatever tells one from another.
fn action(action: &Action) -> String {
    let name = action.name();
    let counted = |count: &Option<u32>| count.map_or("all".to_owned(), |count| count.to_string());
    let any = |call: &Option<String>| call.as_deref().unwrap_or("any call").to_owned();
    let details = match action {
        Action::PowerLoss { torn: true } => "a write is torn".to_owned(),
        Action::SlowCpu { factor } => format!("{factor} times"),
        Action::ClockJump { by_ns } => show_signed(*by_ns),
        Action::ClockDrift { ppm } => format!("{ppm:+} ppm"),
        Action::Partition { shape, direction } => partition(shape, *direction),
        Action::LinkDelay { by } | Action::DiskSlow { by } => format!("by {}", show_range(*by)),
        Action::LinkLoss { percent }
        | Action::LinkDuplicate { percent }
        | Action::LinkCorrupt { percent } => format!("{percent} %"),
        Action::LinkReorder { percent, by } => format!("{percent} % by up to {}", show(*by)),
        Action::LinkBandwidth { bytes_per_second } | Action::RegistrySlow { bytes_per_second } => {
            format!("{}/s", show_size(*bytes_per_second))
        }
        Action::BitRot { draw } => format!("record {draw}"),
        Action::RegistryError { class, count } => format!("{class}, {}", counted(count)),
        Action::RegistryStall { after_bytes } => format!("after {}", show_size(*after_bytes)),
        Action::RegistryTruncate { count }
        | Action::RegistryWrongDigest { count }
        | Action::EmptyListing { count } => counted(count),
        Action::RuntimeError { call, class, count } => {
            format!("{}: {class}, {}", any(call), counted(count))
        }
        Action::RuntimeDelay { call, by } => format!("{} by {}", any(call), show_range(*by)),
        Action::RuntimeHang { call } => any(call),
        Action::RuntimeLostReply { call, count } => format!("{call}, {count}"),
        Action::RuntimeEventDrop { event, count }
        | Action::RuntimeEventDuplicate { event, count } => format!("{event}, {}", counted(count)),
        Action::RuntimeEventDelay { event, by, count } => {
            format!("{event} by {}, {}", show_range(*by), counted(count))
        }
        Action::ExitBeforeStart { count, code } | Action::ExitCodeWrong { count, code } => {
            format!("{count} with code {code}")
        }
        Action::ExitLate { by, count } => format!("{count} by {}", show_range(*by)),
        Action::ExitCodeLost { count } | Action::ExitTimeMissing { count } => count.to_string(),
        Action::DaemonRestart { keeps_state: false } => "forgets its containers".to_owned(),
        Action::TaskExit { code } => format!("code {code}"),
        Action::Operator { operation: asked } => operation(asked),
        Action::Membership { join: true } => "joins".to_owned(),
        Action::Membership { join: false } => "leaves".to_owned(),
        Action::CodecRetype { message, field }
        | Action::CodecRename { message, field }
        | Action::CodecMissing { message, field } => format!("{message}.{field}"),
        _ => String::new(),
    };
    if details.is_empty() {
        name.to_owned()
    } else {
        format!("{name} ({details})")
    }
}

fn partition(shape: &Shape, direction: Direction) -> String {
    let list = |nodes: &[NodeId]| {
        nodes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let way = match direction {
        Direction::Both => "",
        Direction::From => ", only what it sends",
        Direction::To => ", only what it receives",
    };
    let what = match shape {
        Shape::Isolate => "isolated".to_owned(),
        Shape::FromManagers => "cut off from the other managers".to_owned(),
        Shape::Groups(groups) => groups
            .iter()
            .map(|group| list(group))
            .collect::<Vec<_>>()
            .join(" | "),
        Shape::Bridge { left, right } => format!("{} | {}, one between", list(left), list(right)),
        Shape::Pairs(pairs) => {
            let mut deaf: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
            for (from, to) in pairs {
                deaf.entry(*to).or_default().push(*from);
            }
            let each = deaf
                .iter()
                .map(|(to, from)| format!("{to} not from {}", list(from)));
            format!("what reaches {}", each.collect::<Vec<_>>().join("; "))
        }
    };
    format!("{what}{way}")
}

fn operation(operation: &Operation) -> String {
    match operation {
        Operation::Deploy { spec } => deploy(spec),
        Operation::Scale { service, replicas } => format!("scale {service} to {replicas}"),
        Operation::Rollback { service } => format!("roll back {service}"),
        Operation::Stop { service } => format!("stop {service}"),
        Operation::Start { service } => format!("start {service}"),
        Operation::Delete { service } => format!("delete {service}"),
        Operation::SetAvailability { node, availability } => match availability {
            Availability::Active => format!("activate {node}"),
            Availability::Pause => format!("give {node} no more tasks"),
            Availability::Drain => format!("drain {node}"),
        },
        Operation::RemoveManager { node } => format!("remove {node}"),
        Operation::Put { key, value, .. } => format!("put {key} = {value}"),
        Operation::Get { key } => format!("get {key}"),
        other => other.name().to_owned(),
    }
}

fn deploy(spec: &ServiceSpec) -> String {
    let mode = match spec.mode {
        ServiceMode::Replicated { replicas } => format!("{replicas} replicas"),
        ServiceMode::Global => "one on every agent".to_owned(),
        ServiceMode::Job { completions } => format!("{completions} completions"),
    };
    format!("deploy {} ({mode} of {})", spec.name, spec.image)
}

fn expectations(plan: &Plan, text: &mut String) {
    let expect = &plan.expect;
    let _ = writeln!(text, "\nExpected");
    for one in &expect.eventually {
        let due = plan.horizon + one.within;
        let _ = writeln!(text, "  by {}: {}", show(due), one.check.trim());
    }
    for never in &expect.never {
        let _ = writeln!(text, "  never: {}", never.trim());
    }
    let _ = writeln!(text, "  checkers: {}", expect.invariants.join(" "));
    if !expect.fails.is_empty() {
        let _ = writeln!(text, "  must fail: {}", expect.fails.join(" "));
    }
}
