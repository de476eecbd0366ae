//! What an agent remembers across restarts, and how it is put together again.
//!
//! A task's record holds everything that must not be lost with the process: what managers want,
//! what they were told and have not confirmed, how often it was restarted, why it is being ended.
//! What containers do meanwhile is looked up again. Runs that went on are adopted, runs that ended
//! are reported and restarted without asking managers, and what was ordered to stop stays stopped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wavetank_model::{Epoch, Reason, Revision, TaskId, TaskStatus};

use crate::message::Assignment;
use crate::record::{Record, Stored};

/// One task as its agent must know it after a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DurableTask {
    /// What managers last wanted; `Removed` as well if they no longer list it.
    pub assignment: Assignment,
    /// False once a newer set of assignments came without it.
    pub listed: bool,
    /// Where it is.
    pub status: TaskStatus,
    /// Restarts since the last stable run.
    pub restarts: u32,
    /// Transitions that managers have not acknowledged, oldest first.
    pub unacknowledged: Vec<TaskStatus>,
    /// Set while the agent ends the current attempt.
    pub ending: Option<Ending>,
    /// True once the current instance was asked to stop.
    pub stop_requested: bool,
}

/// Why the agent ends an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// On whose behalf.
    pub cause: EndingCause,
    /// Why.
    pub reason: Reason,
    /// For a person.
    pub message: String,
}

/// On whose behalf an attempt is ended, and with it what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndingCause {
    /// Managers want the task to stop.
    Ordered,
    /// The attempt failed; the restart policy says what follows.
    Failed,
    /// The runtime refuses the task as it is; no attempt can help.
    Rejected,
}

/// Everything an agent finds on its disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Recovered {
    /// The newest assignments that were accepted.
    pub seen: Option<(Epoch, Revision)>,
    /// All tasks that are not forgotten.
    pub tasks: BTreeMap<TaskId, DurableTask>,
}

/// Puts the records together. A damaged end was never made durable, so nothing was promised on it
/// and it is cut off. Damage before the end could be anything, also the order to stop a task: then
/// nothing is believed, and the agent says so by naming no assignments when it registers.
pub(super) fn recover(mut stored: Vec<Stored>) -> Result<Recovered, String> {
    while stored.last() == Some(&Stored::Damaged) {
        stored.pop();
    }
    let mut recovered = Recovered::default();
    for record in stored {
        match record {
            Stored::Damaged => return Ok(Recovered::default()),
            Stored::Intact(record) => recovered.apply(record)?,
        }
    }
    Ok(recovered)
}

impl Recovered {
    fn apply(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::AssignmentsSeen { epoch, revision } => self.seen = Some((epoch, revision)),
            Record::Task(task) => {
                self.tasks.insert(task.assignment.task, *task);
            }
            Record::TaskForgotten(task) => {
                self.tasks.remove(&task);
            }
            Record::Member { .. }
            | Record::HardState { .. }
            | Record::Entries(_)
            | Record::Checkpoint(_) => {
                return Err("the disk holds a manager's records, not an agent's".to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(revision: u64) -> Stored {
        let (epoch, revision) = (Epoch(1), Revision(revision));
        Stored::Intact(Record::AssignmentsSeen { epoch, revision })
    }

    fn revision(stored: Vec<Stored>) -> Option<u64> {
        recover(stored)
            .ok()
            .and_then(|found| found.seen)
            .map(|(_, revision)| revision.0)
    }

    #[test]
    fn a_torn_end_is_cut_off() {
        assert_eq!(revision(vec![seen(1), seen(2), Stored::Damaged]), Some(2));
    }

    #[test]
    fn damage_in_the_middle_discredits_everything() {
        assert_eq!(revision(vec![seen(1), Stored::Damaged, seen(2)]), None);
    }

    #[test]
    fn a_managers_disk_is_refused() {
        let record = Record::HardState {
            term: 1,
            vote: 1,
            commit: 1,
        };
        assert!(recover(vec![Stored::Intact(record)]).is_err());
    }
}
