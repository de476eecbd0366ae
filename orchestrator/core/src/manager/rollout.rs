//! Rollouts: replaces tasks that run by better ones without dropping below what must stay
//! available, and judges whether the new generation works. Also empties drained nodes, because
//! that is the same replacement for another reason.
//!
//! Pure: all of a rollout's state is in the store (generation, failures, where it is), so a new
//! leader goes on where the old one stopped. The bounds are the update policy's: at most
//! `surge_max` tasks above the wanted number, at most `unavailable_max` of it not available.

use std::time::Duration;

use wavetank_model::{OnRolloutFailure, RolloutState, ServiceMode};

use super::command::RolloutStep;
use super::reconciler::{Work, head};
use super::store::TaskRecord;

/// A new task that was never available for this long, on top of the time it must be watched,
/// counts as a failure of its rollout, whatever it waits for; and again after as long again.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Replaces what runs in these slots, as far as the bounds allow now.
pub(super) fn replace(work: &mut Work<'_>, slots: Vec<u32>) {
    let works = |work: &Work<'_>, slot: &u32| {
        let tasks = work.slots.get(slot).into_iter().flatten();
        tasks.into_iter().any(|task| work.is_up(task))
    };
    let (last, first): (Vec<u32>, Vec<u32>) = slots.into_iter().partition(|slot| works(work, slot));
    for slot in first.into_iter().chain(last) {
        replace_slot(work, slot);
    }
}

/// Beside the old task if there may be one more, else after it.
fn replace_slot(work: &mut Work<'_>, slot: u32) {
    let Some(tasks) = work.slots.get(&slot).cloned() else {
        return;
    };
    let newest = head(&tasks);
    let generation = work.next_generation(&tasks);
    if work.must_wait(slot, newest, generation) {
        return;
    }
    if !work.stops_first() && work.create(slot, generation) {
        return;
    }
    for task in tasks.iter().filter(|task| task.is_wanted()) {
        work.stop(task);
    }
}

/// Counts tasks that take too long, and moves the rollout on if it has come to an end.
pub(super) fn judge(work: &mut Work<'_>) {
    if !work.service.is_rolling() {
        return;
    }
    watch(work);
    work.plan.rollout = failure_step(work).or_else(|| {
        let complete = work.plan.overdue.is_empty() && is_complete(work);
        complete.then_some(RolloutStep::Complete)
    });
}

fn watch(work: &mut Work<'_>) {
    let patience = PATIENCE + work.service.spec.update.monitor;
    let may_fail = consequence(work).is_some();
    let tasks: Vec<&TaskRecord> = work.slots.values().flatten().copied().collect();
    for task in tasks {
        if !task.is_wanted() || work.is_stale(task) || work.is_available(task) {
            continue;
        }
        work.wake_when_available(task);
        let Some(since) = work.clocks.trial.get(&task.id).filter(|_| may_fail) else {
            continue;
        };
        let overdue_at = *since + patience;
        if overdue_at <= work.clocks.now {
            work.plan.overdue.push(task.id);
        } else {
            work.wake = work.wake.min(overdue_at);
        }
    }
}

fn failure_step(work: &Work<'_>) -> Option<RolloutStep> {
    let overdue = u32::try_from(work.plan.overdue.len()).unwrap_or(u32::MAX);
    let failures = work
        .service
        .failures
        .saturating_add(overdue)
        .saturating_add(restarts(work));
    let too_many = failures > work.service.spec.update.failures_max;
    consequence(work).filter(|_| too_many)
}

/// How often wanted tasks of the newest template had to be restarted by their agents: a process
/// that crashes again and again must not hide behind its restart budget.
fn restarts(work: &Work<'_>) -> u32 {
    let tasks = work.slots.values().flatten();
    let tried = tasks.filter(|task| task.is_wanted() && !work.is_stale(task));
    tried
        .map(|task| task.status.attempt.saturating_sub(1))
        .fold(0, u32::saturating_add)
}

/// What too many failures lead to. A first generation has nothing to go back to and nothing to
/// protect: it is tried on, at the pace of its backoff.
fn consequence(work: &Work<'_>) -> Option<RolloutStep> {
    let service = work.service;
    if service.rollout != RolloutState::Updating || service.is_job() {
        return None;
    }
    match service.spec.update.on_failure {
        OnRolloutFailure::Rollback => service.rollback_target().map(|_| RolloutStep::Rollback),
        OnRolloutFailure::Pause => (service.generation.0 > 1).then_some(RolloutStep::Pause),
        OnRolloutFailure::Continue => None,
    }
}

/// Is every wanted slot filled by an available task of the newest template, or done, and nothing
/// else left that is wanted?
fn is_complete(work: &Work<'_>) -> bool {
    let filled = |tasks: &Vec<&TaskRecord>| {
        let works = tasks
            .iter()
            .any(|task| !work.is_stale(task) && work.is_available(task));
        let stale = tasks
            .iter()
            .any(|task| task.is_wanted() && work.is_stale(task));
        !stale && (works || work.is_done(head(tasks)))
    };
    let global = work.service.spec.mode == ServiceMode::Global;
    let filled = work.slots.values().filter(|tasks| filled(tasks)).count();
    let enough = filled >= work.wanted && (global || filled == work.slots.len());
    enough && !(global && work.wanted == 0)
}
