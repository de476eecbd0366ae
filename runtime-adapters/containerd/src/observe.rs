//! What a container is doing: its record and its task, read together.
//!
//! They change apart and are read apart, so a pair that looks impossible is read again. What is
//! seen of an end is recorded before it is told.

use wavetank_port::{
    ContainerId, ContainerState, ContainerStats, ContainerStatus, ErrorClass, ExitCode, ExitStatus,
    ListFilter, runtime::Result,
};

use crate::api::containerd::services::containers::v1::{Container, ListContainersRequest};
use crate::api::containerd::services::tasks::v1::ListTasksRequest;
use crate::api::containerd::types::{Process, Status};
use crate::cgroup::Hierarchies;
use crate::daemon::Daemon;
use crate::error::{error, failed, found};
use crate::lifecycle::{LOOK_AGAIN, state_error};
use crate::record::{ENDED, EXTENSION, Record, Started, ended, ended_label, wall_time};
use crate::torn::{Whose, whose};

/// How often a pair that changes under our eyes is read before we give up. Each time somebody
/// else made progress, so that more than a few mean something is wrong.
const READS_MAX: usize = 8;

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Created,
    Running { pid: u32 },
    Paused { pid: u32 },
    Exited(ExitStatus),
}

/// A container at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub id: ContainerId,
    pub container: Container,
    pub record: Record,
    pub started: Option<Started>,
    pub phase: Phase,
}

impl Observed {
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. } | Phase::Paused { .. })
    }

    /// As the port says it.
    pub(crate) fn state(&self) -> ContainerState {
        let (status, pid, exit) = match self.phase {
            Phase::Created => (ContainerStatus::Created, None, None),
            Phase::Running { pid } => (ContainerStatus::Running, Some(pid), None),
            Phase::Paused { pid } => (ContainerStatus::Paused, Some(pid), None),
            Phase::Exited(exit) => (ContainerStatus::Exited, None, Some(exit)),
        };
        let started = self.started.filter(|_| status != ContainerStatus::Created);
        ContainerState {
            id: self.id.clone(),
            image: self.record.image.clone(),
            labels: self.record.labels.clone(),
            status,
            pid,
            started_at: started.map(|it| it.at),
            exit,
        }
    }
}

/// What one reading of record and task says.
enum Reading {
    Phase(Phase),
    /// The task has ended and nobody has recorded it.
    Ended(Process),
    /// Started, no task, no recorded end: lost, unless the record is older than the task's end.
    Lost,
    /// The shim does not answer.
    Silent,
    /// The task has been started, and the record is from before that.
    Stale,
}

fn read(container: &Container, task: Option<&Process>) -> Reading {
    if let Some(exit) = ended(container) {
        return Reading::Phase(Phase::Exited(exit));
    }
    let started = Started::of(container);
    let Some(task) = task else {
        return match started {
            Some(_) => Reading::Lost,
            None => Reading::Phase(Phase::Created),
        };
    };
    match task.status() {
        Status::Created => Reading::Phase(Phase::Created),
        // A shim says nothing while it makes a container or starts its process.
        Status::Unknown if started.is_none() && container.extensions.contains_key(EXTENSION) => {
            Reading::Phase(Phase::Created)
        }
        // Whoever starts a process says so first.
        Status::Running | Status::Paused | Status::Pausing | Status::Stopped
            if started.is_none() =>
        {
            Reading::Stale
        }
        Status::Running => Reading::Phase(Phase::Running { pid: task.pid }),
        Status::Paused | Status::Pausing => Reading::Phase(Phase::Paused { pid: task.pid }),
        Status::Stopped => Reading::Ended(task.clone()),
        Status::Unknown => Reading::Silent,
    }
}

impl Daemon {
    /// What the container is doing. Absent: `NotFound`.
    pub(crate) async fn observe(&self, id: &ContainerId) -> Result<Observed> {
        let mut before: Option<Container> = None;
        for _ in 0..READS_MAX {
            let container = self.container(id).await?;
            let task = self.task(id).await?;
            let reading = read(&container, task.as_ref());
            // Reading both twice with one result proves that they belong together.
            let settled = before.as_ref() == Some(&container);
            let phase = match reading {
                Reading::Phase(phase) => Some(phase),
                Reading::Lost => settled.then_some(Phase::Exited(LOST)),
                Reading::Stale => settled.then(|| not_started_by_us(&container, task.as_ref())),
                Reading::Silent => Some(silent(&container)?),
                Reading::Ended(process) => self.record_end(&container, &process).await?,
            };
            if let Some(phase) = phase {
                return Ok(observed(container, phase));
            }
            before = Some(container);
        }
        Err(error(
            ErrorClass::Unavailable,
            format!("container {id}: it changes faster than it can be read"),
        ))
    }

    /// Writes down how a container's process ended, if it was the container's. `None` if somebody
    /// else is faster: the task is deleted already, and what was recorded before that has to be
    /// read again.
    async fn record_end(&self, container: &Container, task: &Process) -> Result<Option<Phase>> {
        let id = ContainerId(container.id.clone());
        let record = Record::of(container);
        let hierarchies = Hierarchies::of_this_machine();
        let oom_kills = hierarchies.cgroup(&record.cgroup).oom_kills();
        let namespace = &self.config.namespace;
        let whose = whose(namespace, &id, task.exit_status, &record.log_dir).await;
        // The evidence goes with the task.
        if self.task(&id).await?.is_none() {
            return Ok(None);
        }
        let code = i32::try_from(task.exit_status).unwrap_or(i32::MAX);
        let exit = ExitStatus {
            code: match whose {
                Whose::Containers => ExitCode::Known(code),
                Whose::Unknown => ExitCode::Unknown,
                Whose::Runcs => return Ok(Some(Phase::Created)),
            },
            exited_at: wall_time(task.exited_at.as_ref()),
            // One of its children may have been the victim: then it goes on, or ends otherwise.
            oom_killed: code == KILLED && oom_kills.unwrap_or(0) > 0,
        };
        self.set_label(&id, ENDED, &ended_label(&exit)).await?;
        Ok(Some(Phase::Exited(exit)))
    }

    /// What a container uses that runs. Its control groups outlive its processes for a moment.
    pub(crate) async fn stats(&self, id: &ContainerId) -> Result<ContainerStats> {
        let mut why = String::new();
        for _ in 0..READS_MAX {
            let observed = self.observe(id).await?;
            if !observed.is_running() {
                return Err(state_error(id, "stats", "it does not run"));
            }
            let hierarchies = Hierarchies::of_this_machine();
            match hierarchies.cgroup(&observed.record.cgroup).usage() {
                Ok(usage) if usage.processes > 0 => return Ok(usage),
                Ok(_) => why = "no process is in it".to_owned(),
                Err(cause) => why = cause.to_string(),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let message = format!("container {id}: its cgroup: {why}");
        Err(error(ErrorClass::Unavailable, message))
    }

    /// All containers that `filter` selects, in id order.
    pub(crate) async fn list(&self, filter: &ListFilter) -> Result<Vec<ContainerState>> {
        // Tasks first: a container that starts in between is then read again, not misread.
        let tasks = self
            .connection
            .tasks()
            .list(ListTasksRequest::default())
            .await;
        let tasks = tasks.map_err(failed("tasks"))?.into_inner().tasks;
        let request = ListContainersRequest::default();
        let containers = self.connection.containers().list(request).await;
        let mut containers = containers
            .map_err(failed("containers"))?
            .into_inner()
            .containers;
        containers.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let mut states = Vec::new();
        for container in containers {
            if !selects(filter, &container) {
                continue;
            }
            let task = tasks.iter().find(|it| is_task_of(it, &container.id));
            if let Some(state) = self.listed(container, task).await?
                && filter.status.is_none_or(|it| it == state.status)
            {
                states.push(state);
            }
        }
        Ok(states)
    }

    async fn listed(
        &self,
        container: Container,
        task: Option<&Process>,
    ) -> Result<Option<ContainerState>> {
        if let Reading::Phase(phase) = read(&container, task) {
            return Ok(Some(observed(container, phase).state()));
        }
        let observed = found(self.observe(&ContainerId(container.id)).await)?;
        Ok(observed.map(|it| it.state()))
    }
}

/// 128 + SIGKILL: how a process ends that the kernel killed for memory.
const KILLED: i32 = 137;

/// The end of a process that nobody saw.
const LOST: ExitStatus = ExitStatus {
    code: ExitCode::Unknown,
    exited_at: None,
    oom_killed: false,
};

fn observed(container: Container, phase: Phase) -> Observed {
    Observed {
        id: ContainerId(container.id.clone()),
        record: Record::of(&container),
        started: Started::of(&container),
        container,
        phase,
    }
}

/// A process that we did not start. In a container of ours it is what a create that was cut short
/// left: runc's own, which ended without having become the container's. In another client's
/// container it is what the daemon says.
fn not_started_by_us(container: &Container, task: Option<&Process>) -> Phase {
    let Some(task) = task.filter(|_| !container.extensions.contains_key(EXTENSION)) else {
        return Phase::Created;
    };
    let pid = task.pid;
    match task.status() {
        Status::Running => Phase::Running { pid },
        Status::Paused | Status::Pausing => Phase::Paused { pid },
        _ => Phase::Exited(ExitStatus {
            code: ExitCode::Known(i32::try_from(task.exit_status).unwrap_or(i32::MAX)),
            exited_at: wall_time(task.exited_at.as_ref()),
            oom_killed: false,
        }),
    }
}

/// The kernel knows whether there are processes when a shim does not say; how they ended it does
/// not know, and the shim may say so later.
fn silent(container: &Container) -> Result<Phase> {
    let record = Record::of(container);
    let hierarchies = Hierarchies::of_this_machine();
    match Started::of(container) {
        Some(started) if hierarchies.cgroup(&record.cgroup).is_populated() => {
            Ok(Phase::Running { pid: started.pid })
        }
        _ => Err(error(
            ErrorClass::Unavailable,
            format!("container {}: its shim does not answer", container.id),
        )),
    }
}

/// Of everything but the status, which is not known yet.
fn selects(filter: &ListFilter, container: &Container) -> bool {
    let prefix = filter.id_prefix.as_deref().unwrap_or_default();
    let labels = Record::of(container).labels;
    let mut wanted = filter.labels.iter();
    container.id.starts_with(prefix) && wanted.all(|(key, value)| labels.get(key) == Some(value))
}

/// In a list, containerd 1.6 gives a task's container as its id only.
fn is_task_of(task: &Process, id: &str) -> bool {
    task.id == id || task.container_id == id
}
