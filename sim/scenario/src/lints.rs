//! What is allowed but hardly meant: faults that cannot fire, images that nobody uses, worlds that
//! cannot do what the file asks. Expressions have lints of their own in `expression`.

use wavetank_model::{Operation, ServiceSpec};

use crate::diagnostic::{Problem, Problems, Span};
use crate::plan::AgentHost;
use crate::resolve::World;
use crate::resolve::fault::{FaultDefinition, TriggerDefinition};
use crate::resolve::workload::Workload;
use crate::scalars::show;
use crate::yaml::Node;

/// Reports all of it.
pub(crate) fn lint(
    tree: &Node,
    world: &World<'_>,
    workload: &Workload,
    faults: &[FaultDefinition],
    worlds: &[String],
    problems: &mut Problems,
) {
    late_steps(tree, world, problems);
    late_faults(world, faults, problems);
    unused_images(tree, workload, problems);
    unplaceable(tree, world, workload, problems);
    unable_worlds(tree, faults, worlds, problems);
    idle_ranges(tree, problems);
}

/// A range that is given beside measured steps and that no step is left for.
fn idle_ranges(tree: &Node, problems: &mut Problems) {
    let cluster = tree.get("cluster");
    let Some(runtime) = cluster.and_then(|it| it.get("runtime")) else {
        return;
    };
    let Some(steps) = runtime.get("steps") else {
        return;
    };
    let calls = ["pull", "create", "start", "exit_seen", "delete", "call"];
    for (range, replaced) in [("latency", &calls[..]), ("event_delay", &["event"])] {
        let Some(entry) = runtime.entry(range) else {
            continue;
        };
        if replaced.iter().all(|step| steps.get(step).is_some()) {
            let message = format!("`{range}` has no effect: measured steps replace it");
            problems.add(
                Problem::warning("scenario::lint::idle-range", entry.key_span, message)
                    .label("never drawn from")
                    .also(steps.span, "these are"),
            );
        }
    }
}

fn late_steps(tree: &Node, world: &World<'_>, problems: &mut Problems) {
    for step in tree.get("workload").map(Node::items).unwrap_or_default() {
        let (Some(at), Some(place)) = (step.duration("at"), step.get("at")) else {
            continue;
        };
        if at >= world.horizon {
            let message = "this step comes after the fault phase has ended";
            problems.add(
                Problem::warning("scenario::lint::beyond-horizon", place.span, message)
                    .label(format!("the horizon is {}", show(world.horizon))),
            );
        }
    }
}

fn late_faults(world: &World<'_>, faults: &[FaultDefinition], problems: &mut Problems) {
    for fault in faults {
        let begins = match fault.trigger {
            TriggerDefinition::At { at, .. } => at.max,
            TriggerDefinition::Every { first, until, .. } if first.max < until => first.max,
            TriggerDefinition::Every { first, until, .. } => {
                first.max.max(until).max(world.horizon)
            }
            _ => continue,
        };
        if begins >= world.horizon {
            let message = format!("fault `{}` may come too late to strike", fault.name);
            problems.add(
                Problem::warning("scenario::lint::beyond-horizon", fault.span, message)
                    .label(format!("the horizon is {}", show(world.horizon)))
                    .help("strike sooner, or lengthen `horizon`"),
            );
        }
    }
}

/// Images of an included file are a stock to choose from; a file's own are meant to be used.
fn unused_images(tree: &Node, workload: &Workload, problems: &mut Problems) {
    for entry in tree.get("images").map(Node::entries).unwrap_or_default() {
        if entry.key_span.source == tree.span.source && !workload.images.contains(&entry.key) {
            let message = format!("no step deploys image `{}`", entry.key);
            problems.add(
                Problem::warning("scenario::lint::unused-image", entry.key_span, message)
                    .label("never used"),
            );
        }
    }
}

/// Services that no agent can ever run.
fn unplaceable(tree: &Node, world: &World<'_>, workload: &Workload, problems: &mut Problems) {
    for step in &workload.steps {
        let Operation::Deploy { spec } = &step.operation else {
            continue;
        };
        if world.cluster.agents.iter().any(|host| fits(host, spec)) || spec.replicas() == Some(0) {
            continue;
        }
        let span = deploy_span(tree, &spec.name.0).unwrap_or(tree.span);
        let message = format!("no agent can ever run `{}`", spec.name);
        problems.add(
            Problem::warning("scenario::lint::unplaceable", span, message)
                .label("labels or resources that no agent has"),
        );
    }
}

fn fits(host: &AgentHost, spec: &ServiceSpec) -> bool {
    let labels = spec
        .constraints
        .iter()
        .all(|(key, value)| host.labels.get(key) == Some(value));
    labels
        && host.resources.cpu_millis >= spec.resources.cpu_millis
        && host.resources.memory_bytes >= spec.resources.memory_bytes
}

fn deploy_span(tree: &Node, service: &str) -> Option<Span> {
    let steps = tree.get("workload")?.items();
    let named = steps
        .iter()
        .find(|step| step.word("deploy") == Some(service))?;
    Some(named.get("deploy")?.span)
}

/// A fault that a world cannot do is reported there as not applied, and the run is inconclusive.
fn unable_worlds(
    tree: &Node,
    faults: &[FaultDefinition],
    worlds: &[String],
    problems: &mut Problems,
) {
    for world in worlds {
        let unable: Vec<&FaultDefinition> = faults
            .iter()
            .filter(|fault| !fault.info.worlds.contains(&world.as_str()))
            .collect();
        let Some(first) = unable.first() else {
            continue;
        };
        let listed = tree
            .get("worlds")
            .map(Node::one_or_many)
            .unwrap_or_default();
        let place = listed.iter().find(|item| item.text() == Some(world));
        let span = place.map_or(first.span, |item| item.span);
        let message = if unable.len() == faults.len() {
            format!("world `{world}` can do none of the faults")
        } else {
            format!("world `{world}` cannot do fault `{}`", first.name)
        };
        problems.add(
            Problem::warning("scenario::lint::unable-world", span, message)
                .label(format!("cannot do {}", first.info.action))
                .help(format!(
                    "`{}` works in: {}",
                    first.info.action,
                    first.info.worlds.join(", ")
                )),
        );
    }
}
