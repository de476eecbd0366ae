//! Containers that carry this node's label and belong to no current attempt of a task: they are
//! stopped with their grace and removed.
//!
//! How they come about: a create that was given up took effect later, a task was forgotten, a disk
//! was lost. A listing that names one is only a hint, and it is looked at before it is touched.
//! Must not be used before the agent knows what it should have (see `Agent::compare`).

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{InstanceId, Instant, NodeId, Notice, Reason, TaskId, Timers};
use wavetank_port::{ContainerId, RuntimeCommand, RuntimeError, RuntimeReply};

use super::calls::{Caller, Calls, Verb};
use super::observe::{Container, Handle, LABEL_GRACE, LABEL_NODE};
use super::stop;
use crate::process::Context;

/// Grace of a container that does not say what it is due: what Docker gives by default.
const GRACE_DEFAULT: Duration = Duration::from_secs(10);

/// One such container.
#[derive(Clone, Debug, PartialEq)]
struct Orphan {
    handle: Handle,
    grace: Duration,
    announced: bool,
    wake_at: Instant,
}

/// All such containers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Orphans {
    orphans: BTreeMap<ContainerId, Orphan>,
}

impl Orphans {
    pub fn next_deadline(&self) -> Instant {
        let wake_at = |orphan: &Orphan| orphan.wake_at;
        self.orphans
            .values()
            .map(wake_at)
            .min()
            .unwrap_or(Instant::NEVER)
    }

    /// True if a container of another attempt of this task is still on its way out.
    pub fn has(&self, task: TaskId) -> bool {
        let is_of = |id| InstanceId::of_container(id).is_some_and(|found| found.task == task);
        !self.orphans.is_empty() && self.orphans.keys().any(is_of)
    }

    /// A listing named a container that nobody owns.
    pub fn note(&mut self, ctx: &mut Context<'_>, id: &ContainerId) {
        self.orphans.entry(id.clone()).or_insert_with(|| Orphan {
            handle: Handle::new(Container::Unknown),
            grace: GRACE_DEFAULT,
            announced: false,
            wake_at: ctx.now(),
        });
    }

    /// Gives up calls that took too long and does what is due. Returns tasks that have one orphan
    /// less.
    pub fn handle_timer(
        &mut self,
        ctx: &mut Context<'_>,
        calls: &mut Calls,
        timers: &Timers,
    ) -> Vec<TaskId> {
        let now = ctx.now();
        let due = |orphan: &Orphan| orphan.wake_at <= now;
        let due: Vec<ContainerId> = self
            .orphans
            .iter()
            .filter(|(_, o)| due(o))
            .map(|(id, _)| id.clone())
            .collect();
        let mut freed = Vec::new();
        for id in due {
            if let Some(orphan) = self.orphans.get_mut(&id)
                && let Some(flight) = orphan.handle.flight
                && flight.deadline <= now
            {
                orphan.handle.abandon(calls);
                orphan.handle.handle_timeout(ctx, timers, flight.verb);
            }
            freed.extend(self.drive(ctx, calls, timers, &id));
        }
        freed
    }

    /// A call was answered. Returns the task that has one orphan less.
    pub fn handle_reply(
        &mut self,
        ctx: &mut Context<'_>,
        calls: &mut Calls,
        (node, timers): (NodeId, &Timers),
        id: &ContainerId,
        result: &Result<RuntimeReply, RuntimeError>,
    ) -> Option<TaskId> {
        let orphan = self.orphans.get_mut(id)?;
        let flight = orphan.handle.flight.take()?;
        match flight.verb {
            Verb::Inspect => orphan.handle_inspected(ctx, timers, node, result),
            Verb::Stop => orphan.handle.handle_stopped(ctx, timers, result),
            Verb::Delete { .. } => {
                orphan.handle.handle_deleted(ctx, timers, result);
                if result.is_ok() {
                    ctx.notice(Notice::OrphanRemoved {
                        container: id.clone(),
                    });
                }
            }
            Verb::Create | Verb::Start | Verb::Probe => {}
        }
        self.drive(ctx, calls, timers, id)
    }

    /// Does the next step with one orphan, and forgets it once it is gone.
    fn drive(
        &mut self,
        ctx: &mut Context<'_>,
        calls: &mut Calls,
        timers: &Timers,
        id: &ContainerId,
    ) -> Option<TaskId> {
        let orphan = self.orphans.get_mut(id)?;
        if let Some(flight) = orphan.handle.flight {
            orphan.wake_at = flight.deadline;
            return None;
        }
        let step = stop::next_step(
            &orphan.handle,
            orphan.grace,
            timers.runtime_timeout,
            ctx.now(),
        );
        match step {
            None => {
                self.orphans.remove(id);
                InstanceId::of_container(id).map(|instance| instance.task)
            }
            Some((_, not_before)) if not_before > ctx.now() => {
                orphan.wake_at = not_before;
                None
            }
            Some((verb, _)) => {
                orphan.call(ctx, calls, timers, id, verb);
                None
            }
        }
    }
}

impl Orphan {
    /// A container that is not labelled as this node's is none of its business.
    fn handle_inspected(
        &mut self,
        ctx: &mut Context<'_>,
        timers: &Timers,
        node: NodeId,
        result: &Result<RuntimeReply, RuntimeError>,
    ) {
        if let Ok(RuntimeReply::State { container }) = result {
            if container.labels.get(LABEL_NODE) != Some(&node.to_string()) {
                return self.handle.observe(Container::Absent);
            }
            let grace = container
                .labels
                .get(LABEL_GRACE)
                .and_then(|text| text.parse().ok());
            self.grace = grace.map_or(GRACE_DEFAULT, Duration::from_millis);
        }
        self.handle.handle_inspected(ctx, timers, result);
    }

    fn call(
        &mut self,
        ctx: &mut Context<'_>,
        calls: &mut Calls,
        timers: &Timers,
        id: &ContainerId,
        verb: Verb,
    ) {
        let mut patience = timers.runtime_timeout;
        let command = match verb {
            Verb::Stop => {
                patience = patience.saturating_add(self.grace);
                self.announce_stop(ctx, id);
                RuntimeCommand::Stop {
                    id: id.clone(),
                    grace: self.grace,
                }
            }
            Verb::Delete { force } => RuntimeCommand::Delete {
                id: id.clone(),
                force,
            },
            _ => RuntimeCommand::Inspect { id: id.clone() },
        };
        let call = calls.open(Caller::Orphan(id.clone()));
        self.handle.call(ctx, call, verb, command, patience);
        self.wake_at = ctx.now() + patience;
    }

    fn announce_stop(&mut self, ctx: &mut Context<'_>, id: &ContainerId) {
        self.handle.asked_to_stop_at.get_or_insert(ctx.now());
        let instance = InstanceId::of_container(id).filter(|_| !self.announced);
        if let Some(instance) = instance {
            self.announced = true;
            let (grace, reason) = (self.grace, Reason::TerminatedByOperator);
            ctx.notice(Notice::StopRequested {
                instance,
                grace,
                reason,
            });
        }
    }
}
