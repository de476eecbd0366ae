//! What comes back to a task: answers of the runtime, timeouts, events, listings.
//!
//! Nothing here chooses what to do next. What an answer leaves open becomes *unknown*, and is
//! looked at before anything else is done with the container. See `decide.rs`.

use wavetank_model::{InstanceId, Instant, NodeId, Notice, Reason, TaskState, Timers};
use wavetank_port::{ContainerStatus, ErrorClass, RuntimeError, RuntimeEvent, RuntimeReply};

use super::calls::{Verb, is_transient};
use super::drive::Tools;
use super::health::Judgement;
use super::observe::{Container, belongs_to};
use super::recovery::EndingCause;
use super::task::{ImageNeed, Task};
use crate::process::Context;

/// How a container in a listing relates to its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    Expected,
    Doubtful,
    Orphan,
}

impl Task {
    /// Time has passed: gives up a call that took too long.
    pub fn handle_timer(&mut self, ctx: &mut Context<'_>, tools: &mut Tools<'_>) {
        let handle = &mut self.tracker.handle;
        let Some(flight) = handle.flight.filter(|flight| flight.deadline <= ctx.now()) else {
            return;
        };
        handle.abandon(tools.calls);
        handle.handle_timeout(ctx, tools.timers, flight.verb);
    }

    /// The call under way was answered.
    pub fn handle_reply(
        &mut self,
        ctx: &mut Context<'_>,
        tools: &mut Tools<'_>,
        result: Result<RuntimeReply, RuntimeError>,
    ) {
        let Some(flight) = self.tracker.handle.flight.take() else {
            return;
        };
        let timers = tools.timers;
        match flight.verb {
            Verb::Create => self.handle_created(ctx, timers, result),
            Verb::Start => self.handle_started(ctx, timers, result),
            Verb::Inspect => {
                if self.is_foreign(tools.node, &result) {
                    self.tracker.handle.observe(Container::Absent);
                } else {
                    self.tracker.handle.handle_inspected(ctx, timers, &result);
                }
                self.note_look(ctx);
            }
            Verb::Stop => self.tracker.handle.handle_stopped(ctx, timers, &result),
            Verb::Delete { .. } => self.tracker.handle.handle_deleted(ctx, timers, &result),
            Verb::Probe => self.handle_probed(ctx, result),
        }
    }

    /// A container that has our id but not our labels is somebody else's: for us there is none.
    fn is_foreign(&self, node: NodeId, result: &Result<RuntimeReply, RuntimeError>) -> bool {
        matches!(result, Ok(RuntimeReply::State { container })
            if !belongs_to(container, node, self.id()))
    }

    /// After a look: counts how often a container that should be there was not, and announces one
    /// that was found again.
    fn note_look(&mut self, ctx: &mut Context<'_>) {
        let state = self.state();
        let tracker = &mut self.tracker;
        let is_missing = match tracker.handle.known {
            Container::Unknown => return,
            Container::Absent | Container::Missing => {
                matches!(state, TaskState::Starting | TaskState::Running)
            }
            Container::Created => state == TaskState::Running,
            Container::Running | Container::Exited(_) => false,
        };
        if is_missing {
            tracker.absences += 1;
            tracker.absent_at = ctx.now();
            return;
        }
        tracker.absences = 0;
        let runs_or_ran = matches!(
            tracker.handle.known,
            Container::Running | Container::Exited(_)
        );
        if std::mem::take(&mut tracker.to_adopt) && runs_or_ran && self.is_live() {
            ctx.notice(Notice::InstanceAdopted {
                instance: self.instance(),
            });
        }
    }

    fn handle_created(
        &mut self,
        ctx: &mut Context<'_>,
        timers: &Timers,
        result: Result<RuntimeReply, RuntimeError>,
    ) {
        let tracker = &mut self.tracker;
        let Err(error) = result else {
            tracker.handle.changes.clear();
            return tracker.handle.observe(Container::Created);
        };
        match error.class {
            ErrorClass::InvalidArgument => {
                tracker.handle.observe(Container::Absent);
                let reason = Reason::RootfsBuildFailed;
                self.end_attempt(ctx, EndingCause::Rejected, reason, error.message);
            }
            ErrorClass::NotFound => {
                tracker.image = ImageNeed::NotAsked;
                self.strike(ctx, timers, &error);
                self.tracker.handle.known = Container::Absent;
            }
            ErrorClass::AlreadyExists => {
                tracker.to_adopt = true;
                self.strike(ctx, timers, &error);
            }
            _ => self.strike(ctx, timers, &error),
        }
    }

    fn handle_started(
        &mut self,
        ctx: &mut Context<'_>,
        timers: &Timers,
        result: Result<RuntimeReply, RuntimeError>,
    ) {
        let handle = &mut self.tracker.handle;
        match result {
            Ok(RuntimeReply::State { container })
                if container.status != ContainerStatus::Created =>
            {
                handle.changes.clear();
                handle.observe(Container::read(&container));
            }
            // Says that it worked but not what is; a runtime that keeps saying so gets its strikes.
            Ok(_) => {
                let error = RuntimeError::new(ErrorClass::Unknown, "started, but does not run");
                self.strike(ctx, timers, &error);
            }
            Err(error) if error.class == ErrorClass::InvalidArgument => {
                handle.observe(Container::Created);
                let reason = Reason::RuntimeStartFailed;
                self.end_attempt(ctx, EndingCause::Rejected, reason, error.message);
            }
            Err(error) => self.strike(ctx, timers, &error),
        }
    }

    /// A create or a start failed. Whether it did something is unknown.
    fn strike(&mut self, ctx: &mut Context<'_>, timers: &Timers, error: &RuntimeError) {
        self.tracker.handle.fail_change(ctx, timers);
        self.tracker.last_error = error.to_string();
        if !is_transient(error.class) {
            self.tracker.strikes += 1;
        }
    }

    fn handle_probed(&mut self, ctx: &mut Context<'_>, result: Result<RuntimeReply, RuntimeError>) {
        let healthy = match result {
            Ok(RuntimeReply::Probed { healthy }) => healthy,
            Err(error)
                if matches!(
                    error.class,
                    ErrorClass::NotFound | ErrorClass::FailedPrecondition
                ) =>
            {
                return self.tracker.handle.suspect();
            }
            // A probe that could not run says nothing about the instance.
            _ => return,
        };
        let Some(check) = &self.durable.assignment.spec.health else {
            return;
        };
        let (since, failures_max) = (self.tracker.running_since, check.failures_max.max(1));
        match self.tracker.health.judge(check, since, ctx.now(), healthy) {
            Judgement::Healthy if !self.durable.status.ready => {
                self.transition(ctx, |status| status.ready = true);
            }
            Judgement::None | Judgement::Healthy => {}
            Judgement::Failed => {
                let message = format!("{failures_max} unhealthy verdicts in a row");
                self.end_attempt(ctx, EndingCause::Failed, Reason::HealthcheckFailed, message);
            }
        }
        if self.tracker.handle.doubt {
            self.tracker.handle.suspect();
        }
    }

    /// The image is there, or a pull has failed.
    pub fn handle_pulled(
        &mut self,
        ctx: &mut Context<'_>,
        tools: &mut Tools<'_>,
        error: Option<&RuntimeError>,
    ) {
        let Some(error) = error else {
            self.tracker.image = ImageNeed::Present;
            return;
        };
        self.tracker.pull_failures += 1;
        let attempts_max = tools.timers.pull_attempts_max;
        let is_last = attempts_max.is_some_and(|max| self.tracker.pull_failures >= max);
        let to = match error.class {
            ErrorClass::InvalidArgument => TaskState::Rejected,
            _ if is_last => TaskState::Failed,
            _ => return self.say_why_it_waits(ctx, error.to_string()),
        };
        tools
            .images
            .release(&self.durable.assignment.spec.image, self.id());
        self.finish(ctx, to, Reason::ImagePullFailed, error.to_string());
    }

    /// The pull will be tried again. What is new about that is reported.
    fn say_why_it_waits(&mut self, ctx: &mut Context<'_>, message: String) {
        if self.state() == TaskState::Pulling && self.durable.status.message != message {
            self.transition(ctx, |status| {
                status.reason = Some(Reason::ImagePullFailed);
                status.message = message;
            });
        }
    }

    /// The runtime said something about one of the task's containers. Only a reason to look, but
    /// an exit is kept in mind in case that nobody can be asked any more.
    pub fn handle_event(
        &mut self,
        tools: &mut Tools<'_>,
        instance: InstanceId,
        event: &RuntimeEvent,
    ) {
        if instance != self.instance() || !self.is_live() {
            return;
        }
        let verb = self.tracker.handle.flight.map(|flight| flight.verb);
        match event {
            RuntimeEvent::Exited { exit, .. } => {
                self.tracker.hinted_exit.get_or_insert(*exit);
                self.look_again(
                    tools,
                    matches!(verb, Some(Verb::Start | Verb::Stop | Verb::Probe)),
                );
            }
            // The answer to the start is on its way and says more.
            RuntimeEvent::Started { .. } if verb == Some(Verb::Start) => {}
            RuntimeEvent::Started { .. } => {
                if self.tracker.handle.known != Container::Running {
                    self.look_again(tools, false);
                }
            }
            RuntimeEvent::Deleted { .. } => {
                if !matches!(verb, Some(Verb::Delete { .. })) {
                    self.look_again(tools, false);
                }
            }
            RuntimeEvent::Interrupted => {}
        }
    }

    /// Looks as soon as the call under way allows; `is_moot` says that it does not matter any
    /// more and need not be waited for.
    fn look_again(&mut self, tools: &mut Tools<'_>, is_moot: bool) {
        if is_moot {
            self.tracker.handle.abandon(tools.calls);
        }
        self.tracker.handle.suspect();
    }

    /// A listing named one of the task's containers.
    pub fn handle_listed(
        &mut self,
        tools: &mut Tools<'_>,
        round: u64,
        instance: InstanceId,
        status: ContainerStatus,
    ) -> Sighting {
        if instance != self.instance() {
            return Sighting::Orphan;
        }
        self.sighted_in = round;
        let known = self.tracker.handle.known;
        match self.state() {
            TaskState::Assigned | TaskState::Accepted | TaskState::Pulling => Sighting::Expected,
            state if self.is_live() => {
                if is_as_known(known, status) {
                    return Sighting::Expected;
                }
                let verb = self.tracker.handle.flight.map(|flight| flight.verb);
                let is_moot = match status {
                    ContainerStatus::Exited => matches!(verb, Some(Verb::Start | Verb::Stop)),
                    ContainerStatus::Running | ContainerStatus::Paused => verb == Some(Verb::Start),
                    ContainerStatus::Created => false,
                };
                let is_settled = verb.is_none() && state != TaskState::Creating;
                let is_news = matches!(known, Container::Absent | Container::Missing);
                if is_moot || is_settled || is_news {
                    self.look_again(tools, is_moot);
                }
                Sighting::Doubtful
            }
            _ if known == Container::Absent => Sighting::Orphan,
            _ => Sighting::Expected,
        }
    }

    /// A listing is complete and did not name the current container. Returns true if it should
    /// have: then it is looked for.
    pub fn handle_unlisted(&mut self) -> bool {
        let expected = matches!(self.state(), TaskState::Running | TaskState::Starting)
            && matches!(
                self.tracker.handle.known,
                Container::Created | Container::Running
            );
        let is_missed = expected && self.tracker.handle.flight.is_none();
        if is_missed {
            self.tracker.handle.suspect();
        }
        is_missed
    }

    /// When the task wants to be driven again without anything happening.
    pub fn next_deadline(&self) -> Instant {
        self.wake_at
    }
}

fn is_as_known(known: Container, status: ContainerStatus) -> bool {
    match status {
        ContainerStatus::Created => known == Container::Created,
        ContainerStatus::Running | ContainerStatus::Paused => known == Container::Running,
        ContainerStatus::Exited => matches!(known, Container::Exited(_)),
    }
}
