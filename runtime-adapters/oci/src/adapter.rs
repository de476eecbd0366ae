//! The adapter itself: where things are, and how a container that is in between comes to rest.
//!
//! It keeps nothing in memory that is not on disk; any number of adapters, in any number of
//! programs, may work on one root.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::process::Child;
use tokio::task::JoinSet;
use wavetank_distribution::Client;
use wavetank_port::{ContainerId, ErrorClass, RuntimeError};

use crate::clock;
use crate::config::Config;
use crate::deadline::{Lock, Result, Sharing, blocking, to_its_end, unknown, within};
use crate::ending::{self, End, Telling};
use crate::images::{ImageStore, Puller};
use crate::journal::Journal;
use crate::monitor::protocol::Verb;
use crate::monitor_client::{ask, spawn};
use crate::process::has_ended;
use crate::record::{ContainerFolder, Phase, file, is_valid_id};
use crate::runtime_binary::RuntimeBinary;
use crate::sealed;
use crate::view::{RECORDED_WITHIN, View, ended};

/// Containers run by an OCI runtime's binary. Cheap to share.
#[derive(Clone)]
pub struct OciRuntime {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) containers: PathBuf,
    pub(crate) volumes: PathBuf,
    pub(crate) trash: PathBuf,
    pub(crate) runtime: RuntimeBinary,
    pub(crate) journal: Journal,
    pub(crate) images: ImageStore,
    pub(crate) puller: Puller,
    /// Whoever waits for a monitor's end, to take over what it leaves behind.
    attendants: Mutex<JoinSet<()>>,
}

impl OciRuntime {
    /// Opens the root, finishes what was left half done there, and takes over the containers whose
    /// monitors have died. Must be called within a tokio runtime.
    pub async fn open(config: Config, limit: Duration) -> Result<Self> {
        config.check()?;
        within(limit, "open", async {
            let shared = blocking(move || Shared::open(config).map_err(|it| unknown(&it))).await?;
            let runtime = OciRuntime {
                shared: Arc::new(shared),
            };
            runtime.shared.recover().await?;
            Ok(runtime)
        })
        .await
    }
}

impl Shared {
    fn open(config: Config) -> io::Result<Self> {
        let folder = |name: &str| {
            let path = config.root.join(name);
            fs::create_dir_all(&path).map(|()| path)
        };
        let images = ImageStore::open(&folder("images")?)?;
        let client = Client::new(config.registries.clone());
        Ok(Shared {
            containers: folder("containers")?,
            volumes: folder("volumes")?,
            trash: folder("trash")?,
            runtime: RuntimeBinary::new(&config.runtime, &config.runtime_root),
            journal: Journal::open(&folder("events")?)?,
            puller: Puller::new(images.clone(), client),
            images,
            attendants: Mutex::new(JoinSet::new()),
            config,
        })
    }

    /// The ids of all folders, whatever is in them.
    pub(crate) fn ids(&self) -> Result<Vec<ContainerId>> {
        let mut ids = Vec::new();
        for item in fs::read_dir(&self.containers).map_err(|error| unknown(&error))? {
            let name = item.map_err(|error| unknown(&error))?.file_name();
            let id = name.to_str().map(|name| ContainerId(name.to_owned()));
            ids.extend(id.filter(is_valid_id));
        }
        ids.sort();
        Ok(ids)
    }

    pub(crate) fn folder(&self, id: &ContainerId) -> ContainerFolder {
        ContainerFolder::new(&self.containers, id)
    }

    /// The container, at rest if it comes to rest soon. Absent: `NotFound`.
    pub(crate) async fn view(self: &Arc<Self>, id: &ContainerId) -> Result<View> {
        if !is_valid_id(id) {
            return Err(not_found(id));
        }
        let view = self.look(id).await?;
        if view.is_unsettled() {
            return self.settle(view).await;
        }
        Ok(view)
    }

    async fn look(self: &Arc<Self>, id: &ContainerId) -> Result<View> {
        let (shared, wanted) = (self.clone(), id.clone());
        let view = blocking(move || View::look(&shared.containers, &wanted)).await?;
        view.ok_or_else(|| not_found(id))
    }

    /// Brings a container to rest: an end is recorded, a living process has a monitor. Where that
    /// does not come about in time, the last look stands.
    pub(crate) async fn settle(self: &Arc<Self>, mut view: View) -> Result<View> {
        let deadline = tokio::time::Instant::now() + RECORDED_WITHIN;
        while view.is_unsettled() {
            let nobody_else = !view.is_watched;
            let step = match view.phase {
                // It is for us to record the end, however slow the disk is.
                Phase::Ending | Phase::Exited(_) if nobody_else => {
                    Ok(self.conclude(&view.folder).await)
                }
                _ => tokio::time::timeout_at(deadline, self.settle_once(&view)).await,
            };
            let id = view.record.spec.id.clone();
            view = self.look(&id).await?;
            match step {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%id, %error, "the container cannot be taken over");
                    return Ok(view);
                }
                Err(_) => return Ok(view),
            }
        }
        Ok(view)
    }

    async fn settle_once(self: &Arc<Self>, view: &View) -> Result<()> {
        if let Some(monitor) = view.monitor().map_err(|error| unknown(&error))?
            && view.is_watched
        {
            return ended(monitor).await;
        }
        match view.phase {
            Phase::Created | Phase::Running => self.adopt(&view.folder).await,
            // The monitor has left meanwhile: the next look shows what it recorded.
            Phase::Ending | Phase::Exited(_) | Phase::HalfMade | Phase::Refused(_) => Ok(()),
        }
    }

    /// Gives a living container whose monitor died a new one. Whoever waits for the lock may lose
    /// patience; once it is held, a new monitor must be told what it is for.
    async fn adopt(self: &Arc<Self>, folder: &ContainerFolder) -> Result<()> {
        let Some(lock) = Lock::acquire(folder.path(), Sharing::Alone).await? else {
            return Ok(());
        };
        to_its_end(self.clone().adopt_locked(folder.clone(), lock)).await
    }

    /// The same under the container's lock. Must be run to its end.
    async fn adopt_locked(self: Arc<Self>, folder: ContainerFolder, _lock: Lock) -> Result<()> {
        let view = View::look_into(folder.clone()).map_err(|error| unknown(&error))?;
        let orphaned =
            |view: &View| !view.is_watched && matches!(view.phase, Phase::Created | Phase::Running);
        if !view.as_ref().is_some_and(orphaned) {
            return Ok(());
        }
        let child = spawn(&self.config.monitor, &folder)?;
        self.attend_child(&folder, child);
        ask(&folder, Verb::Adopt).await
    }

    /// Records the end of a container that nobody watches any more, as far as it can be known, and
    /// tells of it.
    async fn conclude(self: &Arc<Self>, folder: &ContainerFolder) -> Result<()> {
        let Some(_lock) = Lock::acquire(folder.path(), Sharing::Alone).await? else {
            return Ok(());
        };
        let folder = folder.clone();
        blocking(move || conclude(&folder).map_err(|error| unknown(&error))).await
    }

    /// Reaps the monitor when it ends, and takes over if it was killed.
    pub(crate) fn attend_child(self: &Arc<Self>, folder: &ContainerFolder, mut child: Child) {
        self.attend(folder, async move {
            // An error leaves the reaping to the async runtime.
            let _ = child.wait().await;
        });
    }

    /// Waits for somebody else's monitor, and takes over if it is killed.
    fn attend_stranger(self: &Arc<Self>, view: &View) -> Result<()> {
        if let Some(monitor) = view.monitor().map_err(|error| unknown(&error))? {
            self.attend(&view.folder, async move {
                let _ = ended(monitor).await;
            });
        }
        Ok(())
    }

    fn attend(
        self: &Arc<Self>,
        folder: &ContainerFolder,
        end: impl Future<Output = ()> + Send + 'static,
    ) {
        let (shared, folder) = (Arc::downgrade(self), folder.clone());
        let mut attendants = self
            .attendants
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while attendants.try_join_next().is_some() {}
        attendants.spawn(async move {
            end.await;
            take_over(&shared, folder).await;
        });
    }

    /// What an adapter does first: finishes deletions, removes what was half made, takes over.
    async fn recover(self: &Arc<Self>) -> Result<()> {
        let shared = self.clone();
        for id in blocking(move || shared.ids()).await? {
            if let Err(error) = self.recover_container(&id).await {
                // One broken container must not keep the others from being run.
                tracing::warn!(%id, %error, "the container cannot be recovered");
            }
        }
        let shared = self.clone();
        blocking(move || shared.sweep()).await
    }

    async fn recover_container(self: &Arc<Self>, id: &ContainerId) -> Result<()> {
        let folder = self.folder(id);
        self.finish_removal(&folder).await?;
        match self.view(id).await {
            Ok(view) if view.is_watched => self.attend_stranger(&view),
            Ok(_) => Ok(()),
            Err(error) if error.class == ErrorClass::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes what nothing needs any more, where nobody else is at work.
    fn sweep(&self) -> Result<()> {
        for item in fs::read_dir(&self.trash).map_err(|error| unknown(&error))? {
            let path = item.map_err(|error| unknown(&error))?.path();
            // Another adapter may be removing it too.
            let _ = fs::remove_dir_all(path);
        }
        self.collect_images()
    }

    /// Removes images' content that nobody needs, unless somebody is fetching.
    pub(crate) fn collect_images(&self) -> Result<()> {
        let fetching = Lock::try_acquire(&self.images.fetch_lock(), Sharing::Alone)?;
        let using = Lock::try_acquire(&self.images.use_lock(), Sharing::Alone)?;
        if fetching.is_none() || using.is_none() {
            return Ok(());
        }
        self.collect_images_locked()
    }

    /// The same for who holds the lock against users.
    pub(crate) fn collect_images_locked(&self) -> Result<()> {
        let mut layers = std::collections::BTreeSet::new();
        for id in self.ids()? {
            match self.folder(&id).record().map_err(|error| unknown(&error))? {
                crate::sealed::Sealed::Valid(record) => layers.extend(record.layers),
                crate::sealed::Sealed::Absent => {}
                // Its layers are unknown, so none may go.
                crate::sealed::Sealed::Damaged(_) => return Ok(()),
            }
        }
        self.images
            .collect(&layers)
            .map_err(|error| unknown(&error))
    }
}

async fn take_over(shared: &Weak<Shared>, folder: ContainerFolder) {
    let Some(shared) = shared.upgrade() else {
        return;
    };
    let looked = blocking(move || View::look_into(folder).map_err(|error| unknown(&error))).await;
    if let Ok(Some(view)) = looked
        && view.is_unsettled()
        && let Err(error) = shared.settle(view).await
        && error.class != ErrorClass::NotFound
    {
        tracing::warn!(%error, "a container whose monitor died cannot be taken over");
    }
}

/// Under the container's lock: nobody else concludes.
pub(crate) fn conclude(folder: &ContainerFolder) -> io::Result<()> {
    let Some(view) = View::look_into(folder.clone())? else {
        return Ok(());
    };
    if view.is_watched || !view.is_unsettled() {
        return Ok(());
    }
    match view.phase {
        Phase::Exited(exit) => ending::tell(folder, &view.record, exit, Telling::Again)?,
        Phase::Ending => {
            ending::record(folder, &view.record, end_seen_late(&view)?, Telling::Again)?;
        }
        Phase::HalfMade | Phase::Created | Phase::Refused(_) | Phase::Running => return Ok(()),
    }
    sealed::remove_both(folder.path(), file::MONITOR)
}

/// What can still be known of a process that ended with nobody watching: its zombie may be there.
fn end_seen_late(view: &View) -> io::Result<End> {
    let Some(identity) = view.facts.identity() else {
        return Ok(End::UNKNOWN);
    };
    let Some(handle) = identity.open()? else {
        return Ok(End::UNKNOWN);
    };
    if !has_ended(&handle)? {
        return Ok(End::UNKNOWN);
    }
    let status = identity.status_of_ended(&handle);
    let at = status.map(|_| clock::now().max(view.facts.started_at().unwrap_or_default()));
    Ok(End { status, at })
}

pub(crate) fn not_found(id: &ContainerId) -> RuntimeError {
    RuntimeError::new(ErrorClass::NotFound, format!("there is no container {id}"))
}
