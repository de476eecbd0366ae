//! Carries out what `decide.rs` chose for a task: transitions, calls, the end of an attempt.
//!
//! Nothing here chooses what to do next; what comes back is taken in by `answers.rs`.

use wavetank_model::{NodeId, Notice, Reason, TaskState, Timers};
use wavetank_port::RuntimeCommand;

use super::calls::{Caller, Calls, Verb};
use super::decide::{Action, Surroundings, decide};
use super::health::Health;
use super::image::Images;
use super::observe::Container;
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
                self.transition(ctx, |status| {
                    status.state = TaskState::Creating;
                    status.reason = None;
                    status.message.clear();
                });
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
        let check = self.durable.assignment.spec.health.as_ref();
        let unchecked = check.is_none();
        self.tracker.strikes = 0;
        self.tracker.running_since = ctx.now();
        self.tracker.health = Health::begin(check, ctx.now());
        // One that has ended already is said to have run, and never to be ready.
        let runs = self.tracker.handle.known == Container::Running;
        self.transition(ctx, |status| {
            status.state = TaskState::Running;
            status.ready = runs && unchecked;
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
                let check = spec.health.as_ref();
                if let Some(check) = check {
                    patience = check.timeout;
                    self.tracker.health.probed(check, ctx.now());
                }
                RuntimeCommand::Probe {
                    id,
                    command: check.map_or_else(Vec::new, |check| check.command.clone()),
                    timeout: patience,
                }
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

    pub fn end_attempt(
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
    pub fn finish(
        &mut self,
        ctx: &mut Context<'_>,
        to: TaskState,
        reason: Reason,
        message: String,
    ) {
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
}
