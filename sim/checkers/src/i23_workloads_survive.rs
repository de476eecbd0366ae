//! I23: trouble of the managers, or of the way to them, never stops a running container.
//!
//! Breach "stopped-without-cause": an agent asks an instance to stop though managers want its
//! task to run there: the store has no wish to stop it, has not given it up and has not removed
//! it. Breach "ended-without-request": a process is sent SIGTERM or SIGKILL under the same
//! circumstances, and its agent, which calls it running, never said that it would stop it.
//!
//! Every justification is in the store before an agent can have heard of it, so no fault excuses
//! a breach. Exemptions: causes of the agent's own (an unhealthy instance, a start that failed),
//! and instances of an attempt that is over.

use wavetank_model::{InstanceId, NodeId, Notice, Reason, TaskState};
use wavetank_port::Signal;
use wavetank_trace::{Event, EventId, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::Model;

const ID: &str = "I23";

/// See the file's header.
#[derive(Default)]
pub struct WorkloadsSurvive;

impl Checker for WorkloadsSurvive {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        let Some(host) = event.host else { return };
        let model = &report.model;
        let (id, kind, what) = match &event.payload {
            Payload::Notice {
                notice:
                    Notice::StopRequested {
                        instance, reason, ..
                    },
            } => {
                let from_managers = matches!(
                    reason,
                    Reason::TerminatedByOperator
                        | Reason::NodeDraining
                        | Reason::NodeDown
                        | Reason::Superseded
                        | Reason::Unschedulable
                );
                if !from_managers || !is_running(model, host, *instance) {
                    return;
                }
                (
                    *instance,
                    "stopped-without-cause",
                    format!("is stopped ({reason})"),
                )
            }
            Payload::ContainerSignalled { container, signal } => {
                let ends = matches!(signal, Signal::Terminate | Signal::Kill);
                let Some(id) = InstanceId::of_container(container).filter(|_| ends) else {
                    return;
                };
                let said = model.agents.stop(host, id).is_some();
                if said || !is_called_running(model, host, id) {
                    return;
                }
                (id, "ended-without-request", format!("is sent {signal:?}"))
            }
            _ => return,
        };
        if !model.is_wanted(id.task, host) {
            return;
        }
        let wish = model.store.tasks.get(&id.task).map(|task| task.event);
        let cause = format!("{id} {what} on {host}, and the managers want it to run");
        add(event, kind, cause, wish, report);
    }

    fn finish(&mut self, _end: VirtualTime, _report: &mut Report) {}
}

fn add(event: &Event, kind: &str, cause: String, wish: Option<EventId>, report: &mut Report) {
    let witnesses = wish.into_iter().chain([event.id]).collect();
    report.findings.add(Breach {
        checker: ID,
        kind,
        cause,
        at: event.at,
        witnesses,
    });
}

/// Its process truly runs, and no later attempt is known.
fn is_running(model: &Model, host: NodeId, id: InstanceId) -> bool {
    let live = model
        .containers
        .find(host, id)
        .is_some_and(|instance| instance.is_live());
    let said = model.agents.task(host, id.task);
    live && said.is_none_or(|status| status.attempt == id.attempt)
}

/// Its agent knows of it as the task's running instance.
fn is_called_running(model: &Model, host: NodeId, id: InstanceId) -> bool {
    model
        .agents
        .task(host, id.task)
        .is_some_and(|status| status.state == TaskState::Running && status.attempt == id.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, spec, status};
    use wavetank_model::DesiredState;

    #[test]
    fn a_stop_that_managers_wish_passes() {
        let mut trace = Trace::started(&spec());
        let task = trace.up(1, 1).desired(DesiredState::Shutdown);
        let running = status(TaskState::Running, 1, 5);
        trace.apply(vec![task.change(Some(TaskState::Running), running)]);
        trace.stop_requested(1, 1, 1, Reason::Superseded);
        trace.signal(1, 1, 1, Signal::Terminate);
        assert_eq!(trace.findings(&["I23"]), Vec::<String>::new());
    }

    #[test]
    fn an_unhealthy_instance_may_be_stopped() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.stop_requested(1, 1, 1, Reason::HealthcheckFailed);
        trace.signal(1, 1, 1, Signal::Terminate);
        assert_eq!(trace.findings(&["I23"]), Vec::<String>::new());
    }

    #[test]
    fn a_stop_that_nobody_wished_fails() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.signal(1, 1, 1, Signal::Kill);
        trace.stop_requested(1, 1, 1, Reason::NodeDown);
        let found = trace.findings(&["I23"]);
        assert_eq!(
            found,
            ["I23/ended-without-request", "I23/stopped-without-cause"]
        );
    }
}
