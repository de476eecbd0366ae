//! I8: when everything has come to rest, every container has a task that wants it, and every task
//! that the store calls running has a running container.
//!
//! Looked at only at the end, and only on nodes that were up and undisturbed for the time that
//! tidying up may take (a stop with its grace, an unanswered call, two polls), longest spec wins.
//!
//! Breaches: a container without a task in the store on its node; one of a task that has ended;
//! one of an earlier attempt; one that is no instance at all; a task that runs without a running
//! container.
//!
//! Exemptions: everything that came about within that time before the end; nodes that a fault
//! without end still holds; all nodes while a fault that names no node is in force at the end (a
//! runtime that never answers cannot be tidied).

use std::time::Duration;

use wavetank_model::{NodeId, TaskState};
use wavetank_trace::{Event, EventId, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::{Instance, Model};

const ID: &str = "I8";

/// See the file's header.
#[derive(Default)]
pub struct NoOrphans;

impl Checker for NoOrphans {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, _event: &Event, _report: &mut Report) {}

    fn finish(&mut self, end: VirtualTime, report: &mut Report) {
        if report.model.settle_at.is_none() || report.model.disturbance.silent_fault_in_force() {
            return;
        }
        let mut found = Vec::new();
        strangers(&report.model, end, &mut found);
        leftovers(&report.model, end, &mut found);
        ghosts(&report.model, end, &mut found);
        for (kind, cause, witnesses) in found {
            report.findings.add(Breach {
                checker: ID,
                kind,
                cause,
                at: end,
                witnesses,
            });
        }
    }
}

type Found = Vec<(&'static str, String, Vec<EventId>)>;

/// The time that tidying up may take.
fn slack(model: &Model) -> Duration {
    let timers = &model.plan.cluster.timers;
    let graces = model
        .store
        .services
        .values()
        .map(|service| service.spec.stop_grace);
    let grace = graces.max().unwrap_or_default();
    grace + timers.runtime_timeout * 2 + timers.status_poll * 3 + Duration::from_secs(10)
}

fn is_judged(model: &Model, host: NodeId, end: VirtualTime) -> bool {
    model.steady_for(host, slack(model), end)
}

fn strangers(model: &Model, end: VirtualTime, found: &mut Found) {
    for (host, container, since) in model.containers.strangers() {
        let ours = container.0.starts_with("wt-");
        if ours && is_judged(model, host, end) && end.since(since) >= slack(model) {
            let cause = format!("container {container} on {host} belongs to nobody");
            found.push(("orphan", cause, Vec::new()));
        }
    }
}

fn leftovers(model: &Model, end: VirtualTime, found: &mut Found) {
    for instance in model.containers.all() {
        if !instance.exists() || !is_judged(model, instance.host, end) {
            continue;
        }
        let Some((kind, why, since)) = needless(model, instance) else {
            continue;
        };
        if end.since(since) >= slack(model) {
            let cause = format!(
                "the container of {} on {} {why}",
                instance.id, instance.host
            );
            found.push((kind, cause, vec![instance.event]));
        }
    }
}

/// Why a container should not be there, and since when.
fn needless(model: &Model, instance: &Instance) -> Option<(&'static str, String, VirtualTime)> {
    let appeared = instance.created_at;
    let task = model.store.tasks.get(&instance.id.task);
    let Some(task) = task.filter(|task| task.node == Some(instance.host)) else {
        return Some(("orphan", "has no task there".into(), appeared));
    };
    if task.status.state.is_terminal() {
        let why = format!("is still there although the task is {}", task.status.state);
        return Some(("leftover", why, task.state_since.max(appeared)));
    }
    if task.status.attempt > instance.id.attempt {
        let why = format!("is still there in attempt {}", task.status.attempt);
        return Some(("leftover-attempt", why, task.state_since.max(appeared)));
    }
    None
}

fn ghosts(model: &Model, end: VirtualTime, found: &mut Found) {
    for (id, task) in &model.store.tasks {
        let Some(host) = task.node.filter(|host| is_judged(model, *host, end)) else {
            continue;
        };
        if task.status.state != TaskState::Running || end.since(task.state_since) < slack(model) {
            continue;
        }
        let instances = model.containers.of_task(*id);
        let ended = instances.iter().filter(|instance| instance.host == host);
        let last_end = ended
            .clone()
            .filter_map(|instance| instance.end)
            .map(|end| end.at)
            .max();
        let recent = last_end.is_some_and(|at| end.since(at) < slack(model));
        if !recent && !ended.clone().any(Instance::is_live) {
            let cause = format!("{id} is running in the store, but no container of it runs");
            found.push(("ghost", cause, vec![task.event]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, exit, failed, removed, spec};
    use wavetank_model::Reason;
    use wavetank_trace::{ExitCause, HostState};

    #[test]
    fn a_tidy_cluster_passes() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        let other = trace.up(2, 2);
        trace.exited(2, 2, 1, exit(1), ExitCause::Itself);
        let status = failed(Reason::ExitedNonZero, Some(exit(1)), 1, 6);
        trace.reported(2, &other, TaskState::Running, status);
        trace.deleted(2, 2, 1);
        trace.end();
        assert_eq!(trace.findings(&["I8"]), Vec::<String>::new());
    }

    #[test]
    fn a_container_without_a_task_fails() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.apply(vec![removed(1)]);
        trace.end();
        assert_eq!(trace.findings(&["I8"]), ["I8/orphan"]);
    }

    #[test]
    fn a_container_of_a_finished_task_fails() {
        let mut trace = Trace::started(&spec());
        let task = trace.up(1, 1);
        trace.exited(1, 1, 1, exit(1), ExitCause::Itself);
        let status = failed(Reason::ExitedNonZero, Some(exit(1)), 1, 6);
        trace.reported(1, &task, TaskState::Running, status);
        trace.end();
        assert_eq!(trace.findings(&["I8"]), ["I8/leftover"]);
    }

    #[test]
    fn a_running_task_without_a_container_fails_unless_its_node_is_down() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.exited(1, 1, 1, exit(1), ExitCause::Itself);
        let mut down = Trace {
            events: trace.events.clone(),
            now: trace.now,
            ..Trace::default()
        };
        trace.end();
        assert_eq!(trace.findings(&["I8"]), ["I8/ghost"]);
        down.host(NodeId::agent(1), HostState::PowerLost);
        down.end();
        assert_eq!(down.findings(&["I8"]), Vec::<String>::new());
    }
}
