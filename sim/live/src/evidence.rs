//! What follows for the truth from what a node was told. An observer looks now and then, so it
//! learns late that something has happened, and often not when. A node whose runtime said that a
//! container runs knows that it has started by then: that is the latest time at which it can have.

use wavetank_model::{InstanceId, Notice};
use wavetank_port::ContainerId;
use wavetank_trace::Payload;

/// What must have happened to a container when something is said about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Created,
    Started,
    Exited,
    Deleted,
}

/// A container, and what must have happened to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    container: ContainerId,
    stage: Stage,
}

impl Evidence {
    /// What an event proves, if it proves anything.
    pub fn of(payload: &Payload) -> Option<Evidence> {
        match payload {
            Payload::RuntimeAnswered {
                call,
                container: Some(container),
                error: None,
                ..
            } => {
                let stage = match call.as_str() {
                    "create" => Stage::Created,
                    "start" => Stage::Started,
                    "delete" => Stage::Deleted,
                    _ => return None,
                };
                let container = container.clone();
                Some(Evidence { container, stage })
            }
            Payload::Notice {
                notice: Notice::ExitObserved { instance, .. },
            } => Some(Evidence {
                container: instance.container_id(),
                stage: Stage::Exited,
            }),
            Payload::Notice {
                notice: Notice::TaskMoved { task, status, .. },
            } if status.exit.is_some() => Some(Evidence {
                container: InstanceId {
                    task: *task,
                    attempt: status.attempt,
                }
                .container_id(),
                stage: Stage::Exited,
            }),
            _ => None,
        }
    }

    /// Whether it proves that this has happened.
    pub fn proves(&self, truth: &Payload) -> bool {
        let (container, stage) = match truth {
            Payload::ContainerCreated { container, .. } => (container, Stage::Created),
            Payload::ContainerStarted { container, .. } => (container, Stage::Started),
            Payload::ContainerExited { container, .. }
            | Payload::ContainerExitForgotten { container } => (container, Stage::Exited),
            Payload::ContainerDeleted { container } => (container, Stage::Deleted),
            _ => return false,
        };
        *container == self.container && stage <= self.stage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(call: &str) -> Payload {
        Payload::RuntimeAnswered {
            call: call.to_owned(),
            container: Some(ContainerId("wt-task-1.1".to_owned())),
            error: None,
            listed: None,
        }
    }

    #[test]
    fn an_answer_proves_what_it_says_and_all_before_it() {
        let created = |id: &str| Payload::ContainerCreated {
            container: ContainerId(id.to_owned()),
            volumes: Vec::new(),
        };
        let deleted = Payload::ContainerDeleted {
            container: ContainerId("wt-task-1.1".to_owned()),
        };
        let start = Evidence::of(&answered("start")).expect("it proves something");
        assert!(start.proves(&created("wt-task-1.1")));
        assert!(!start.proves(&created("wt-task-2.1")));
        assert!(!start.proves(&deleted));
        assert_eq!(Evidence::of(&answered("inspect")), None);
    }
}
