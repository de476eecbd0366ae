//! Transitions on their way to the managers: sent at once, repeated until confirmed.
//!
//! The queue itself is part of each task's durable record; this file only knows which tasks have
//! something queued and when to repeat it. Managers apply each transition once, in order, so
//! repeating is harmless and forgetting is not.

use std::collections::{BTreeMap, BTreeSet};

use wavetank_model::{Instant, NodeId, SessionId, TaskId, Timers};

use super::task::Task;
use crate::message::{Message, TaskReport};
use crate::process::Context;
use crate::random::jittered;

/// Transitions in one message at most; the rest follows when these are confirmed. Keeps a message
/// of an agent that was cut off for long within what one log entry should hold.
const REPORTS_MAX: usize = 256;

/// Tasks with unconfirmed transitions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reports {
    pending: BTreeSet<TaskId>,
    resend_at: Instant,
}

impl Reports {
    pub fn new(pending: BTreeSet<TaskId>) -> Self {
        Reports {
            pending,
            resend_at: Instant::NEVER,
        }
    }

    pub fn next_deadline(&self) -> Instant {
        self.resend_at
    }

    /// A task has transitions that were never sent.
    pub fn note(&mut self, task: TaskId) {
        self.pending.insert(task);
    }

    /// Everything of a task is confirmed, or nobody wants to know it any more.
    pub fn settle(&mut self, task: TaskId) {
        self.pending.remove(&task);
        if self.pending.is_empty() {
            self.resend_at = Instant::NEVER;
        }
    }

    /// There is no session: reports wait for the next one.
    pub fn suspend(&mut self) {
        self.resend_at = Instant::NEVER;
    }

    /// Sends what was never confirmed, of all tasks.
    pub fn send_all(
        &mut self,
        ctx: &mut Context<'_>,
        timers: &Timers,
        session: (SessionId, NodeId),
        tasks: &BTreeMap<TaskId, Task>,
    ) {
        let pending = std::mem::take(&mut self.pending);
        self.send(ctx, timers, session, tasks, &pending);
        self.pending = pending;
    }

    /// Sends what was never confirmed of some tasks: all of each, so that a message that was lost
    /// before does not make this one useless.
    pub fn send(
        &mut self,
        ctx: &mut Context<'_>,
        timers: &Timers,
        (session, manager): (SessionId, NodeId),
        tasks: &BTreeMap<TaskId, Task>,
        which: &BTreeSet<TaskId>,
    ) {
        let reports: Vec<TaskReport> = which
            .iter()
            .filter_map(|id| tasks.get(id))
            .flat_map(Task::reports)
            .take(REPORTS_MAX)
            .collect();
        if reports.is_empty() {
            return;
        }
        ctx.send(manager, Message::Report { session, reports });
        self.resend_at = ctx.now() + jittered(ctx.rng(), timers.request_retry);
    }
}
