//! What managers want: full sets of assignments, fenced by epoch and revision.
//!
//! A set replaces the one before it. Sets that are older than one that was accepted are refused,
//! in this boot and in later ones: a deposed leader must not bring back what its successor took
//! away. What follows for each task is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use wavetank_model::{DesiredState, Epoch, Instant, Notice, Revision, TaskId};

use super::task::Task;
use crate::message::Assignment;
use crate::process::Context;

/// Guards against assignments from the past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fence {
    /// The newest that were accepted; `None` if there never were any, or the memory is lost.
    pub seen: Option<(Epoch, Revision)>,
}

/// What the fence says about a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Newer than all before.
    Accepted,
    /// The same as before.
    Repeated,
    /// From the past.
    Refused,
}

impl Fence {
    /// Judges a set, and remembers it if it is new.
    pub fn judge(
        &mut self,
        ctx: &mut Context<'_>,
        (epoch, revision): (Epoch, Revision),
        tasks: usize,
    ) -> Verdict {
        let offered = Some((epoch, revision));
        if offered < self.seen {
            ctx.notice(Notice::AssignmentsRefused { epoch, revision });
            return Verdict::Refused;
        }
        if offered == self.seen {
            return Verdict::Repeated;
        }
        self.seen = offered;
        let tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
        ctx.notice(Notice::AssignmentsAccepted {
            epoch,
            revision,
            tasks,
        });
        Verdict::Accepted
    }
}

/// Makes the tasks want what a set says, and returns those that it changed. What is not listed is
/// to be removed.
pub(super) fn apply(
    tasks: &mut BTreeMap<TaskId, Task>,
    set: Vec<Assignment>,
    now: Instant,
) -> BTreeSet<TaskId> {
    let mut changed = BTreeSet::new();
    let listed: BTreeSet<TaskId> = set.iter().map(|assignment| assignment.task).collect();
    for assignment in set {
        let id = assignment.task;
        match tasks.get_mut(&id) {
            Some(task) if !task.is_behind(&assignment) => {
                task.want(assignment.desired, assignment.reason, true);
            }
            _ => {
                tasks.insert(id, Task::assigned(assignment, now));
            }
        }
        if tasks.get(&id).is_some_and(|task| task.dirty) {
            changed.insert(id);
        }
    }
    for (id, task) in tasks.iter_mut().filter(|(id, _)| !listed.contains(id)) {
        task.want(DesiredState::Removed, None, false);
        if task.dirty {
            changed.insert(*id);
        }
    }
    changed
}
