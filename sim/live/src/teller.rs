//! Puts what a node writes into its event log into the run's log, in the words of a trace.
//!
//! A node that is killed may have made a transition of a task durable and had no time to say so.
//! Its next boot says what it has found on its disk, and what is new in that is told then.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use wavetank_model::{NodeId, Notice, ServiceName, TaskId, TaskState, TaskStatus};
use wavetank_node::events::{NodeEvent, Record};
use wavetank_node::{Os, Platform as _};
use wavetank_trace::{HostState, Payload};

use crate::log::{Log, Said};
use crate::tail::Tail;
use crate::translation::Translation;
use crate::wall_clock::WallClock;

/// How often a log is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Follows a node's event log for as long as it is polled.
pub async fn follow(
    node: NodeId,
    path: &Path,
    translation: Arc<Translation>,
    clock: Arc<WallClock>,
    log: Log,
) {
    let mut tail = Tail::of(path);
    let mut told = Told::default();
    let mut has_complained = false;
    loop {
        match tail.read() {
            Ok(lines) => lines.into_iter().for_each(|line| {
                if let Some(record) = record(line, &translation)
                    && let Some(payload) = told.payload(record.event)
                {
                    let at = clock.truth(record.at, Os::new().wall());
                    log.say(at, Some(node), Said::Event(payload));
                }
            }),
            Err(error) if !has_complained => {
                has_complained = true;
                tracing::warn!(%node, %error, "its event log cannot be read");
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn record(mut line: Value, translation: &Translation) -> Option<Record> {
    translation.planned(&mut line);
    let read = serde_json::from_value(line);
    read.inspect_err(|error| tracing::warn!(%error, "an event that no trace can hold"))
        .ok()
}

/// The newest transition of each task that a node has said or found: which, and where it led.
#[derive(Default)]
struct Told(BTreeMap<TaskId, (u64, TaskState)>);

impl Told {
    /// What an event is in a trace; `None` if it has been said before.
    fn payload(&mut self, event: NodeEvent) -> Option<Payload> {
        Some(match event {
            NodeEvent::Started { incarnation, .. } => Payload::Host {
                state: HostState::Started,
                incarnation,
            },
            NodeEvent::TransitionRecovered {
                task,
                service,
                status,
            } => {
                let notice = self.recovered(task, service, status)?;
                Payload::Notice { notice }
            }
            NodeEvent::Notice { notice } => {
                if let Notice::TaskMoved { task, status, .. } = &notice {
                    self.0.insert(*task, (status.sequence, status.state));
                }
                Payload::Notice { notice }
            }
            NodeEvent::RuntimeCalled {
                call,
                container,
                image,
            } => Payload::RuntimeCalled {
                call,
                container,
                image,
            },
            NodeEvent::RuntimeAnswered {
                call,
                container,
                error,
                listed,
            } => Payload::RuntimeAnswered {
                call,
                container,
                error,
                listed,
            },
        })
    }

    fn recovered(
        &mut self,
        task: TaskId,
        service: ServiceName,
        status: TaskStatus,
    ) -> Option<Notice> {
        // Where every task begins that an agent is given.
        let first = (0, TaskState::Assigned);
        let (sequence, from) = self.0.get(&task).copied().unwrap_or(first);
        if status.sequence <= sequence {
            return None;
        }
        self.0.insert(task, (status.sequence, status.state));
        Some(Notice::TaskMoved {
            task,
            service,
            from,
            status,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(sequence: u64, state: TaskState) -> TaskStatus {
        TaskStatus {
            state,
            sequence,
            ..TaskStatus::pending()
        }
    }

    fn web() -> ServiceName {
        ServiceName("web".into())
    }

    fn moved(sequence: u64, from: TaskState, to: TaskState) -> Notice {
        Notice::TaskMoved {
            task: TaskId(1),
            service: web(),
            from,
            status: status(sequence, to),
        }
    }

    fn recovered(sequence: u64, state: TaskState) -> NodeEvent {
        NodeEvent::TransitionRecovered {
            task: TaskId(1),
            service: web(),
            status: status(sequence, state),
        }
    }

    #[test]
    fn a_transition_that_was_durable_before_it_was_said_is_told_once() {
        let mut told = Told::default();
        let first = moved(1, TaskState::Assigned, TaskState::Accepted);
        let notice = first.clone();
        assert_eq!(
            told.payload(NodeEvent::Notice { notice }),
            Some(Payload::Notice { notice: first })
        );
        assert_eq!(told.payload(recovered(1, TaskState::Accepted)), None);
        let notice = moved(2, TaskState::Accepted, TaskState::Pulling);
        let second = told.payload(recovered(2, TaskState::Pulling));
        assert_eq!(second, Some(Payload::Notice { notice }));
        assert_eq!(told.payload(recovered(2, TaskState::Pulling)), None);
    }
}
