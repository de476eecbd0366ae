//! What all calls share: the way to the service, the namespace, and the look at one container
//! that is the truth for everything else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use wavetank_port::{ContainerId, ContainerStatus, ErrorClass, ExitCode, ExitStatus, ListFilter};

use crate::config::{Namespace, PodmanConfig};
use crate::error::{Error, Result};
use crate::observed::{KILLED, Memory, Observed};
use crate::process::{Init, Processes};
use crate::transport::{Call, Client};
use crate::{kernel_log, names, process};

/// What the storage below Podman says of a container that it does not have, or not all of.
const HALF_REMOVED: [&str; 2] = ["container not known", "layer not known"];

/// One namespace of one Podman service.
pub(crate) struct Service {
    pub(crate) client: Client,
    pub(crate) namespace: Namespace,
    pub(crate) memory: Memory,
    turns: Turns,
    /// Containers that may leave something behind when they are deleted, which they may be already:
    /// their ids in Podman.
    half_deleted: Mutex<BTreeMap<ContainerId, String>>,
}

impl Service {
    pub(crate) fn new(config: PodmanConfig) -> Self {
        Service {
            client: Client::new(config.endpoint),
            namespace: config.namespace,
            memory: Memory::default(),
            turns: Turns::default(),
            half_deleted: Mutex::default(),
        }
    }

    /// The path of something about one container.
    pub(crate) fn container_path(&self, id: &ContainerId, what: &str) -> Result<String> {
        let name = names::container_name(&self.namespace, id).map_err(|error| as_absent(&error))?;
        Ok(format!("/containers/{name}{what}"))
    }

    /// The truth about one container.
    pub(crate) async fn observe(&self, id: &ContainerId) -> Result<Observed> {
        let mut seen = self.inspect(id).await?;
        if self.is_lost(&seen).await {
            // Between the two looks the monitor may have reported and gone. A second answer that
            // still says "running", asked for after both were gone, was not waiting for anything.
            seen = self.inspect(id).await?;
            if self.is_lost(&seen).await {
                seen.lose();
            }
        }
        self.judge_memory_kill(&mut seen).await;
        self.memory.keep(&seen);
        Ok(seen)
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Observed> {
        let call = Call::get(self.container_path(id, "/json")?);
        match self.client.send(call).await {
            Ok(reply) => Observed::new(id, reply.json().await?),
            Err(Error::Refused { cause, .. }) if HALF_REMOVED.contains(&cause.as_str()) => {
                self.inspect_half_removed(id).await
            }
            Err(error) => Err(error),
        }
    }

    /// A service that died within a removal leaves a record without a file system. Podman lists
    /// that and cannot inspect it.
    async fn inspect_half_removed(&self, id: &ContainerId) -> Result<Observed> {
        let name = names::container_name(&self.namespace, id)?;
        let rows = self.rows(&ListFilter::default()).await?;
        match rows.into_iter().find(|it| it.names.contains(&name)) {
            Some(row) => {
                let mut seen = Observed::new(id, row.into())?;
                seen.is_stuck = true;
                Ok(seen)
            }
            None => Err(Error::ours(
                ErrorClass::NotFound,
                format!("container {id} is gone"),
            )),
        }
    }

    /// True if Podman says that it runs, and its processes here say that it cannot.
    pub(crate) async fn is_lost(&self, seen: &Observed) -> bool {
        let lost = self.ask_processes(seen, Processes::are_gone).await;
        lost.unwrap_or(false)
    }

    /// How the end of its process can be waited for.
    pub(crate) async fn hold_init(&self, seen: &Observed) -> Init {
        let init = self.ask_processes(seen, Processes::hold_init).await;
        init.unwrap_or(Init::Elsewhere)
    }

    /// `None` where the service's processes are not to be seen from here.
    async fn ask_processes<T: Send + 'static>(
        &self,
        seen: &Observed,
        ask: impl FnOnce(&Processes) -> T + Send + 'static,
    ) -> Option<T> {
        let processes = seen.processes.clone()?;
        let pid_file = seen.pid_file.clone();
        if !self.client.shares_processes() {
            return None;
        }
        aside(move || process::pid_file_holds(&pid_file, processes.init).then(|| ask(&processes)))
            .await
            .flatten()
    }

    /// Asks the kernel's log, once per container, what Podman does not say.
    async fn judge_memory_kill(&self, seen: &mut Observed) {
        if !seen.may_be_out_of_memory() || !self.client.shares_processes() {
            return;
        }
        let known = self.memory.recall(&seen.podman_id);
        let oom_killed = match known.and_then(|it| it.state.exit) {
            Some(exit) => exit.oom_killed,
            None => {
                let pid_file = Some(seen.pid_file.clone());
                self.was_memory_kill(&seen.podman_id, pid_file).await
            }
        };
        if let Some(exit) = &mut seen.state.exit {
            exit.oom_killed = oom_killed;
        }
    }

    /// Whether the kernel's log says that it was killed for memory. Somebody else may be removing
    /// the container, and the file with its process id is gone.
    async fn was_memory_kill(&self, podman_id: &str, pid_file: Option<String>) -> bool {
        let known = self.memory.recall(podman_id).and_then(|it| it.state.pid);
        let podman_id = podman_id.to_owned();
        let asked = aside(move || {
            let pid = known.or_else(|| process::pid_in_file(&pid_file?));
            kernel_log::was_killed_for_memory(&podman_id, pid)
        });
        asked.await.unwrap_or(false)
    }

    /// An end of which only an event tells, with what the event does not say.
    pub(crate) async fn judge_told_end(&self, podman_id: &str, mut exit: ExitStatus) -> ExitStatus {
        if exit.code == ExitCode::Known(KILLED) && self.client.shares_processes() {
            exit.oom_killed = self.was_memory_kill(podman_id, None).await;
        }
        exit
    }

    /// A container that has not ended as it should is about to be deleted.
    pub(crate) fn note_half_deleted(&self, id: &ContainerId, podman_id: &str) {
        self.half_deleted().insert(id.clone(), podman_id.to_owned());
    }

    /// Kills what lives on of such a container, which is gone now, if it lives here.
    pub(crate) async fn end_half_deleted(&self, id: &ContainerId) {
        let noted = self.half_deleted().remove(id);
        if let Some(podman_id) = noted
            && self.client.shares_processes()
        {
            aside(move || process::kill_left_behind(&podman_id)).await;
        }
    }

    fn half_deleted(&self) -> MutexGuard<'_, BTreeMap<ContainerId, String>> {
        let half_deleted = self.half_deleted.lock();
        half_deleted.unwrap_or_else(PoisonError::into_inner)
    }

    /// Unmounts what a service that died within a start had mounted and not yet noted: Podman
    /// would take its record apart, fail on the mount, and keep the rest for ever.
    pub(crate) async fn unmount_left_behind(&self, seen: &Observed) {
        if self.client.shares_processes() {
            let (folder, podman_id) = (seen.static_dir.clone(), seen.podman_id.clone());
            aside(move || process::unmount_left_behind(&folder, &podman_id)).await;
        }
    }

    /// The truth, where only a process that has begun and not ended will do.
    pub(crate) async fn observe_running(&self, id: &ContainerId) -> Result<Observed> {
        let seen = self.observe(id).await?;
        match seen.state.status {
            ContainerStatus::Running | ContainerStatus::Paused => Ok(seen),
            status => Err(Error::ours(
                ErrorClass::FailedPrecondition,
                format!("container {id} is {}, not running", word(status)),
            )),
        }
    }

    /// Keeps others of this process from making or starting the same container meanwhile: Podman
    /// would run one that has ended a second time, and has no call that refuses to.
    pub(crate) async fn turn(&self, id: &ContainerId) -> tokio::sync::OwnedMutexGuard<()> {
        self.turns.of(id).lock_owned().await
    }
}

/// An id that no container can have is the id of none.
fn as_absent(error: &Error) -> Error {
    Error::ours(ErrorClass::NotFound, error.to_string())
}

/// A state as messages spell it.
pub(crate) fn word(status: ContainerStatus) -> &'static str {
    match status {
        ContainerStatus::Created => "created",
        ContainerStatus::Running => "running",
        ContainerStatus::Paused => "paused",
        ContainerStatus::Exited => "exited",
    }
}

/// Runs what reads files on a thread that may wait for them. `None` if it could not be run.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// A lock for each container that is being made or started; none for the rest.
#[derive(Default)]
struct Turns {
    by_id: Mutex<BTreeMap<ContainerId, Weak<tokio::sync::Mutex<()>>>>,
}

impl Turns {
    fn of(&self, id: &ContainerId) -> Arc<tokio::sync::Mutex<()>> {
        let mut by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        by_id.retain(|_, it| it.strong_count() > 0);
        if let Some(lock) = by_id.get(id).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        by_id.insert(id.clone(), Arc::downgrade(&lock));
        lock
    }
}
