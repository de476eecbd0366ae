//! A node's event log: what it decided and what it asked of its container runtime, one JSON object
//! a line, for tools. Each line is written whole and at once; only a last line can be cut off. A
//! node that is killed may have made something durable that it had no time to say: of transitions
//! of tasks its next boot says what it has found, see [`NodeEvent::TransitionRecovered`].

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use wavetank_core::{Record as Durable, Stored};
use wavetank_model::{Incarnation, NodeId, Notice, ServiceName, TaskId, TaskStatus};
use wavetank_port::{ContainerId, ErrorClass, RuntimeCommand, WallTime};

use crate::observer::{Answered, Observer};
use crate::os::Os;
use crate::platform::Platform as _;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, by the node's wall clock.
    pub at: WallTime,
    /// What.
    #[serde(flatten)]
    pub event: NodeEvent,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum NodeEvent {
    /// A boot began.
    Started {
        /// Who.
        node: NodeId,
        /// Which boot.
        incarnation: Incarnation,
    },
    /// An earlier boot made a transition durable, and managers have not confirmed it. That boot has
    /// said so as a notice, unless it was killed just before it could.
    TransitionRecovered {
        /// Which task.
        task: TaskId,
        /// Its service.
        service: ServiceName,
        /// The whole status after the transition; its `sequence` says which one it is.
        status: TaskStatus,
    },
    /// A decision has taken effect.
    Notice {
        /// Which.
        #[serde(flatten)]
        notice: Notice,
    },
    /// The container runtime was asked.
    RuntimeCalled {
        /// The verb.
        call: String,
        /// The container it is about.
        container: Option<ContainerId>,
        /// The image it is about (pull and create).
        image: Option<String>,
    },
    /// The container runtime answered.
    RuntimeAnswered {
        /// The verb.
        call: String,
        /// The container it is about.
        container: Option<ContainerId>,
        /// `None` if it succeeded.
        error: Option<ErrorClass>,
        /// For a listing that succeeded: how many containers it named.
        listed: Option<u32>,
    },
}

/// Appends to a file.
#[derive(Debug)]
pub struct EventLog {
    file: Mutex<File>,
    clock: Os,
}

impl EventLog {
    /// Goes on with the file at `path`, made if absent, and says that a boot began.
    ///
    /// # Errors
    /// If the file cannot be opened or written.
    pub fn open(path: &Path, node: NodeId, incarnation: Incarnation) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(path)?;
        if ends_within_a_line(&mut file)? {
            file.write_all(b"\n")?;
        }
        let log = EventLog {
            file: Mutex::new(file),
            clock: Os::new(),
        };
        log.write(NodeEvent::Started { node, incarnation })?;
        Ok(log)
    }

    fn say(&self, event: NodeEvent) {
        if let Err(error) = self.write(event) {
            tracing::warn!(%error, "the event log cannot be written");
        }
    }

    fn write(&self, event: NodeEvent) -> io::Result<()> {
        let at = self.clock.wall();
        let mut line = serde_json::to_vec(&Record { at, event })?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line)
    }
}

/// The last line was cut off when an earlier boot ended.
fn ends_within_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// The transitions among an agent's records that managers have not confirmed, in order for each
/// task. Of records that are damaged anywhere but at their end nothing is believed.
fn unconfirmed(stored: &[Stored]) -> Vec<NodeEvent> {
    let mut tasks = BTreeMap::new();
    let end = stored.iter().rposition(|it| *it != Stored::Damaged);
    for record in &stored[..end.map_or(0, |last| last + 1)] {
        match record {
            Stored::Damaged => return Vec::new(),
            Stored::Intact(Durable::Task(task)) => {
                tasks.insert(task.assignment.task, task);
            }
            Stored::Intact(Durable::TaskForgotten(task)) => {
                tasks.remove(task);
            }
            Stored::Intact(_) => {}
        }
    }
    let transitions = tasks.into_iter().flat_map(|(id, task)| {
        let statuses = task.unacknowledged.iter().cloned();
        statuses.map(move |status| NodeEvent::TransitionRecovered {
            task: id,
            service: task.assignment.spec.name.clone(),
            status,
        })
    });
    transitions.collect()
}

impl Observer for EventLog {
    fn recovered(&self, stored: &[Stored]) {
        unconfirmed(stored)
            .into_iter()
            .for_each(|event| self.say(event));
    }

    fn notice(&self, notice: Notice) {
        self.say(NodeEvent::Notice { notice });
    }

    fn called(&self, command: &RuntimeCommand) {
        self.say(NodeEvent::RuntimeCalled {
            call: command.name().to_owned(),
            container: command.container().cloned(),
            image: command.image().map(|image| image.0.clone()),
        });
    }

    fn answered(&self, call: &Answered) {
        self.say(NodeEvent::RuntimeAnswered {
            call: call.call.to_owned(),
            container: call.container.clone(),
            error: call.error,
            listed: call.listed,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use wavetank_model::{ConsensusRole, Epoch};

    use super::*;

    fn records(path: &Path) -> io::Result<Vec<Option<Record>>> {
        let text = fs::read_to_string(path)?;
        Ok(text
            .lines()
            .map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    #[test]
    fn every_event_is_a_line_that_reads_back() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("events.jsonl");
        let log = EventLog::open(&path, NodeId::manager(2), Incarnation(7))?;
        let notice = Notice::RoleChanged {
            role: ConsensusRole::Leader,
            epoch: Epoch(3),
        };
        log.notice(notice.clone());
        log.answered(&Answered {
            call: "list",
            container: None,
            error: Some(ErrorClass::Unavailable),
            listed: None,
        });
        let said: Vec<NodeEvent> = records(&path)?
            .into_iter()
            .flatten()
            .map(|record| record.event)
            .collect();
        let node = NodeId::manager(2);
        let incarnation = Incarnation(7);
        assert_eq!(
            said,
            [
                NodeEvent::Started { node, incarnation },
                NodeEvent::Notice { notice },
                NodeEvent::RuntimeAnswered {
                    call: "list".to_owned(),
                    container: None,
                    error: Some(ErrorClass::Unavailable),
                    listed: None,
                },
            ]
        );
        Ok(())
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_take_the_next_one_with_it() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("events.jsonl");
        fs::write(&path, "{\"at\":1,\"eve")?;
        EventLog::open(&path, NodeId::agent(1), Incarnation(2))?;
        let read = records(&path)?;
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].is_none(), read[1].is_some()), (true, true));
        Ok(())
    }
}
