//! I10: what an operator stopped stays stopped until an operator starts it.
//!
//! Breaches:
//! - "stop-not-recorded": a client is told that a service is stopped, and the store has it going;
//! - "stop-undone": the store's stop is taken back though no operator asked for that;
//! - "task-created-while-stopped": managers write down a new task for a stopped service;
//! - "started-after-stop-was-heard": an agent asks its runtime to create or start an instance of a
//!   task after it has accepted assignments in which the task is to stop;
//! - "runs-though-stopped": at the end a container of a stopped service runs.
//!
//! Exemptions: requests that overlap the stop may come after it. A new task may follow a stop by
//! a moment, from a decision under way. An agent that has not heard of the stop goes on; what it
//! heard right before its process died, or before it lost its records, it may not remember. At the
//! end only nodes count that were undisturbed for as long as a stop may take.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wavetank_model::{Change, DesiredState, InstanceId, NodeId, Operation, RequestId, ServiceName};
use wavetank_port::ContainerId;
use wavetank_trace::{Event, EventId, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::{Instance, Model};

const ID: &str = "I10";

/// A decision under way when the stop was applied is applied no later than this.
const UNDER_WAY: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Service {
    /// Requests that may set it going and have not been answered.
    starting: BTreeSet<RequestId>,
    /// Stops that have not been answered, and whether a start may come after them.
    stopping: BTreeMap<RequestId, bool>,
    /// A start may have come after the newest stop.
    may_run: bool,
    stopped: Option<(VirtualTime, EventId)>,
}

/// See the file's header.
#[derive(Default)]
pub struct StaysStopped {
    services: BTreeMap<ServiceName, Service>,
}

impl Checker for StaysStopped {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        match (&event.payload, event.host) {
            (Payload::ClientInvoked { request, operation }, _) => self.invoked(*request, operation),
            (Payload::ClientReturned { request, result }, _) => {
                self.returned(event, *request, result.is_ok(), report);
            }
            (Payload::Notice { .. }, _) => self.applied(event, report),
            (
                Payload::RuntimeCalled {
                    call,
                    container: Some(container),
                    ..
                },
                Some(host),
            ) if matches!(call.as_str(), "create" | "start") => {
                called(event, host, container, report);
            }
            _ => {}
        }
    }

    fn finish(&mut self, end: VirtualTime, report: &mut Report) {
        let found: Vec<_> = report
            .model
            .containers
            .all()
            .filter(|instance| instance.is_live())
            .filter_map(|instance| runs_though_stopped(&report.model, instance, end))
            .collect();
        for (cause, witnesses) in found {
            let kind = "runs-though-stopped";
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

impl StaysStopped {
    fn invoked(&mut self, request: RequestId, operation: &Operation) {
        match operation {
            Operation::Start { service } | Operation::Rollback { service } => {
                self.starts(service, request);
            }
            Operation::Deploy { spec } => self.starts(&spec.name, request),
            Operation::Stop { service } => {
                let service = self.services.entry(service.clone()).or_default();
                service.may_run = !service.starting.is_empty();
                let may_run = service.may_run;
                service.stopping.insert(request, may_run);
            }
            _ => {}
        }
    }

    fn starts(&mut self, name: &ServiceName, request: RequestId) {
        let service = self.services.entry(name.clone()).or_default();
        service.starting.insert(request);
        service.may_run = true;
        service
            .stopping
            .values_mut()
            .for_each(|may_run| *may_run = true);
    }

    fn returned(&mut self, event: &Event, request: RequestId, ok: bool, report: &mut Report) {
        for (name, service) in &mut self.services {
            service.starting.remove(&request);
            let Some(may_run) = service.stopping.remove(&request) else {
                continue;
            };
            let record = report.model.store.services.get(name);
            let goes = record.filter(|record| !record.stopped && !record.deleting);
            if let Some(record) = goes.filter(|_| ok && !may_run) {
                report.findings.add(Breach {
                    checker: ID,
                    kind: "stop-not-recorded",
                    cause: format!("a client was told that {name} is stopped, and it is not"),
                    at: event.at,
                    witnesses: vec![record.event, event.id],
                });
            }
        }
    }

    fn applied(&mut self, event: &Event, report: &mut Report) {
        let mut found = Vec::new();
        for change in report.model.store.fresh_changes(event) {
            match change {
                Change::Service { spec, stopped, .. } => {
                    let service = self.services.entry(spec.name.clone()).or_default();
                    if *stopped {
                        service.stopped.get_or_insert((event.at, event.id));
                    } else if let Some((_, witness)) = service.stopped.take()
                        && !service.may_run
                    {
                        let cause = format!("{} goes again, and nobody asked for it", spec.name);
                        found.push(("stop-undone", cause, witness));
                    }
                }
                Change::ServiceRemoved { service } => {
                    if let Some(service) = self.services.get_mut(service) {
                        service.stopped = None;
                    }
                }
                _ => {}
            }
        }
        for step in report
            .model
            .store
            .steps()
            .iter()
            .filter(|step| step.before.is_none())
        {
            let service = self.services.get(&step.after.service);
            let Some((at, witness)) = service.and_then(|service| service.stopped) else {
                continue;
            };
            if event.at.since(at) > UNDER_WAY && step.after.is_wanted() {
                let cause = format!("{} is stopped and gets {}", step.after.service, step.task);
                found.push(("task-created-while-stopped", cause, witness));
            }
        }
        for (kind, cause, witness) in found {
            let witnesses = vec![witness, event.id];
            report.findings.add(Breach {
                checker: ID,
                kind,
                cause,
                at: event.at,
                witnesses,
            });
        }
    }
}

fn called(event: &Event, host: NodeId, container: &ContainerId, report: &mut Report) {
    let Some(id) = InstanceId::of_container(container) else {
        return;
    };
    let model = &report.model;
    let Some(task) = model.store.tasks.get(&id.task) else {
        return;
    };
    let Some(heard) = model.agents.get(host).and_then(|agent| agent.heard) else {
        return;
    };
    let (_, revision) = task.desired_since;
    let forgot = model
        .disturbance
        .forgot_at(host)
        .is_some_and(|forgot| forgot >= heard.at);
    let to_stop = task.desired > DesiredState::Running && heard.revision >= revision;
    if !to_stop || forgot || task.node != Some(host) || heard.at >= event.at {
        return;
    }
    let cause = format!("{host} starts {id} though it has heard that it is to stop");
    report.findings.add(Breach {
        checker: ID,
        kind: "started-after-stop-was-heard",
        cause,
        at: event.at,
        witnesses: vec![heard.event, event.id],
    });
}

fn runs_though_stopped(
    model: &Model,
    instance: &Instance,
    end: VirtualTime,
) -> Option<(String, Vec<EventId>)> {
    let task = model.store.tasks.get(&instance.id.task)?;
    let service = model
        .store
        .services
        .get(&task.service)
        .filter(|service| service.stopped)?;
    let timers = &model.plan.cluster.timers;
    let bound = service.spec.stop_grace
        + timers.session_timeout
        + timers.runtime_timeout * 3
        + timers.status_poll * 3
        + Duration::from_secs(20);
    let owed = end.since(service.changed_at) > bound
        && model.steady_for(instance.host, bound, end)
        && model.control_steady_for(bound, end)
        && !model.disturbance.silent_fault_in_force();
    let cause = format!("{} is stopped, and {} runs", task.service, instance.id);
    owed.then(|| (cause, vec![service.event, instance.event]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, seconds, spec, status, stopped, task};
    use wavetank_model::{Outcome, Revision, TaskState, TaskStatus};

    fn operate(trace: &mut Trace, operation: Operation, change: Option<Change>) {
        let request = trace.invoked(1, operation);
        let revision = trace.apply(change.into_iter().collect());
        trace.returned(request, Ok(Outcome::Done { revision }));
    }

    fn stop(trace: &mut Trace) {
        let service = "web".into();
        operate(
            trace,
            Operation::Stop { service },
            Some(stopped(&spec(), true)),
        );
    }

    #[test]
    fn stop_and_start_pass() {
        let mut trace = Trace::started(&spec());
        let known = trace.up(1, 1).desired(DesiredState::Shutdown);
        stop(&mut trace);
        let running = status(TaskState::Running, 1, 5);
        let revision = trace.apply(vec![known.change(Some(TaskState::Running), running)]);
        trace.after(seconds(1)).accepted(1, revision);
        let service = "web".into();
        operate(
            &mut trace,
            Operation::Start { service },
            Some(stopped(&spec(), false)),
        );
        trace.after(seconds(10)).up(2, 2);
        assert_eq!(trace.findings(&["I10"]), Vec::<String>::new());
    }

    #[test]
    fn a_stop_that_is_not_in_the_store_fails() {
        let mut trace = Trace::started(&spec());
        operate(
            &mut trace,
            Operation::Stop {
                service: "web".into(),
            },
            None,
        );
        assert_eq!(trace.findings(&["I10"]), ["I10/stop-not-recorded"]);
    }

    #[test]
    fn a_stop_that_is_taken_back_fails() {
        let mut trace = Trace::started(&spec());
        stop(&mut trace);
        trace.apply(vec![stopped(&spec(), false)]);
        assert_eq!(trace.findings(&["I10"]), ["I10/stop-undone"]);
    }

    #[test]
    fn a_new_task_of_a_stopped_service_fails() {
        let mut trace = Trace::started(&spec());
        stop(&mut trace);
        trace
            .after(seconds(10))
            .apply(vec![task(1, 0).change(None, TaskStatus::pending())]);
        assert_eq!(trace.findings(&["I10"]), ["I10/task-created-while-stopped"]);
    }

    #[test]
    fn a_start_after_the_stop_was_heard_fails() {
        let mut trace = Trace::started(&spec());
        let known = trace.up(1, 1).desired(DesiredState::Shutdown);
        let running = status(TaskState::Running, 1, 5);
        let revision = trace.apply(vec![known.change(Some(TaskState::Running), running)]);
        trace.accepted(1, Revision(revision.0 - 1));
        trace.after(seconds(1)).run(1, 1, 2);
        assert!(trace.findings(&["I10"]).is_empty());
        trace.accepted(1, revision);
        trace.after(seconds(1)).run(1, 1, 3);
        assert_eq!(
            trace.findings(&["I10"]),
            ["I10/started-after-stop-was-heard"]
        );
    }

    #[test]
    fn a_stopped_service_that_runs_at_the_end_fails() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        stop(&mut trace);
        trace.end();
        assert_eq!(trace.findings(&["I10"]), ["I10/runs-though-stopped"]);
    }
}
