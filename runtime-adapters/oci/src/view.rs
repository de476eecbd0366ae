//! What the adapter sees of one container: files and process table, once they agree.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use wavetank_port::{
    ContainerId, ContainerState, ContainerStatus, ErrorClass, ImageReference, RuntimeError,
};

use crate::cgroup::Cgroup;
use crate::deadline::{Result, unknown};
use crate::readiness::readiness;
use crate::record::{ContainerFolder, Facts, Phase, Record};
use crate::sealed::Sealed;

/// How long an observation waits for a monitor to record an end that has happened. A monitor
/// needs milliseconds; one that was stopped may need for ever, and then what is recorded stands.
pub const RECORDED_WITHIN: Duration = Duration::from_secs(1);

/// One container at one moment.
#[derive(Debug)]
pub struct View {
    /// Its folder.
    pub folder: ContainerFolder,
    /// What was asked for.
    pub record: Record,
    /// Its files.
    pub facts: Facts,
    /// Where it is.
    pub phase: Phase,
    /// Whether its monitor lives.
    pub is_watched: bool,
}

impl View {
    /// Looks once. `None`: there is no such container, or not yet or no longer.
    pub fn look(containers: &Path, id: &ContainerId) -> Result<Option<Self>> {
        let folder = ContainerFolder::new(containers, id);
        let looked = Self::look_into(folder.clone()).map_err(|error| unknown(&error))?;
        match looked {
            Some(view) if view.facts.deleting || view.phase == Phase::HalfMade => Ok(None),
            Some(view) => Ok(Some(view)),
            None => match folder.record().map_err(|error| unknown(&error))? {
                // Somebody's container, and we cannot say whose: neither absent nor to be removed.
                Sealed::Damaged(reason) => Err(RuntimeError::new(
                    ErrorClass::Unknown,
                    format!("the record of {id} is damaged: {reason}"),
                )),
                Sealed::Absent | Sealed::Valid(_) => Ok(None),
            },
        }
    }

    /// Looks once into a folder, whatever it holds. `None`: it has no readable record.
    pub fn look_into(folder: ContainerFolder) -> io::Result<Option<Self>> {
        let Sealed::Valid(record) = folder.record()? else {
            return Ok(None);
        };
        let facts = folder.facts()?;
        let is_watched = facts.is_watched()?;
        let mut phase = facts.phase()?;
        let mut facts = facts;
        if phase == Phase::Ending && !is_watched {
            // The monitor may have recorded the end and left between the two looks.
            facts = folder.facts()?;
            phase = facts.phase()?;
        }
        Ok(Some(View {
            folder,
            record,
            facts,
            phase,
            is_watched,
        }))
    }

    /// True if somebody should act before this can be shown: see `settle`.
    pub fn is_unsettled(&self) -> bool {
        match self.phase {
            Phase::Ending => true,
            Phase::Created | Phase::Running => !self.is_watched,
            // A monitor takes its file away when all is told.
            Phase::Exited(_) => self.facts.monitor.exists() && !self.is_watched,
            Phase::HalfMade | Phase::Refused(_) => false,
        }
    }

    /// The state as the port has it.
    pub fn state(&self) -> Result<ContainerState> {
        let status = self.status()?;
        let pid = match status {
            ContainerStatus::Running | ContainerStatus::Paused => self.facts.identity(),
            ContainerStatus::Created | ContainerStatus::Exited => None,
        };
        Ok(ContainerState {
            id: self.record.spec.id.clone(),
            image: ImageReference(self.record.image_reference.clone()),
            labels: self.record.spec.labels.clone(),
            status,
            pid: pid.map(|identity| identity.pid),
            started_at: self.facts.started_at(),
            exit: match self.phase {
                Phase::Exited(exit) => Some(exit),
                _ => None,
            },
        })
    }

    /// The status as the port has it.
    pub fn status(&self) -> Result<ContainerStatus> {
        Ok(match self.phase {
            Phase::HalfMade | Phase::Created | Phase::Refused(_) => ContainerStatus::Created,
            Phase::Exited(_) => ContainerStatus::Exited,
            // Ended, but its monitor is held up and has not said how: what it said last stands.
            Phase::Ending if !self.facts.started.exists() => ContainerStatus::Created,
            Phase::Running | Phase::Ending => {
                let cgroup = Cgroup::open(&self.record.cgroup).map_err(|error| unknown(&error))?;
                if cgroup.is_frozen() {
                    ContainerStatus::Paused
                } else {
                    ContainerStatus::Running
                }
            }
        })
    }

    /// A handle of its monitor, if it lives.
    pub fn monitor(&self) -> io::Result<Option<OwnedFd>> {
        match &self.facts.monitor {
            Sealed::Valid(monitor) => monitor.open(),
            Sealed::Absent | Sealed::Damaged(_) => Ok(None),
        }
    }

    /// A handle of its process, if it is there.
    pub fn process(&self) -> io::Result<Option<OwnedFd>> {
        match self.facts.identity() {
            Some(identity) => identity.open(),
            None => Ok(None),
        }
    }
}

/// Waits for a process to end.
pub async fn ended(handle: OwnedFd) -> Result<()> {
    let handle = readiness(handle).map_err(|error| unknown(&error))?;
    let ready = handle.readable().await.map_err(|error| unknown(&error))?;
    drop(ready);
    Ok(())
}
