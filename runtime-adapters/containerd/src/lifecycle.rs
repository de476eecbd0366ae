//! A container's life: create, start, wait, signals, delete.

use std::sync::Arc;
use std::time::Duration;

use oci_spec::image::Config;
use wavetank_distribution::Reference;
use wavetank_port::{
    ContainerId, ContainerSpec, ContainerState, ErrorClass, ExitCode, ExitStatus, Limits,
    RuntimeError, Signal, runtime::Result,
};

use crate::api::containerd::services::containers::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, container,
};
use crate::api::containerd::services::snapshots::v1::MountsRequest;
use crate::api::containerd::services::tasks::v1::{
    CreateTaskRequest, DeleteTaskRequest, KillRequest, PauseTaskRequest, ResumeTaskRequest,
    StartRequest, UpdateTaskRequest, WaitRequest,
};
use crate::api::containerd::types::Status;
use crate::cgroup::Hierarchies;
use crate::content::damaged;
use crate::daemon::{Daemon, about};
use crate::error::{error, found};
use crate::lease::Lease;
use crate::leftover;
use crate::logs;
use crate::observe::{Observed, Phase};
use crate::record::{EXTENSION, Record, STARTED, Started, now};
use crate::spec::{self, Place};
use crate::unpack::chain_ids;
use crate::user;

/// Between two looks at something that cannot be waited for: a container that has not started, a
/// daemon that is away.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);
const KILL: u32 = 9;

impl Daemon {
    pub(crate) async fn create(self: Arc<Self>, spec: ContainerSpec) -> Result<()> {
        spec::validate(&spec)?;
        let name = Reference::try_from(&spec.image)?.to_string();
        let target = self.image_target(&name).await?.ok_or_else(|| {
            error(
                ErrorClass::NotFound,
                format!("image {name}: it has not been pulled"),
            )
        })?;
        let image = self
            .stored(&target)
            .await?
            .ok_or_else(|| damaged(&format!("image {name}")))?;
        let parent = chain_ids(&image.config).pop().unwrap_or_default();
        let config = image.config.config().clone().unwrap_or_default();
        let lease = Lease::begin(&self).await?;
        // Named after the lease: what a create that was given up left is in nobody's way.
        let key = format!("{}-{}", spec.id, lease.id);
        let created = self
            .create_held(&lease, &spec, &name, &config, &key, &parent)
            .await;
        let Err(error) = created else {
            return lease.end().await;
        };
        // It may have been created although we were told otherwise, by a daemon that died before
        // it could answer. Garbage collection knows whether its snapshot is used.
        let _ = lease.discard().await;
        match self.container(&spec.id).await {
            Ok(container) if container.snapshot_key == key => Ok(()),
            _ => Err(error),
        }
    }

    async fn create_held(
        &self,
        lease: &Lease,
        spec: &ContainerSpec,
        name: &str,
        config: &Config,
        key: &str,
        parent: &str,
    ) -> Result<()> {
        let snapshot = self.prepare_snapshot(lease, key, parent).await?;
        let text = config.user().as_deref().unwrap_or_default();
        let cgroup = format!("/{}/{}", self.config.namespace, spec.id);
        let place = Place {
            user: user::resolve(text, &snapshot)?,
            cgroup: &cgroup,
            volumes: &self.config.volumes,
        };
        let oci = spec::build(spec, config, place)?;
        self.make_volumes(spec).await?;
        let record = Record {
            image: spec.image.clone(),
            labels: spec.labels.clone(),
            stop_signal: spec::stop_signal(spec, config),
            log_dir: self.log_dir(&spec.id),
            cgroup,
        };
        let request = CreateContainerRequest {
            container: Some(Container {
                id: spec.id.0.clone(),
                image: name.to_owned(),
                runtime: Some(container::Runtime {
                    name: self.config.runtime.clone(),
                    options: None,
                }),
                spec: Some(oci),
                snapshotter: self.config.snapshotter.clone(),
                snapshot_key: key.to_owned(),
                extensions: [(EXTENSION.to_owned(), record.to_extension())].into(),
                ..Container::default()
            }),
        };
        let answer = lease.connection.containers().create(request).await;
        answer.map(drop).map_err(about(&spec.id))
    }

    /// They outlive the container: what a volume is for.
    async fn make_volumes(&self, spec: &ContainerSpec) -> Result<()> {
        for name in &spec.volumes {
            let made = tokio::fs::create_dir_all(self.config.volumes.join(name)).await;
            made.map_err(|it| local(&spec.id, &it))?;
        }
        Ok(())
    }

    pub(crate) async fn start(self: Arc<Self>, id: ContainerId) -> Result<ContainerState> {
        let mut observed = self.observe(&id).await?;
        if observed.phase != Phase::Created {
            return Err(state_error(&id, "start", "it was started before"));
        }
        self.undo_start(&id).await?;
        let pid = self.create_task(&observed).await?;
        let started = Started { at: now(), pid };
        self.set_label(&id, STARTED, &started.to_label()).await?;
        if let Err(error) = self.start_task(&id).await {
            return self.started_after_all(&id, error).await;
        }
        observed.started = Some(started);
        observed.phase = Phase::Running { pid };
        Ok(observed.state())
    }

    /// A start that failed with `error` may have been one all the same: a daemon may die before it
    /// can answer. If it was none, the container is as before. If its shim is gone nobody can
    /// know: then it counts as started, and its end as lost.
    async fn started_after_all(
        &self,
        id: &ContainerId,
        error: RuntimeError,
    ) -> Result<ContainerState> {
        let task = self.task(id).await?;
        let stopped = task.is_some_and(|it| it.status() == Status::Stopped);
        // Where runc itself refuses, what has stopped is not the container's process.
        let refused = stopped && error.class != ErrorClass::Unavailable;
        if !refused {
            let observed = self.observe(id).await?;
            match observed.phase {
                Phase::Created => {}
                // Not even that there is no such thing: its record was just read.
                Phase::Exited(exit) if exit.code == ExitCode::Unknown => {
                    return Err(RuntimeError::new(ErrorClass::Unavailable, error.message));
                }
                _ => return Ok(observed.state()),
            }
        }
        self.undo_start(id).await?;
        Err(error)
    }

    /// Takes away what a start left that came to nothing as far as its shim knows: it may not be
    /// whole. A process that the shim does not know to be the container's is killed with it, and
    /// begins anew. In this order, because started and without a task is lost.
    async fn undo_start(&self, id: &ContainerId) -> Result<()> {
        if self.container(id).await?.labels.contains_key(STARTED) {
            self.set_label(id, STARTED, "").await?;
        }
        if self.task(id).await?.is_some() {
            self.delete_task(id).await?;
        }
        Ok(())
    }

    async fn create_task(&self, observed: &Observed) -> Result<u32> {
        let id = &observed.id;
        let request = MountsRequest {
            snapshotter: observed.container.snapshotter.clone(),
            key: observed.container.snapshot_key.clone(),
        };
        let answer = self.connection.snapshots().mounts(request).await;
        let rootfs = answer.map_err(about(id))?.into_inner().mounts;
        let dir = &observed.record.log_dir;
        let outputs = logs::make_files(dir).await.map_err(|it| local(id, &it))?;
        let request = CreateTaskRequest {
            container_id: id.0.clone(),
            rootfs,
            stdout: outputs.0.display().to_string(),
            stderr: outputs.1.display().to_string(),
        };
        loop {
            let answer = self.connection.tasks().create(request.clone()).await;
            match answer.map_err(about(id)) {
                Ok(answer) => return Ok(answer.into_inner().pid),
                // There is a task, and there is none: a shim that is dying, or one that never got a
                // container because the daemon died first. Deleting removes the latter.
                Err(error)
                    if error.class == ErrorClass::AlreadyExists
                        && self.task(id).await?.is_none() =>
                {
                    let _ = self.remove_task(id).await;
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Err(error) if leftover::removed(&self.config, id, &error.message) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn start_task(&self, id: &ContainerId) -> Result<()> {
        let request = StartRequest {
            container_id: id.0.clone(),
            exec_id: String::new(),
        };
        let answer = self.connection.tasks().start(request).await;
        answer.map(drop).map_err(about(id))
    }

    /// Answers when the process has ended, however often the daemon goes away meanwhile.
    pub(crate) async fn wait(&self, id: &ContainerId) -> Result<ExitStatus> {
        loop {
            match self.observe(id).await {
                Ok(observed) => match observed.phase {
                    Phase::Exited(exit) => return Ok(exit),
                    Phase::Created => tokio::time::sleep(LOOK_AGAIN).await,
                    Phase::Running { .. } | Phase::Paused { .. } => self.wait_for_task(id).await,
                },
                Err(error) if error.class == ErrorClass::Unavailable => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Answers when there may be something new: what it is must be looked at.
    async fn wait_for_task(&self, id: &ContainerId) {
        let request = WaitRequest {
            container_id: id.0.clone(),
            exec_id: String::new(),
        };
        // A shim that died or a daemon that is away is asked again, but not at once.
        if self.connection.tasks().wait(request).await.is_err() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    pub(crate) async fn stop(
        &self,
        id: &ContainerId,
        grace: Duration,
    ) -> Result<Option<ExitStatus>> {
        let observed = self.observe(id).await?;
        match observed.phase {
            Phase::Exited(exit) => return Ok(Some(exit)),
            Phase::Created => return Ok(None),
            Phase::Running { .. } | Phase::Paused { .. } => {}
        }
        if !grace.is_zero() {
            found(self.signal(id, observed.record.stop_signal.into()).await)?;
            if let Ok(exit) = tokio::time::timeout(grace, self.wait(id)).await {
                return exit.map(Some);
            }
        }
        found(self.signal(id, KILL).await)?;
        self.wait(id).await.map(Some)
    }

    pub(crate) async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<()> {
        if !signal.is_valid() {
            let message = format!("container {id}: {} is no signal", signal.number());
            return Err(error(ErrorClass::InvalidArgument, message));
        }
        match self.observe(id).await?.phase {
            Phase::Created => Err(state_error(id, "kill", "it never started")),
            Phase::Exited(_) => Err(ended(id)),
            Phase::Running { .. } | Phase::Paused { .. } => {
                self.signal(id, signal.number().unsigned_abs()).await
            }
        }
    }

    /// Sends a signal to a process that ran a moment ago. While its task goes, the daemon may say
    /// anything.
    async fn signal(&self, id: &ContainerId, signal: u32) -> Result<()> {
        let Err(error) = self.send_signal(id, signal).await else {
            return Ok(());
        };
        match self.observe(id).await {
            Ok(observed) if !observed.is_running() => Err(ended(id)),
            Err(absent) if absent.class == ErrorClass::NotFound => Err(absent),
            _ => Err(error),
        }
    }

    async fn send_signal(&self, id: &ContainerId, signal: u32) -> Result<()> {
        let request = KillRequest {
            container_id: id.0.clone(),
            signal,
            ..KillRequest::default()
        };
        let answer = self.connection.tasks().kill(request).await;
        answer.map(drop).map_err(about(id))
    }

    pub(crate) async fn pause(self: Arc<Self>, id: ContainerId) -> Result<()> {
        match self.observe(&id).await?.phase {
            Phase::Running { .. } => {}
            _ => return Err(state_error(&id, "pause", "it does not run")),
        }
        let request = PauseTaskRequest {
            container_id: id.0.clone(),
        };
        let answer = self.connection.tasks().pause(request).await;
        let answer = answer.map(drop).map_err(about(&id));
        self.unless_ended(&id, "pause", answer).await
    }

    pub(crate) async fn resume(self: Arc<Self>, id: ContainerId) -> Result<()> {
        match self.observe(&id).await?.phase {
            Phase::Paused { .. } => {}
            _ => return Err(state_error(&id, "resume", "it is not paused")),
        }
        let request = ResumeTaskRequest {
            container_id: id.0.clone(),
        };
        let answer = self.connection.tasks().resume(request).await;
        let answer = answer.map(drop).map_err(about(&id));
        self.unless_ended(&id, "resume", answer).await
    }

    pub(crate) async fn update(self: Arc<Self>, id: ContainerId, limits: Limits) -> Result<()> {
        if !self.observe(&id).await?.is_running() {
            return Err(state_error(&id, "update", "it does not run"));
        }
        let request = UpdateTaskRequest {
            container_id: id.0.clone(),
            resources: Some(spec::limits(&limits)?),
        };
        let answer = self.connection.tasks().update(request).await;
        let answer = answer.map(drop).map_err(about(&id));
        self.unless_ended(&id, "update", answer).await
    }

    /// What became of a call to a process that ran a moment ago.
    async fn unless_ended(&self, id: &ContainerId, call: &str, answer: Result<()>) -> Result<()> {
        let Err(error) = answer else {
            return Ok(());
        };
        match self.observe(id).await?.is_running() {
            true => Err(error),
            false => Err(state_error(id, call, "it has ended")),
        }
    }

    /// Removes all that the container had, its record last: until then a delete can be repeated.
    pub(crate) async fn delete(self: Arc<Self>, id: ContainerId, force: bool) -> Result<()> {
        let observed = self.observe(&id).await?;
        if observed.is_running() {
            if !force {
                return Err(state_error(&id, "delete", "it runs"));
            }
            found(self.signal(&id, KILL).await)?;
            // Its end is recorded before its task goes, so that nobody finds it lost.
            found(self.wait(&id).await)?;
        }
        self.delete_task(&id).await?;
        self.remove_snapshot(&observed.container.snapshot_key)
            .await?;
        remove_dir(&id, &observed.record.log_dir).await?;
        Hierarchies::of_this_machine()
            .cgroup(&observed.record.cgroup)
            .remove();
        let request = DeleteContainerRequest { id: id.0.clone() };
        let answer = self.connection.containers().delete(request).await;
        answer.map(drop).map_err(about(&id))
    }

    /// Deletes the task, there or not. One that was created and never started is killed first.
    pub(crate) async fn delete_task(&self, id: &ContainerId) -> Result<()> {
        let Some(task) = self.task(id).await? else {
            // A shim without a container is no task, and goes all the same. One that has died is
            // in the daemon's hands.
            let _ = self.remove_task(id).await;
            return Ok(());
        };
        if task.status() == Status::Created {
            found(self.send_signal(id, KILL).await)?;
            self.wait_for_task(id).await;
        }
        match found(self.remove_task(id).await) {
            // Somebody else has removed it meanwhile, and its shim with it.
            Err(error) if self.task(id).await?.is_some() => Err(error),
            _ => Ok(()),
        }
    }

    async fn remove_task(&self, id: &ContainerId) -> Result<()> {
        let request = DeleteTaskRequest {
            container_id: id.0.clone(),
        };
        let answer = self.connection.tasks().delete(request).await;
        answer.map(drop).map_err(about(id))
    }
}

/// A call that the container's state forbids.
pub(crate) fn state_error(id: &ContainerId, call: &str, why: &str) -> RuntimeError {
    error(
        ErrorClass::FailedPrecondition,
        format!("container {id}: cannot {call}: {why}"),
    )
}

/// A signal that came too late.
fn ended(id: &ContainerId) -> RuntimeError {
    let message = format!("container {id}: its process has ended");
    error(ErrorClass::NotFound, message)
}

/// An error of our own file system.
pub(crate) fn local(id: &ContainerId, cause: &std::io::Error) -> RuntimeError {
    let class = match cause.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            ErrorClass::ResourceExhausted
        }
        _ => ErrorClass::Unknown,
    };
    error(class, format!("container {id}: {cause}"))
}

async fn remove_dir(id: &ContainerId, dir: &std::path::Path) -> Result<()> {
    if dir.as_os_str().is_empty() {
        return Ok(());
    }
    match tokio::fs::remove_dir_all(dir).await {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(local(id, &cause)),
        _ => Ok(()),
    }
}
