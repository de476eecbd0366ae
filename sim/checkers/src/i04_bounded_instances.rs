//! I4: never more instances than asked for plus the surge that an update may use; never two
//! containers of one task, never two writers of one volume.
//!
//! Breaches, in the store: a task is written down although the service already has `replicas +
//! surge_max` tasks that should run. Breaches, in truth: a container starts while another one of
//! its task runs anywhere, while another one on its node writes to the same volume, or while
//! another one anywhere runs in the same slot of a service with a volume.
//!
//! Exemptions: tasks on drained nodes are being replaced elsewhere and do not count; a service
//! whose number was just lowered keeps its surplus for a while (the old number counts until then);
//! only the writing of a new task is a breach, as surplus goes away one by one. Volumes that all
//! nodes share by intention, and those that only hold an election's lock file, may have many
//! users. Containers that no agent ordered (left over from another life) are I8's business, once
//! a fault has put one there.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{
    Availability, Change, ElectionBackend, ServiceMode, ServiceName, ServiceSpec,
};
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::{Instance, Model, ServiceRecord, TaskRecord};

const ID: &str = "I4";

/// See the file's header.
pub struct BoundedInstances {
    shared: Vec<String>,
    lowered_for: Duration,
    /// What a service wanted before its number was lowered, and when that was.
    lowered: BTreeMap<ServiceName, (u64, VirtualTime)>,
    limits: BTreeMap<ServiceName, u64>,
}

impl BoundedInstances {
    /// For a run of `plan`.
    pub fn new(plan: &Plan) -> Self {
        BoundedInstances {
            shared: plan.cluster.shared_volumes.clone(),
            lowered_for: plan.cluster.timers.reconcile * 2 + Duration::from_secs(10),
            lowered: BTreeMap::new(),
            limits: BTreeMap::new(),
        }
    }
}

impl Checker for BoundedInstances {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        match &event.payload {
            Payload::Notice { .. } => {
                self.remember_limits(event, &report.model);
                self.check_store(event, report);
            }
            Payload::ContainerStarted { .. } => self.check_truth(event, report),
            _ => {}
        }
    }

    fn finish(&mut self, _end: VirtualTime, _report: &mut Report) {}
}

impl BoundedInstances {
    fn remember_limits(&mut self, event: &Event, model: &Model) {
        for change in model.store.fresh_changes(event) {
            match change {
                Change::Service { spec, .. } => {
                    let limit = limit(spec, model);
                    let before = self
                        .limits
                        .insert(spec.name.clone(), limit)
                        .unwrap_or(limit);
                    if before > limit {
                        let kept = self.lowered.get(&spec.name).map_or(0, |(kept, _)| *kept);
                        self.lowered
                            .insert(spec.name.clone(), (before.max(kept), event.at));
                    }
                }
                Change::ServiceRemoved { service } => {
                    self.limits.remove(service);
                    self.lowered.remove(service);
                }
                _ => {}
            }
        }
    }

    fn check_store(&self, event: &Event, report: &mut Report) {
        let model = &report.model;
        for step in model.store.steps() {
            if step.before.is_some() || !step.after.is_wanted() {
                continue;
            }
            let name = &step.after.service;
            let Some(service) = model.store.services.get(name) else {
                continue;
            };
            let count = counted(model, name);
            let limit = self.limit_now(event, service, model);
            if count > limit {
                report.findings.add(Breach {
                    checker: ID,
                    kind: "too-many-tasks",
                    cause: format!("{name} has {count} tasks that should run, of {limit} at most"),
                    at: event.at,
                    witnesses: vec![service.event, event.id],
                });
            }
        }
    }

    fn limit_now(&self, event: &Event, service: &ServiceRecord, model: &Model) -> u64 {
        let limit = limit(&service.spec, model);
        match self.lowered.get(&service.spec.name) {
            Some((before, at)) if event.at.since(*at) < self.lowered_for => limit.max(*before),
            _ => limit,
        }
    }

    fn check_truth(&self, event: &Event, report: &mut Report) {
        let Payload::ContainerStarted { container, .. } = &event.payload else {
            return;
        };
        let Some(host) = event.host else { return };
        let model = &report.model;
        let Some(started) = model.containers.of_container(host, container) else {
            return;
        };
        if !counts(started, model) {
            return;
        }
        let is_other = |other: &&Instance| {
            other.is_live() && counts(other, model) && (other.host, other.id) != (host, started.id)
        };
        let clash = |other| Some((other, self.clash(started, other, model)?));
        let siblings = model.containers.of_task(started.id.task).iter();
        let mut found = siblings.filter(is_other).find_map(clash);
        if found.is_none() && !started.volumes.is_empty() {
            found = model.containers.all().filter(is_other).find_map(clash);
        }
        let Some((other, kind)) = found else { return };
        let cause = format!(
            "{} starts on {host} while {} runs on {}",
            started.id, other.id, other.host
        );
        let witnesses = vec![other.event, event.id];
        report.findings.add(Breach {
            checker: ID,
            kind,
            cause,
            at: event.at,
            witnesses,
        });
    }

    fn clash(&self, one: &Instance, other: &Instance, model: &Model) -> Option<&'static str> {
        if one.id.task == other.id.task {
            return Some("two-containers-of-a-task");
        }
        let single = |volume: &&String| self.has_one_writer(volume, model);
        let same = one
            .volumes
            .iter()
            .filter(single)
            .any(|volume| other.volumes.contains(volume));
        if !same {
            return None;
        }
        let slot = |instance: &Instance| {
            let task = model.store.tasks.get(&instance.id.task)?;
            Some((task.service.clone(), task.slot))
        };
        let same_slot = slot(one).is_some() && slot(one) == slot(other);
        (one.host == other.host || same_slot).then_some("two-writers-of-a-volume")
    }

    fn has_one_writer(&self, volume: &str, model: &Model) -> bool {
        let holds_lock = |service: &ServiceRecord| {
            service
                .spec
                .election
                .as_ref()
                .is_some_and(|election| match &election.backend {
                    ElectionBackend::LockFile { volume: lock } => lock == volume,
                    ElectionBackend::Managers => false,
                })
        };
        !self.shared.iter().any(|shared| shared == volume)
            && !model.store.services.values().any(holds_lock)
    }
}

/// An orphan of a fault is not the orchestrator's doing.
fn counts(instance: &Instance, model: &Model) -> bool {
    instance.ordered || !model.disturbance.ever(|action| action == "orphan")
}

fn limit(spec: &ServiceSpec, model: &Model) -> u64 {
    let wanted = match spec.mode {
        ServiceMode::Replicated { replicas } => u64::from(replicas),
        ServiceMode::Job { completions } => u64::from(completions),
        ServiceMode::Global => model.store.nodes.len() as u64,
    };
    wanted + u64::from(spec.update.surge_max)
}

fn counted(model: &Model, service: &ServiceName) -> u64 {
    let drained = |task: &TaskRecord| {
        let node = task.node.and_then(|node| model.store.nodes.get(&node));
        node.is_some_and(|node| node.availability == Availability::Drain)
    };
    let tasks = model.store.tasks_of(service);
    tasks
        .filter(|(_, task)| task.is_wanted() && !drained(task))
        .count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, exit, removed, service, spec, task};
    use wavetank_model::TaskStatus;
    use wavetank_trace::ExitCause;

    fn new_task(trace: &mut Trace, id: u64) {
        trace.apply(vec![task(id, 0).change(None, TaskStatus::pending())]);
    }

    #[test]
    fn surge_passes_and_one_more_fails() {
        let mut trace = Trace::started(&spec());
        new_task(&mut trace, 1);
        new_task(&mut trace, 2);
        assert!(trace.findings(&["I4"]).is_empty());
        new_task(&mut trace, 3);
        assert_eq!(trace.findings(&["I4"]), ["I4/too-many-tasks"]);
    }

    #[test]
    fn surplus_of_a_lowered_number_passes_for_a_while() {
        let mut wide = spec();
        wide.mode = ServiceMode::Replicated { replicas: 4 };
        let mut trace = Trace::started(&wide);
        (1..=4).for_each(|id| new_task(&mut trace, id));
        trace.apply(vec![service(&spec())]);
        new_task(&mut trace, 5);
        assert!(trace.findings(&["I4"]).is_empty());
        trace.apply(vec![removed(5)]);
        trace.after(Duration::from_secs(60));
        new_task(&mut trace, 6);
        assert_eq!(trace.findings(&["I4"]), ["I4/too-many-tasks"]);
    }

    #[test]
    fn one_container_after_another_passes() {
        let mut trace = Trace::started(&spec());
        trace.run(1, 1, 1);
        trace.exited(1, 1, 1, exit(1), ExitCause::Itself);
        trace.run(1, 1, 2);
        assert!(trace.findings(&["I4"]).is_empty());
    }

    #[test]
    fn two_containers_of_a_task_fail() {
        let mut trace = Trace::started(&spec());
        trace.run(1, 1, 1);
        trace.run(1, 1, 2);
        assert_eq!(trace.findings(&["I4"]), ["I4/two-containers-of-a-task"]);
    }

    #[test]
    fn two_writers_fail_unless_the_volume_is_shared() {
        let mut trace = Trace::started(&spec());
        for id in [1, 2] {
            trace.create(1, id, 1, &["data"]);
            trace.start(1, id, 1);
        }
        assert_eq!(trace.findings(&["I4"]), ["I4/two-writers-of-a-volume"]);
        let mut plan = crate::testing::plan(&["I4"]);
        plan.cluster.shared_volumes = vec!["data".into()];
        assert!(trace.fingerprints(&plan).is_empty());
    }
}
