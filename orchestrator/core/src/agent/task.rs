//! One task of an agent: its durable record, what is tracked beside it, and its transitions.
//!
//! Every transition goes through [`Task::transition`], which numbers it, queues it for managers
//! and announces it. What to do is decided in `decide.rs` and carried out in `drive.rs`.

use wavetank_model::{
    DesiredState, InstanceId, Instant, Notice, Reason, TaskId, TaskState, TaskStatus,
};
use wavetank_port::{ContainerSpec, ExitStatus, Network};

use super::health::Health;
use super::observe::{Container, Handle, LABEL_GRACE, LABEL_NODE, LABEL_SERVICE, LABEL_TASK};
use super::recovery::DurableTask;
use crate::message::{Assignment, TaskReport};
use crate::process::Context;

/// Where a task is with its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImageNeed {
    /// Not asked for in this attempt, or found missing since.
    NotAsked,
    /// A pull is under way or will be tried again.
    Waiting,
    /// It was there a moment ago.
    Present,
}

/// What an agent keeps track of for one task and can find out anew after a restart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tracker {
    /// The current attempt's container.
    pub handle: Handle,
    /// What an event said about the exit; believed if nobody can be asked any more.
    pub hinted_exit: Option<ExitStatus>,
    pub image: ImageNeed,
    pub pull_failures: u32,
    /// Creates or starts that failed in a row, by the container's own fault.
    pub strikes: u32,
    /// What the last of them said.
    pub last_error: String,
    /// Looks in a row, far enough apart, that did not find the running container.
    pub absences: u32,
    pub absent_at: Instant,
    pub running_since: Instant,
    pub health: Health,
    pub restart_at: Instant,
    /// The task is known from before the agent started.
    pub recovered: bool,
    /// The container was not started by this boot: the first look that finds it is announced.
    pub to_adopt: bool,
}

impl Tracker {
    fn new(known: Container, now: Instant) -> Self {
        Tracker {
            handle: Handle::new(known),
            hinted_exit: None,
            image: ImageNeed::NotAsked,
            pull_failures: 0,
            strikes: 0,
            last_error: String::new(),
            absences: 0,
            absent_at: now,
            running_since: now,
            health: Health::default(),
            restart_at: now,
            recovered: false,
            to_adopt: false,
        }
    }
}

/// One task of an agent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Task {
    pub durable: DurableTask,
    pub tracker: Tracker,
    /// The durable record changed and was not persisted yet.
    pub dirty: bool,
    /// There are transitions that were never sent.
    pub has_news: bool,
    /// When it wants to be looked at again.
    pub wake_at: Instant,
    /// The last listing that named its current container.
    pub sighted_in: u64,
}

impl Task {
    /// A task that managers assigned and this disk does not know, or not as far as it was reported:
    /// a new one, or one whose record is lost. Counting on from what managers know is what keeps
    /// them from taking news for repetition; what really became of it is looked up.
    pub fn assigned(mut assignment: Assignment, now: Instant) -> Self {
        let reported = assignment.reported.take();
        let is_lost = reported.is_some();
        let status = reported.unwrap_or_else(|| TaskStatus {
            state: TaskState::Assigned,
            ..TaskStatus::pending()
        });
        let durable = DurableTask {
            assignment,
            listed: true,
            restarts: status.attempt.saturating_sub(1),
            status,
            unacknowledged: Vec::new(),
            ending: None,
            stop_requested: false,
        };
        let mut task = match is_lost {
            true => Task::recovered(durable, now),
            false => Task::tracked(durable, Tracker::new(Container::Absent, now), now),
        };
        task.dirty = true;
        task
    }

    /// A task from before the agent started. Its container is looked up, if there can be one.
    pub fn recovered(durable: DurableTask, now: Instant) -> Self {
        let known = match durable.status.state {
            _ if durable.status.attempt == 0 => Container::Absent,
            TaskState::Assigned | TaskState::Accepted | TaskState::Pulling => Container::Absent,
            // Removed already, or about to be.
            state if state.is_terminal() => Container::Missing,
            _ => Container::Unknown,
        };
        let mut tracker = Tracker::new(known, now);
        tracker.recovered = true;
        tracker.to_adopt = !durable.status.state.is_terminal();
        let policy = &durable.assignment.spec.restart;
        tracker.restart_at = now + policy.backoff.delay(durable.restarts);
        if durable.status.state == TaskState::Running {
            tracker.health = Health::begin(durable.assignment.spec.health.as_ref(), now);
        }
        Task::tracked(durable, tracker, now)
    }

    fn tracked(durable: DurableTask, tracker: Tracker, now: Instant) -> Self {
        Task {
            has_news: !durable.unacknowledged.is_empty(),
            durable,
            tracker,
            dirty: false,
            wake_at: now,
            sighted_in: 0,
        }
    }

    pub fn id(&self) -> TaskId {
        self.durable.assignment.task
    }

    pub fn state(&self) -> TaskState {
        self.durable.status.state
    }

    /// The current attempt.
    pub fn instance(&self) -> InstanceId {
        InstanceId {
            task: self.id(),
            attempt: self.durable.status.attempt,
        }
    }

    /// True while the current attempt has, or may have, a container that is wanted or is on its
    /// way out.
    pub fn is_live(&self) -> bool {
        matches!(
            self.state(),
            TaskState::Creating | TaskState::Starting | TaskState::Running | TaskState::Stopping
        )
    }

    /// True while the process runs and nobody is ending it: it may act for its service.
    pub fn is_acting(&self) -> bool {
        self.state() == TaskState::Running && self.durable.ending.is_none()
    }

    /// True if managers know more of the task than its own agent: the disk forgot.
    pub fn is_behind(&self, assignment: &Assignment) -> bool {
        let reported = assignment.reported.as_ref();
        reported.is_some_and(|reported| reported.sequence > self.durable.status.sequence)
    }

    /// What managers want now. Desired states only grow, so a stale wish changes nothing.
    pub fn want(&mut self, desired: DesiredState, reason: Option<Reason>, listed: bool) {
        let durable = &mut self.durable;
        if desired > durable.assignment.desired {
            durable.assignment.desired = desired;
            durable.assignment.reason = reason;
            self.dirty = true;
        }
        if durable.listed != listed {
            durable.listed = listed;
            self.dirty = true;
        }
    }

    /// Moves the task: `change` says how the next status differs from the current one.
    pub fn transition(&mut self, ctx: &mut Context<'_>, change: impl FnOnce(&mut TaskStatus)) {
        let before = &self.durable.status;
        let (from, attempt) = (before.state, before.attempt);
        let mut status = before.clone();
        change(&mut status);
        status.sequence += 1;
        debug_assert!(
            from.may_report(attempt, status.state, status.attempt),
            "{} may not go from {from} to {}",
            self.id(),
            status.state
        );
        self.durable.unacknowledged.push(status.clone());
        self.durable.status = status.clone();
        self.dirty = true;
        self.has_news = true;
        let service = self.durable.assignment.spec.name.clone();
        ctx.notice(Notice::TaskMoved {
            task: self.id(),
            service,
            from,
            status,
        });
    }

    /// Begins an attempt's bookkeeping anew.
    pub fn reset(&mut self, now: Instant) {
        self.tracker = Tracker::new(Container::Absent, now);
        self.durable.ending = None;
        self.durable.stop_requested = false;
        self.dirty = true;
    }

    /// What managers have not confirmed, oldest first.
    pub fn reports(&self) -> impl Iterator<Item = TaskReport> {
        let task = self.id();
        self.durable
            .unacknowledged
            .iter()
            .map(move |status| TaskReport {
                task,
                status: status.clone(),
            })
    }

    /// Managers confirmed transitions. Returns the last one that this took off the queue.
    pub fn acknowledge(&mut self, through: u64) -> Option<u64> {
        let queue = &mut self.durable.unacknowledged;
        let confirmed = queue
            .iter()
            .take_while(|status| status.sequence <= through)
            .count();
        let last = queue.drain(..confirmed).next_back()?;
        self.dirty = true;
        Some(last.sequence)
    }

    /// The container of the current attempt.
    pub fn container_spec(&self, node: wavetank_model::NodeId) -> ContainerSpec {
        let spec = &self.durable.assignment.spec;
        let labels = [
            (LABEL_NODE, node.to_string()),
            (LABEL_TASK, self.id().to_string()),
            (LABEL_SERVICE, spec.name.to_string()),
            (LABEL_GRACE, spec.stop_grace.as_millis().to_string()),
        ];
        let limit = |value: u64| (value > 0).then_some(value);
        ContainerSpec {
            id: self.instance().container_id(),
            image: spec.image.clone(),
            command: spec.command.clone(),
            environment: spec.environment.clone(),
            labels: labels
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            memory_bytes_max: limit(spec.resources.memory_bytes),
            cpu_millis_max: limit(u64::from(spec.resources.cpu_millis))
                .and_then(|value| u32::try_from(value).ok()),
            volumes: spec.volume.iter().cloned().collect(),
            stop_signal: None,
            network: Network::Host,
        }
    }
}
