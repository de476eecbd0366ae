//! I13: every failure says why, and nothing is called a success that was none.
//!
//! Breaches, in agents' transitions and in the store: "failure-without-reason": failed, rejected,
//! lost or backing off without a reason; "success-without-zero": complete without a known exit
//! code of zero; "reason-contradicts-exit": a non-zero exit is the stated reason, and the exit is
//! zero (or the other way round). In agents' transitions also "running-never-started": an instance
//! is called running whose process never started. For clients "deploy-not-recorded": a client is
//! told that its service is deployed, and the store has no such service.
//!
//! Exemptions: a service may have been deleted by anyone who asked for it before the deployment
//! was answered. Tasks that managers have forgotten are not judged for what truly ran.

use std::collections::{BTreeMap, BTreeSet};

use wavetank_model::{
    InstanceId, NodeId, Notice, Operation, Reason, RequestId, ServiceName, TaskId, TaskState,
    TaskStatus,
};
use wavetank_port::ExitCode;
use wavetank_trace::{Event, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};

const ID: &str = "I13";

/// See the file's header.
#[derive(Default)]
pub struct NoSilentSuccess {
    deploys: BTreeMap<RequestId, ServiceName>,
    deleted: BTreeSet<ServiceName>,
}

impl Checker for NoSilentSuccess {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        match &event.payload {
            Payload::Notice {
                notice:
                    Notice::TaskMoved {
                        task, from, status, ..
                    },
            } => {
                if let Some(host) = event.host {
                    check_status(event, *task, status, report);
                    check_started(event, host, *task, *from, status, report);
                }
            }
            Payload::Notice {
                notice: Notice::Applied { .. },
            } => {
                let changed = |step: &&crate::model::TaskStep| {
                    step.before
                        .as_ref()
                        .is_none_or(|task| task.status != step.after.status)
                };
                let steps = report.model.store.steps().iter().filter(changed);
                let statuses: Vec<_> = steps
                    .map(|step| (step.task, step.after.status.clone()))
                    .collect();
                for (task, status) in statuses {
                    check_status(event, task, &status, report);
                }
            }
            Payload::ClientInvoked { request, operation } => self.invoked(*request, operation),
            Payload::ClientReturned { request, result } => {
                self.returned(event, *request, result.is_ok(), report);
            }
            _ => {}
        }
    }

    fn finish(&mut self, _end: VirtualTime, _report: &mut Report) {}
}

impl NoSilentSuccess {
    fn invoked(&mut self, request: RequestId, operation: &Operation) {
        match operation {
            Operation::Deploy { spec } => {
                self.deploys.insert(request, spec.name.clone());
            }
            Operation::Delete { service } => {
                self.deleted.insert(service.clone());
            }
            _ => {}
        }
    }

    fn returned(&mut self, event: &Event, request: RequestId, ok: bool, report: &mut Report) {
        let Some(name) = self.deploys.remove(&request).filter(|_| ok) else {
            return;
        };
        let known = report.model.store.services.contains_key(&name);
        if !known && !self.deleted.contains(&name) {
            let cause = format!("a client was told that {name} is deployed, and it is not");
            add(event, "deploy-not-recorded", cause, report);
        }
    }
}

fn add(event: &Event, kind: &str, cause: String, report: &mut Report) {
    let witnesses = vec![event.id];
    report.findings.add(Breach {
        checker: ID,
        kind,
        cause,
        at: event.at,
        witnesses,
    });
}

fn check_status(event: &Event, task: TaskId, status: &TaskStatus, report: &mut Report) {
    let needs_reason = matches!(
        status.state,
        TaskState::Failed | TaskState::Rejected | TaskState::Backoff | TaskState::Lost
    );
    if needs_reason && status.reason.is_none() {
        let cause = format!("{task} is {} without a reason", status.state);
        add(event, "failure-without-reason", cause, report);
    }
    let code = status.exit.map(|exit| exit.code);
    if status.state == TaskState::Complete && code != Some(ExitCode::Known(0)) {
        let exit = code.map_or("no exit".to_owned(), |code| format!("exit code {code}"));
        add(
            event,
            "success-without-zero",
            format!("{task} is complete with {exit}"),
            report,
        );
    }
    let contradicts = match (needs_reason.then_some(status.reason).flatten(), code) {
        (Some(Reason::ExitedNonZero), Some(code)) => code == ExitCode::Known(0),
        (Some(Reason::ExitedEarly), Some(ExitCode::Known(code))) => code != 0,
        _ => false,
    };
    if contradicts {
        let reason = status.reason.map_or("", Reason::name);
        let cause = format!("{task} is {} for {reason} with another exit", status.state);
        add(event, "reason-contradicts-exit", cause, report);
    }
}

fn check_started(
    event: &Event,
    host: NodeId,
    task: TaskId,
    from: TaskState,
    status: &TaskStatus,
    report: &mut Report,
) {
    let model = &report.model;
    let judged = status.state == TaskState::Running
        && from != TaskState::Running
        && model.store.tasks.contains_key(&task);
    let id = InstanceId {
        task,
        attempt: status.attempt,
    };
    let found = model.containers.find(host, id);
    if judged && found.is_none_or(|instance| instance.started_at.is_none()) {
        let cause = format!("{id} is called running, and its process never started");
        add(event, "running-never-started", cause, report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, exit, failed, spec, status};
    use wavetank_model::Outcome;

    #[test]
    fn honest_ends_pass() {
        let mut trace = Trace::started(&spec());
        let one = trace.up(1, 1);
        let two = trace.up(2, 1);
        let complete = TaskStatus {
            exit: Some(exit(0)),
            ..status(TaskState::Complete, 1, 6)
        };
        trace.reported(1, &one, TaskState::Running, complete);
        let ended = failed(Reason::ExitedNonZero, Some(exit(3)), 1, 6);
        trace.reported(1, &two, TaskState::Running, ended);
        assert_eq!(trace.findings(&["I13"]), Vec::<String>::new());
    }

    #[test]
    fn dishonest_ends_fail() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.moved(1, 1, TaskState::Running, status(TaskState::Failed, 1, 6));
        let complete = TaskStatus {
            exit: Some(exit(3)),
            ..status(TaskState::Complete, 1, 6)
        };
        trace.moved(1, 1, TaskState::Running, complete);
        let ended = failed(Reason::ExitedNonZero, Some(exit(0)), 1, 6);
        trace.moved(1, 1, TaskState::Running, ended);
        let found = trace.findings(&["I13"]);
        let expected = [
            "I13/failure-without-reason",
            "I13/success-without-zero",
            "I13/reason-contradicts-exit",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn running_without_a_process_fails() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.create(1, 1, 2, &[]);
        trace.moved(1, 1, TaskState::Starting, status(TaskState::Running, 2, 9));
        assert_eq!(trace.findings(&["I13"]), ["I13/running-never-started"]);
    }

    #[test]
    fn a_deployment_that_is_not_there_fails() {
        let mut trace = Trace::started(&spec());
        let mut other = spec();
        other.name = "other".into();
        let request = trace.invoked(1, Operation::Deploy { spec: other });
        let revision = trace.apply(vec![]);
        trace.returned(request, Ok(Outcome::Done { revision }));
        assert_eq!(trace.findings(&["I13"]), ["I13/deploy-not-recorded"]);
    }
}
