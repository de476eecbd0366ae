//! Images: one pull at a time per image, whoever needs it, with growing waits in between.
//!
//! A pull never blocks anything but the tasks that need the image. Presence is not remembered: a
//! pull of a present image succeeds at once, and an image can vanish.

use std::collections::{BTreeMap, BTreeSet};

use wavetank_model::{Instant, Notice, TaskId, Timers};
use wavetank_port::{ErrorClass, ImageReference, RuntimeCommand, RuntimeError, RuntimeReply};

use super::calls::{Caller, Calls};
use crate::process::{CallId, Context};
use crate::random::jittered;

/// One image that somebody needs.
#[derive(Clone, Debug, Default, PartialEq)]
struct Pull {
    flight: Option<(CallId, Instant)>,
    failures: u32,
    retry_at: Instant,
    waiting: BTreeSet<TaskId>,
}

impl Pull {
    fn deadline(&self) -> Instant {
        self.flight.map_or(self.retry_at, |(_, deadline)| deadline)
    }
}

/// What became of a pull, and whom it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pulled {
    pub image: ImageReference,
    pub tasks: BTreeSet<TaskId>,
    /// `None` if the image is present.
    pub error: Option<RuntimeError>,
}

/// All images that somebody needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Images {
    pulls: BTreeMap<ImageReference, Pull>,
}

impl Images {
    pub fn next_deadline(&self) -> Instant {
        self.pulls
            .values()
            .map(Pull::deadline)
            .min()
            .unwrap_or(Instant::NEVER)
    }

    /// A task needs an image. It is told when the next pull has ended.
    pub fn need(
        &mut self,
        ctx: &mut Context<'_>,
        calls: &mut Calls,
        timers: &Timers,
        image: &ImageReference,
        task: TaskId,
    ) {
        let pull = self.pulls.entry(image.clone()).or_default();
        pull.waiting.insert(task);
        if pull.flight.is_none() && pull.retry_at <= ctx.now() {
            begin(ctx, calls, timers, image, pull);
        }
    }

    /// A task needs an image no longer. A pull under way goes on: the next task may profit.
    pub fn release(&mut self, image: &ImageReference, task: TaskId) {
        if let Some(pull) = self.pulls.get_mut(image) {
            pull.waiting.remove(&task);
            if pull.waiting.is_empty() && pull.flight.is_none() {
                self.pulls.remove(image);
            }
        }
    }

    /// Begins pulls that are due and returns those that took too long. Each that is returned must
    /// be followed by [`Images::postpone`].
    pub fn handle_timer(
        &mut self,
        ctx: &mut Context<'_>,
        calls: &mut Calls,
        timers: &Timers,
    ) -> Vec<Pulled> {
        let mut overdue = Vec::new();
        for (image, pull) in &mut self.pulls {
            match pull.flight {
                Some((call, deadline)) if deadline <= ctx.now() => {
                    calls.close(call);
                    pull.flight = None;
                    let error = RuntimeError::new(ErrorClass::DeadlineExceeded, "no answer");
                    overdue.push(failed(image, pull, error));
                }
                None if pull.retry_at <= ctx.now() => begin(ctx, calls, timers, image, pull),
                _ => {}
            }
        }
        overdue
    }

    /// A pull was answered. A failure must be followed by [`Images::postpone`].
    pub fn handle_reply(
        &mut self,
        image: &ImageReference,
        result: Result<RuntimeReply, RuntimeError>,
    ) -> Option<Pulled> {
        let pull = self.pulls.get_mut(image)?;
        pull.flight = None;
        match result {
            Ok(_) => {
                let tasks = self.pulls.remove(image)?.waiting;
                Some(Pulled {
                    image: image.clone(),
                    tasks,
                    error: None,
                })
            }
            Err(error) => Some(failed(image, pull, error)),
        }
    }

    /// After a failure, once the tasks that give up have released the image: waits before the
    /// next pull, or forgets the image if nobody is left.
    pub fn postpone(
        &mut self,
        ctx: &mut Context<'_>,
        timers: &Timers,
        image: &ImageReference,
        class: ErrorClass,
    ) {
        let Some(pull) = self.pulls.get_mut(image) else {
            return;
        };
        if pull.waiting.is_empty() {
            self.pulls.remove(image);
            return;
        }
        let delay = jittered(ctx.rng(), timers.pull_backoff.delay(pull.failures));
        pull.retry_at = ctx.now() + delay;
        ctx.notice(Notice::PullDelayed {
            image: image.0.clone(),
            failures: pull.failures,
            delay,
            class,
        });
    }
}

fn failed(image: &ImageReference, pull: &mut Pull, error: RuntimeError) -> Pulled {
    pull.failures = pull.failures.saturating_add(1);
    // Not again before the caller has postponed it.
    pull.retry_at = Instant::NEVER;
    Pulled {
        image: image.clone(),
        tasks: pull.waiting.clone(),
        error: Some(error),
    }
}

fn begin(
    ctx: &mut Context<'_>,
    calls: &mut Calls,
    timers: &Timers,
    image: &ImageReference,
    pull: &mut Pull,
) {
    let call = calls.open(Caller::Image(image.clone()));
    pull.flight = Some((call, ctx.now() + timers.pull_timeout));
    ctx.call(
        call,
        RuntimeCommand::Pull {
            image: image.clone(),
        },
    );
}
