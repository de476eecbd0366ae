//! I7: stopping is safe to repeat, what is gone counts as stopped, and a stop has an effect.
//!
//! Breach "stop-reported-as-failure": an instance that its agent was told to stop ends as failed
//! or rejected, although its process ended because of the stop, or was gone already. Breach
//! "restarted-after-stop": it begins to wait for another attempt instead. Breach
//! "stop-without-effect": at the end its process still runs, longer after the request than grace
//! and unanswered calls explain.
//!
//! Exemptions: an unhealthy instance is stopped in order to fail or to be restarted. A process
//! that ended by itself, by a fault, for memory or by a power loss may be reported as such even
//! if the stop was asked for first: the two race. A start or create that truly fails may be
//! reported as such until the task is stopping. Agents that were disturbed need not have finished.

use std::time::Duration;

use wavetank_model::{InstanceId, NodeId, Notice, Reason, TaskState, TaskStatus};
use wavetank_trace::{Event, ExitCause, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::{Instance, Model};

const ID: &str = "I7";

/// See the file's header.
#[derive(Default)]
pub struct IdempotentStop;

impl Checker for IdempotentStop {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        let (
            Payload::Notice {
                notice:
                    Notice::TaskMoved {
                        task, from, status, ..
                    },
            },
            Some(host),
        ) = (&event.payload, event.host)
        else {
            return;
        };
        let id = InstanceId {
            task: *task,
            attempt: status.attempt,
        };
        let Some(stop) = report.model.agents.stop(host, id).copied() else {
            return;
        };
        if stop.reason == Reason::HealthcheckFailed {
            return;
        }
        let Some((kind, what)) = wrong_end(&report.model, host, id, *from, status) else {
            return;
        };
        report.findings.add(Breach {
            checker: ID,
            kind,
            cause: format!("{id} was told to stop ({}) and {what}", stop.reason),
            at: event.at,
            witnesses: vec![stop.event, event.id],
        });
    }

    fn finish(&mut self, end: VirtualTime, report: &mut Report) {
        let mut found = Vec::new();
        for instance in report
            .model
            .containers
            .all()
            .filter(|instance| instance.is_live())
        {
            let stop = report
                .model
                .agents
                .stop(instance.host, instance.id)
                .copied();
            let Some(stop) = stop.filter(|stop| stop.reason != Reason::HealthcheckFailed) else {
                continue;
            };
            let bound = stop.grace + slack(&report.model);
            let steady = report.model.steady_for(instance.host, bound, end);
            let quiet = !report.model.disturbance.silent_fault_in_force();
            if steady && quiet && end.since(stop.at) > bound {
                let cause = format!("{} was told to stop and still runs", instance.id);
                found.push((cause, vec![stop.event, instance.event]));
            }
        }
        for (cause, witnesses) in found {
            let kind = "stop-without-effect";
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

fn slack(model: &Model) -> Duration {
    let timers = &model.plan.cluster.timers;
    timers.runtime_timeout * 3 + timers.status_poll * 3 + Duration::from_secs(20)
}

fn wrong_end(
    model: &Model,
    host: NodeId,
    id: InstanceId,
    from: TaskState,
    status: &TaskStatus,
) -> Option<(&'static str, String)> {
    let truth = model.containers.find(host, id);
    if raced(truth) {
        return None;
    }
    let reason = status.reason.map_or("no reason", Reason::name);
    match status.state {
        TaskState::Failed | TaskState::Rejected => {
            let began = matches!(
                status.reason,
                Some(
                    Reason::ImagePullFailed
                        | Reason::RootfsBuildFailed
                        | Reason::RuntimeStartFailed
                        | Reason::NetworkSetupFailed
                        | Reason::VolumeAttachFailed
                )
            );
            let never_ran = truth.is_none_or(|instance| instance.started_at.is_none());
            let excused = began && never_ran && from != TaskState::Stopping;
            (!excused).then(|| {
                (
                    "stop-reported-as-failure",
                    format!("is called failed: {reason}"),
                )
            })
        }
        TaskState::Backoff if truth.is_some_and(|instance| instance.started_at.is_some()) => {
            Some((
                "restarted-after-stop",
                format!("waits to be restarted: {reason}"),
            ))
        }
        _ => None,
    }
}

/// Its process did not end because of the stop.
fn raced(truth: Option<&Instance>) -> bool {
    let Some(instance) = truth else { return false };
    instance.forgotten
        || instance
            .end
            .is_some_and(|end| !matches!(end.because, ExitCause::Terminated | ExitCause::Killed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, exit, failed, spec, status};

    fn stopped(because: ExitCause, end: TaskStatus) -> Trace {
        let mut trace = Trace::started(&spec());
        let task = trace.up(1, 1);
        trace.stop_requested(1, 1, 1, Reason::TerminatedByOperator);
        trace.reported(
            1,
            &task,
            TaskState::Running,
            status(TaskState::Stopping, 1, 6),
        );
        trace.exited(1, 1, 1, exit(143), because);
        trace.reported(1, &task, TaskState::Stopping, end);
        trace.end();
        trace
    }

    #[test]
    fn a_stop_ends_as_shutdown() {
        let trace = stopped(ExitCause::Terminated, status(TaskState::Shutdown, 1, 7));
        assert_eq!(trace.findings(&["I7"]), Vec::<String>::new());
    }

    #[test]
    fn a_stop_that_is_called_a_failure_fails() {
        let end = failed(Reason::ContainerLost, None, 1, 7);
        let trace = stopped(ExitCause::Terminated, end.clone());
        assert_eq!(trace.findings(&["I7"]), ["I7/stop-reported-as-failure"]);
        assert!(stopped(ExitCause::Itself, end).findings(&["I7"]).is_empty());
    }

    #[test]
    fn a_stop_without_effect_fails() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.stop_requested(1, 1, 1, Reason::TerminatedByOperator);
        trace.end();
        assert_eq!(trace.findings(&["I7"]), ["I7/stop-without-effect"]);
    }
}
