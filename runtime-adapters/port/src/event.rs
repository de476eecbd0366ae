//! What a runtime says by itself. Events may be lost; a listing is the truth.

use serde::{Deserialize, Serialize};

use crate::container::{ContainerId, ExitStatus, WallTime};

/// One event of a runtime's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum RuntimeEvent {
    /// The container's process runs.
    Started {
        /// Which container.
        id: ContainerId,
        /// Its process id.
        pid: u32,
        /// When, by the machine's clock.
        at: WallTime,
    },
    /// The container's process has ended.
    Exited {
        /// Which container.
        id: ContainerId,
        /// How.
        exit: ExitStatus,
    },
    /// The container is gone.
    Deleted {
        /// Which container.
        id: ContainerId,
    },
    /// The stream broke (daemon restart); events in between are lost. List to resynchronise.
    Interrupted,
}

impl RuntimeEvent {
    /// The event's name, as faults and traces spell it.
    pub fn name(&self) -> &'static str {
        match self {
            RuntimeEvent::Started { .. } => "start",
            RuntimeEvent::Exited { .. } => "exit",
            RuntimeEvent::Deleted { .. } => "delete",
            RuntimeEvent::Interrupted => "interrupted",
        }
    }

    /// The container the event is about.
    pub fn container(&self) -> Option<&ContainerId> {
        match self {
            RuntimeEvent::Started { id, .. }
            | RuntimeEvent::Exited { id, .. }
            | RuntimeEvent::Deleted { id } => Some(id),
            RuntimeEvent::Interrupted => None,
        }
    }
}
