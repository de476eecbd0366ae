//! I17: planned operations (updates, drains, scaling) keep the promised number of tasks ready.
//!
//! Breach "stopped-too-many": managers decide to stop a ready task of a replicated service, and
//! fewer than `replicas - unavailable_max` other tasks that are to run are ready. Judging the
//! decision, not the count over time, needs no excuse for tasks that fail by themselves.
//!
//! Exemptions: services that are stopped or deleted, global services and jobs; services with a
//! volume (one writer at a time, so the old one must go first); tasks on nodes that are down. What
//! happened a moment ago cannot have been known when the decision was made: a task that was ready
//! within the last `MOMENT` counts as ready, a number that was raised or a service that was
//! started within it counts as before.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{Change, DesiredState, NodeStatus, ServiceMode, ServiceName};
use wavetank_trace::{Event, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::{Model, ServiceRecord, TaskStep};

const ID: &str = "I17";

/// Longest from a decision to its entry in the log, in a healthy cluster.
const MOMENT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    replicas: u32,
    before: u32,
    changed_at: VirtualTime,
    going_since: VirtualTime,
    stopped: bool,
}

/// See the file's header.
#[derive(Default)]
pub struct Availability {
    wanted: BTreeMap<ServiceName, Wanted>,
}

impl Checker for Availability {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        if !matches!(event.payload, Payload::Notice { .. }) {
            return;
        }
        self.remember(event, &report.model);
        let model = &report.model;
        let found = model
            .store
            .steps()
            .iter()
            .find_map(|step| self.judge(event, step, model));
        let Some(cause) = found else { return };
        let (kind, witnesses) = ("stopped-too-many", vec![event.id]);
        report.findings.add(Breach {
            checker: ID,
            kind,
            cause,
            at: event.at,
            witnesses,
        });
    }

    fn finish(&mut self, _end: VirtualTime, _report: &mut Report) {}
}

impl Availability {
    fn remember(&mut self, event: &Event, model: &Model) {
        for change in model.store.fresh_changes(event) {
            match change {
                Change::Service { spec, stopped, .. } => {
                    let replicas = spec.replicas().unwrap_or(0);
                    let wanted = self.wanted.entry(spec.name.clone()).or_default();
                    if wanted.replicas != replicas {
                        wanted.before = wanted.replicas;
                        wanted.replicas = replicas;
                        wanted.changed_at = event.at;
                    }
                    if wanted.stopped && !stopped {
                        wanted.going_since = event.at;
                    }
                    wanted.stopped = *stopped;
                }
                Change::ServiceRemoved { service } => {
                    self.wanted.remove(service);
                }
                _ => {}
            }
        }
    }

    fn judge(&self, event: &Event, step: &TaskStep, model: &Model) -> Option<String> {
        let before = step.before.as_ref()?;
        let stops = before.is_ready()
            && before.desired == DesiredState::Running
            && step.after.desired > DesiredState::Running
            && !step.after.status.state.is_terminal();
        let name = &step.after.service;
        let service = model
            .store
            .services
            .get(name)
            .filter(|service| stops && is_judged(service))?;
        let node = step
            .after
            .node
            .and_then(|node| model.store.nodes.get(&node))?;
        if node.status == NodeStatus::Down {
            return None;
        }
        let promised = self.promised(event, service)?;
        let ready = model.store.tasks_of(name).filter(|(_, task)| {
            let lately = task
                .ready_until
                .is_some_and(|until| event.at.since(until) <= MOMENT);
            task.desired == DesiredState::Running && (task.is_ready() || lately)
        });
        let ready = ready.count();
        let short = ready < promised as usize;
        short.then(|| {
            format!(
                "{} is to stop, which leaves {ready} ready tasks of {name}, not {promised}",
                step.task
            )
        })
    }

    fn promised(&self, event: &Event, service: &ServiceRecord) -> Option<u32> {
        let wanted = self.wanted.get(&service.spec.name)?;
        if event.at.since(wanted.going_since) <= MOMENT && wanted.going_since > VirtualTime::ZERO {
            return None;
        }
        let recent = event.at.since(wanted.changed_at) <= MOMENT;
        let replicas = if recent {
            wanted.replicas.min(wanted.before)
        } else {
            wanted.replicas
        };
        Some(replicas.saturating_sub(service.spec.update.unavailable_max))
    }
}

fn is_judged(service: &ServiceRecord) -> bool {
    !service.stopped
        && !service.deleting
        && service.spec.volume.is_none()
        && matches!(service.spec.mode, ServiceMode::Replicated { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Task, Trace, seconds, spec, status};
    use wavetank_model::TaskState;

    fn retire(trace: &mut Trace, task: Task) {
        let task = task.desired(DesiredState::Shutdown);
        let running = status(TaskState::Running, 1, 5);
        trace
            .after(seconds(10))
            .apply(vec![task.change(Some(TaskState::Running), running)]);
    }

    #[test]
    fn replacing_one_by_one_passes() {
        let mut trace = Trace::started(&spec());
        let old = trace.up(1, 1);
        trace.up(2, 2);
        retire(&mut trace, old);
        assert_eq!(trace.findings(&["I17"]), Vec::<String>::new());
    }

    #[test]
    fn stopping_the_last_one_fails() {
        let mut trace = Trace::started(&spec());
        let old = trace.up(1, 1);
        retire(&mut trace, old);
        assert_eq!(trace.findings(&["I17"]), ["I17/stopped-too-many"]);
    }

    #[test]
    fn stopping_the_service_passes() {
        let mut trace = Trace::started(&spec());
        let old = trace.up(1, 1);
        trace.apply(vec![crate::testing::stopped(&spec(), true)]);
        retire(&mut trace, old);
        assert_eq!(trace.findings(&["I17"]), Vec::<String>::new());
    }
}
