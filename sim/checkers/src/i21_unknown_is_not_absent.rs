//! I21: an observation that failed means "unknown", never "absent", and destroys nothing.
//!
//! Breaches:
//! - "lost-though-present": an agent says that a task's container is lost, and it is there;
//! - "recreated-though-running": an agent creates an instance while an earlier one of the same
//!   task truly runs on its node;
//! - "destroyed-while-blind": after a failed or short listing, and without having said that it
//!   stops the instance, an agent stops, kills or deletes a running container that managers want;
//! - "unhealthy-though-healthy": an instance is stopped or failed as unhealthy although its probe
//!   has truly been healthy for as long as that many verdicts take (a probe that could not run is
//!   no verdict).
//!
//! Exemptions: a container that never came into being, or was deleted (a daemon that lost its
//! records, a power loss), may be called lost whatever the reason. Containers of other nodes
//! and those that no agent ordered do not count. Paused machines see their probes late: health is
//! judged only on nodes that were undisturbed meanwhile.

use wavetank_model::{InstanceId, NodeId, Notice, Reason, TaskStatus};
use wavetank_port::ContainerId;
use wavetank_trace::{Event, EventId, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::{Instance, Model};

const ID: &str = "I21";

/// See the file's header.
#[derive(Default)]
pub struct UnknownIsNotAbsent;

type Wrong = (&'static str, String, Option<EventId>);

impl Checker for UnknownIsNotAbsent {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        let Some(host) = event.host else { return };
        let model = &report.model;
        let found = match &event.payload {
            Payload::Notice {
                notice: Notice::TaskMoved { task, status, .. },
            } => {
                let id = InstanceId {
                    task: *task,
                    attempt: status.attempt,
                };
                moved(model, event, host, id, status)
            }
            Payload::Notice {
                notice:
                    Notice::StopRequested {
                        instance,
                        reason: Reason::HealthcheckFailed,
                        ..
                    },
            } => healthy(model, event, host, *instance),
            Payload::RuntimeCalled {
                call,
                container: Some(container),
                ..
            } => called(model, host, call, container),
            _ => None,
        };
        let Some((kind, cause, witness)) = found else {
            return;
        };
        let witnesses = witness.into_iter().chain([event.id]).collect();
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

fn moved(
    model: &Model,
    event: &Event,
    host: NodeId,
    id: InstanceId,
    status: &TaskStatus,
) -> Option<Wrong> {
    match status.reason? {
        Reason::ContainerLost => {
            let instance = model
                .containers
                .find(host, id)
                .filter(|found| found.exists())?;
            let cause = format!("{host} calls the container of {id} lost, and it is there");
            Some(("lost-though-present", cause, Some(instance.event)))
        }
        Reason::HealthcheckFailed => healthy(model, event, host, id),
        _ => None,
    }
}

fn healthy(model: &Model, event: &Event, host: NodeId, id: InstanceId) -> Option<Wrong> {
    let instance = model
        .containers
        .find(host, id)
        .filter(|found| found.is_live())?;
    let task = model.store.tasks.get(&id.task)?;
    let check = model.store.spec_of(task)?.health.as_ref()?;
    let since = instance.healthy_since?;
    let verdicts = check.failures_max.max(1) + 1;
    let enough = (check.interval + check.timeout) * verdicts
        + model.plan.cluster.timers.runtime_timeout
        + model.plan.cluster.event_delay_max();
    let judged = event.at.since(since) > enough && model.steady_for(host, enough, event.at);
    let cause = format!("{id} is called unhealthy; its probe has been healthy since {since}");
    judged.then_some(("unhealthy-though-healthy", cause, Some(instance.event)))
}

fn called(model: &Model, host: NodeId, call: &str, container: &ContainerId) -> Option<Wrong> {
    let id = InstanceId::of_container(container)?;
    match call {
        "create" => {
            let earlier = |other: &&Instance| {
                other.host == host && other.ordered && other.is_live() && other.id != id
            };
            let other = model.containers.of_task(id.task).iter().find(earlier)?;
            let cause = format!("{host} creates {id} while {} runs", other.id);
            Some(("recreated-though-running", cause, Some(other.event)))
        }
        "stop" | "kill" | "delete" => {
            let agent = model.agents.get(host)?;
            let blind = agent.blind?;
            let running = model
                .containers
                .find(host, id)
                .is_some_and(Instance::is_live);
            let current = agent
                .tasks
                .get(&id.task)
                .is_some_and(|said| said.attempt == id.attempt);
            let wrong = running
                && current
                && model.is_wanted(id.task, host)
                && !agent.stops.contains_key(&id);
            let cause = format!("{host} lets go of {id} ({call}) after it could not look");
            wrong.then_some(("destroyed-while-blind", cause, Some(blind)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, container, exit, failed, seconds, spec};
    use wavetank_model::{HealthCheck, TaskState};
    use wavetank_trace::ExitCause;

    #[test]
    fn a_container_that_is_gone_may_be_lost() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.exited(1, 1, 1, exit(1), ExitCause::Fault);
        trace.deleted(1, 1, 1);
        trace.listed(1, 0);
        let lost = failed(Reason::ContainerLost, None, 1, 6);
        trace.moved(1, 1, TaskState::Running, lost);
        trace.run(1, 1, 2);
        assert_eq!(trace.findings(&["I21"]), Vec::<String>::new());
    }

    #[test]
    fn a_container_that_is_there_is_not_lost() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.listed(1, 0);
        let lost = failed(Reason::ContainerLost, None, 1, 6);
        trace.moved(1, 1, TaskState::Running, lost);
        trace.create(1, 1, 2, &[]);
        let found = trace.findings(&["I21"]);
        assert_eq!(
            found,
            ["I21/lost-though-present", "I21/recreated-though-running"]
        );
    }

    #[test]
    fn letting_go_after_an_empty_listing_fails() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.called(1, "stop", &container(1, 1));
        assert_eq!(trace.findings(&["I21"]), Vec::<String>::new());
        trace.listed(1, 0);
        trace.called(1, "delete", &container(1, 1));
        assert_eq!(trace.findings(&["I21"]), ["I21/destroyed-while-blind"]);
    }

    #[test]
    fn a_healthy_instance_that_is_called_unhealthy_fails() {
        let mut probed = spec();
        let (interval, timeout) = (seconds(2), seconds(1));
        probed.health = Some(HealthCheck {
            command: Vec::new(),
            interval,
            timeout,
            start_period: seconds(0),
            failures_max: 3,
        });
        let mut trace = Trace::started(&probed);
        trace.up(1, 1);
        let (health, agent) = (container(1, 1), Some(NodeId::agent(1)));
        trace.push(
            agent,
            Payload::ContainerHealth {
                container: health,
                healthy: true,
            },
        );
        trace.after(seconds(15));
        trace.stop_requested(1, 1, 1, Reason::HealthcheckFailed);
        assert_eq!(trace.findings(&["I21"]), Vec::<String>::new());
        trace.after(seconds(30));
        trace.stop_requested(1, 1, 1, Reason::HealthcheckFailed);
        assert_eq!(trace.findings(&["I21"]), ["I21/unhealthy-though-healthy"]);
    }
}
