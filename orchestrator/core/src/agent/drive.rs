//! Carries out what `decide.rs` chose for a task, and takes in what comes back: answers, timeouts
//! and events.
//!
//! Nothing here chooses what to do next. What an answer leaves open becomes *unknown*, and is
//! looked at before anything else is done with the container.

use wavetank_model::{InstanceId, Instant, NodeId, Notice, Reason, TaskState, Timers};
use wavetank_port::{
    ContainerStatus, ErrorClass, RuntimeCommand, RuntimeError, RuntimeEvent, RuntimeReply,
};

use super::calls::{Caller, Calls, Verb, is_transient};
use super::decide::{Action, Surroundings, decide};
use super::health::{Health, Judgement};
use super::image::Images;
use super::observe::{Container, belongs_to};
use super::recovery::{Ending, EndingCause};
use super::restart::{Verdict, failure_of, judge};
use super::task::{ImageNeed, Task};
use crate::process::Context;
use crate::random::jittered;

/// What a task may use while it is driven.
pub(super) struct Tools<'a> {
    pub node: NodeId,
    pub timers: &'a Timers,
    pub calls: &'a mut Calls,
    pub images: &'a mut Images,
}

/// What is left of a task after it was driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Forgotten,
}

/// How a container in a listing relates to its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    Expected,
    Doubtful,
    Orphan,
}

impl Task {
    /// Does everything that can be done now.
    pub fn drive(
        &mut self,
        ctx: &mut Context<'_>,
        tools: &mut Tools<'_>,
        around: Surroundings,
    ) -> Fate {
        loop {
            match decide(
                &self.durable,
                around,
                &self.tracker,
                tools.timers,
                ctx.now(),
            ) {
                Action::Wait(until) => {
                    self.wake_at = until;
                    return Fate::Kept;
                }
                Action::Forget => return Fate::Forgotten,
                action => self.perform(ctx, tools, action),
            }
        }
    }

    fn perform(&mut self, ctx: &mut Context<'_>, tools: &mut Tools<'_>, action: Action) {
        match action {
            Action::Wait(_) | Action::Forget => {}
            Action::Accept => self.transition(ctx, |status| {
                status.state = TaskState::Accepted;
                status.attempt = 1;
            }),
            Action::BeginPull => self.transition(ctx, |status| status.state = TaskState::Pulling),
            Action::NeedImage => self.need_image(ctx, tools),
            Action::BeginCreate => {
                self.transition(ctx, |status| status.state = TaskState::Creating);
            }
            Action::BeginStart => {
                self.tracker.strikes = 0;
                self.transition(ctx, |status| status.state = TaskState::Starting);
            }
            Action::BeginRun => self.begin_run(ctx),
            Action::CountAsStable => {
                self.durable.restarts = 0;
                self.dirty = true;
            }
            Action::Call(verb) => self.call(ctx, tools, verb),
            Action::BeginStop => self.begin_stop(ctx, tools),
            Action::Fail(reason, message) => {
                self.end_attempt(ctx, EndingCause::Failed, reason, message);
            }
            Action::Resume => {
                self.durable.ending = None;
                self.dirty = true;
            }
            Action::Conclude => self.conclude(ctx),
            Action::BeginNextAttempt => self.begin_next_attempt(ctx),
        }
    }

    fn need_image(&mut self, ctx: &mut Context<'_>, tools: &mut Tools<'_>) {
        self.tracker.image = ImageNeed::Waiting;
        let (image, task) = (&self.durable.assignment.spec.image, self.id());
        tools
            .images
            .need(ctx, tools.calls, tools.timers, image, task);
    }

    fn begin_run(&mut self, ctx: &mut Context<'_>) {
        let check = self.durable.assignment.spec.health;
        self.tracker.strikes = 0;
        self.tracker.running_since = ctx.now();
        self.tracker.health = Health::begin(check.as_ref(), ctx.now());
        // One that has ended already is said to have run, and never to be ready.
        let runs = self.tracker.handle.known == Container::Running;
        self.transition(ctx, |status| {
            status.state = TaskState::Running;
            status.ready = runs && check.is_none();
        });
    }

    fn call(&mut self, ctx: &mut Context<'_>, tools: &mut Tools<'_>, verb: Verb) {
        let id = self.instance().container_id();
        let spec = &self.durable.assignment.spec;
        let grace = spec.stop_grace;
        let mut patience = tools.timers.runtime_timeout;
        let command = match verb {
            Verb::Create => RuntimeCommand::Create {
                spec: self.container_spec(tools.node),
            },
            Verb::Start => RuntimeCommand::Start { id },
            Verb::Inspect => RuntimeCommand::Inspect { id },
            Verb::Stop => {
                patience = patience.saturating_add(grace);
                RuntimeCommand::Stop { id, grace }
            }
            Verb::Delete { force } => RuntimeCommand::Delete { id, force },
            Verb::Probe => {
                if let Some(check) = &spec.health {
                    patience = check.timeout;
                    self.tracker.health.probed(check, ctx.now());
                }
                RuntimeCommand::Probe { id }
            }
        };
        if verb == Verb::Stop {
            self.announce_stop(ctx);
        }
        let call = tools.calls.open(Caller::Task(self.id()));
        self.tracker.handle.call(ctx, call, verb, command, patience);
    }

    /// Says once per instance that it is asked to stop, however often that has to be repeated.
    fn announce_stop(&mut self, ctx: &mut Context<'_>) {
        self.tracker
            .handle
            .asked_to_stop_at
            .get_or_insert(ctx.now());
        if self.durable.stop_requested {
            return;
        }
        self.durable.stop_requested = true;
        self.dirty = true;
        let ending = self.durable.ending.as_ref().map(|ending| ending.reason);
        let reason = ending.or(self.durable.status.reason);
        ctx.notice(Notice::StopRequested {
            instance: self.instance(),
            grace: self.durable.assignment.spec.stop_grace,
            reason: reason.unwrap_or(Reason::TerminatedByOperator),
        });
    }

    /// Managers want it to stop. Without a container that is done at once.
    fn begin_stop(&mut self, ctx: &mut Context<'_>, tools: &mut Tools<'_>) {
        let reason = self
            .durable
            .assignment
            .reason
            .unwrap_or(Reason::TerminatedByOperator);
        tools
            .images
            .release(&self.durable.assignment.spec.image, self.id());
        if !self.is_live() {
            return self.finish(ctx, TaskState::Shutdown, reason, String::new());
        }
        if self
            .tracker
            .handle
            .flight
            .is_some_and(|flight| flight.verb == Verb::Probe)
        {
            self.tracker.handle.abandon(tools.calls);
        }
        self.end_attempt(ctx, EndingCause::Ordered, reason, String::new());
        self.transition(ctx, |status| {
            status.state = TaskState::Stopping;
            status.ready = false;
            status.reason = Some(reason);
        });
    }

    fn end_attempt(
        &mut self,
        ctx: &mut Context<'_>,
        cause: EndingCause,
        reason: Reason,
        message: String,
    ) {
        self.durable.ending = Some(Ending {
            cause,
            reason,
            message,
        });
        self.dirty = true;
        let was_ready = self.durable.status.ready;
        if was_ready && cause != EndingCause::Ordered {
            self.transition(ctx, |status| {
                status.ready = false;
                status.reason = Some(reason);
            });
        }
    }

    /// The attempt is over and its process is known to have ended, or never to have run.
    fn conclude(&mut self, ctx: &mut Context<'_>) {
        let exit = match self.tracker.handle.known {
            Container::Exited(exit) => Some(exit),
            _ => self.tracker.hinted_exit,
        };
        if let Some(exit) = exit {
            ctx.notice(Notice::ExitObserved {
                instance: self.instance(),
                exit,
            });
            self.durable.status.exit = Some(exit);
        }
        match self.durable.ending.take() {
            Some(ending) if ending.cause == EndingCause::Ordered => {
                self.finish(ctx, TaskState::Shutdown, ending.reason, ending.message);
            }
            Some(ending) if ending.cause == EndingCause::Rejected => {
                self.finish(ctx, TaskState::Rejected, ending.reason, ending.message);
            }
            Some(ending) => self.apply_policy(ctx, Some(ending.reason), ending.message),
            None => {
                let message = exit.map(|exit| format!("exited with {}", exit.code));
                let failure = exit.map_or(Some(Reason::ExitUnknown), failure_of);
                self.apply_policy(ctx, failure, message.unwrap_or_default());
            }
        }
    }

    fn apply_policy(&mut self, ctx: &mut Context<'_>, failure: Option<Reason>, message: String) {
        let spec = self.durable.assignment.spec.clone();
        let policy = &spec.restart;
        let ran_for = ctx.now().since(self.tracker.running_since);
        if self.state() == TaskState::Running && ran_for >= policy.stable_after {
            self.durable.restarts = 0;
        }
        match judge(policy, self.durable.restarts, failure) {
            Verdict::Complete => self.transition(ctx, |status| {
                status.state = TaskState::Complete;
                status.ready = false;
                status.reason = None;
            }),
            Verdict::Failed(reason) => {
                let message = match failure {
                    Some(last) if last != reason => {
                        format!("restart budget is spent; last: {last}: {message}")
                    }
                    _ => message,
                };
                self.finish(ctx, TaskState::Failed, reason, message);
            }
            Verdict::Again(reason) => {
                self.durable.restarts += 1;
                let delay = policy.backoff.delay(self.durable.restarts);
                self.tracker.restart_at = ctx.now() + jittered(ctx.rng(), delay);
                self.finish(ctx, TaskState::Backoff, reason, message);
            }
        }
    }

    /// Ends an attempt or the task, with a reason.
    fn finish(&mut self, ctx: &mut Context<'_>, to: TaskState, reason: Reason, message: String) {
        self.durable.ending = None;
        self.transition(ctx, |status| {
            status.state = to;
            status.ready = false;
            status.reason = Some(reason);
            status.message = message;
        });
    }

    fn begin_next_attempt(&mut self, ctx: &mut Context<'_>) {
        self.reset(ctx.now());
        self.transition(ctx, |status| {
            status.state = TaskState::Pulling;
            status.attempt += 1;
            status.reason = None;
            status.message = String::new();
            status.exit = None;
        });
    }

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
        let Some(check) = self.durable.assignment.spec.health else {
            return;
        };
        let since = self.tracker.running_since;
        match self.tracker.health.judge(&check, since, ctx.now(), healthy) {
            Judgement::Healthy if !self.durable.status.ready => {
                self.transition(ctx, |status| status.ready = true);
            }
            Judgement::None | Judgement::Healthy => {}
            Judgement::Failed => {
                let message = format!("{} unhealthy verdicts in a row", check.failures_max.max(1));
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
            _ => return,
        };
        tools
            .images
            .release(&self.durable.assignment.spec.image, self.id());
        self.finish(ctx, to, Reason::ImagePullFailed, error.to_string());
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
