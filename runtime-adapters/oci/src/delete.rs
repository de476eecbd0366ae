//! Removal of a container and everything that its creation made, from whatever state it is in.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use wavetank_port::{ContainerId, ContainerStatus, ErrorClass, RuntimeError, RuntimeEvent};

use crate::adapter::{Shared, conclude, not_found};
use crate::cgroup::Cgroup;
use crate::clock;
use crate::create::is_mounted;
use crate::deadline::{Lock, Result, Sharing, blocking, unknown};
use crate::journal::Entry;
use crate::process::{has_ended, kill_handle};
use crate::record::{ContainerFolder, Phase, Record, file};
use crate::runtime_binary::{CALL_MAX, RuntimeBinary};
use crate::signals::kill_process;
use crate::view::{View, ended};

/// How long a monitor has to record the end of a process that was killed.
const MONITOR_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// How often a busy mount is tried to be unmounted before it is only detached.
const UNMOUNT_TRIES: u32 = 20;

/// The time between two tries.
const UNMOUNT_AGAIN_AFTER: Duration = Duration::from_millis(5);

impl Shared {
    /// Does what the port says. Must be run to its end.
    pub(crate) async fn delete(self: Arc<Self>, id: ContainerId, force: bool) -> Result<()> {
        let view = self.view(&id).await?;
        let Some(_lock) = Lock::acquire(view.folder.path(), Sharing::Alone).await? else {
            return Err(not_found(&id));
        };
        let folder = view.folder;
        let Some(view) = look(&folder).await? else {
            return Err(not_found(&id));
        };
        let status = view.status()?;
        let runs = matches!(status, ContainerStatus::Running | ContainerStatus::Paused);
        if runs && !force {
            let message = format!("the container {id} is running");
            return Err(RuntimeError::new(ErrorClass::FailedPrecondition, message));
        }
        self.end(&view).await?;
        let shared = self.clone();
        blocking(move || {
            // From here on it is gone for everybody, and whoever finds the rest removes it.
            fs::write(folder.join(file::DELETING), b"").map_err(|error| unknown(&error))?;
            shared.remove_folder(&folder, &view.record, Told::NotYet)
        })
        .await
    }

    /// Ends the process and the monitor. When this is done the end is recorded.
    async fn end(self: &Arc<Self>, view: &View) -> Result<()> {
        if let Some(process) = view.process().map_err(|error| unknown(&error))?
            && !has_ended(&process).map_err(|error| unknown(&error))?
        {
            kill_process(&self.runtime, view).await?;
            ended(process).await?;
        }
        if let Some(monitor) = view.monitor().map_err(|error| unknown(&error))? {
            let handle = monitor.try_clone().map_err(|error| unknown(&error))?;
            if tokio::time::timeout(MONITOR_ENDS_WITHIN, ended(handle))
                .await
                .is_err()
            {
                kill_handle(&monitor).map_err(|error| unknown(&error))?;
                ended(monitor).await?;
            }
        }
        let folder = view.folder.clone();
        blocking(move || conclude(&folder).map_err(|error| unknown(&error))).await
    }

    /// Finishes a deletion whose caller died, and removes what was half made by one.
    pub(crate) async fn finish_removal(self: &Arc<Self>, folder: &ContainerFolder) -> Result<()> {
        let Some(_lock) = Lock::try_acquire(folder.path(), Sharing::Alone)? else {
            return Ok(());
        };
        let (shared, folder) = (self.clone(), folder.clone());
        blocking(move || {
            let failed = |error: io::Error| unknown(&error);
            match View::look_into(folder.clone()).map_err(failed)? {
                Some(view) if view.facts.deleting => {
                    shared.remove_folder(&folder, &view.record, Told::Perhaps)
                }
                Some(view) if view.phase == Phase::HalfMade && !view.is_watched => {
                    shared.remove_made(&folder)
                }
                Some(_) => Ok(()),
                None if folder.record().map_err(failed)?.exists() => Ok(()),
                None => shared.remove_made(&folder),
            }
        })
        .await
    }

    /// Removes a container that never came to be. Under its lock.
    pub(crate) fn remove_made(&self, folder: &ContainerFolder) -> Result<()> {
        // A monitor whose caller is dead may be about to create, or about to say that it is there.
        // It says so first and looks for this afterwards, so one of us sees the other.
        if let Err(error) = forbid_create(folder) {
            // On a full disk too what is there must go.
            let path = folder.path().display();
            tracing::warn!(%path, %error, "a create may go on while its container is removed");
        }
        let view = View::look_into(folder.clone()).map_err(|error| unknown(&error))?;
        match view {
            Some(view) => {
                if let Some(monitor) = view.monitor().map_err(|error| unknown(&error))? {
                    kill_handle(&monitor).map_err(|error| unknown(&error))?;
                }
                self.remove_folder(folder, &view.record, Told::Never)
            }
            None => self.bin(folder),
        }
    }

    fn remove_folder(&self, folder: &ContainerFolder, record: &Record, told: Told) -> Result<()> {
        let failed = |error: io::Error| unknown(&error);
        let id = &record.spec.id;
        let runtime = RuntimeBinary::new(&record.runtime, &record.runtime_root);
        // Succeeds too if the runtime knows no such container, or only half of one.
        let deleted = runtime.call("delete", &["--force", &id.0], CALL_MAX);
        let cgroup = Cgroup::open(&record.cgroup).map_err(failed)?;
        if deleted.is_err() {
            cgroup.kill_all().map_err(failed)?;
            runtime.call("delete", &["--force", &id.0], CALL_MAX)?;
        }
        cgroup.remove();
        unmount_all(&folder.rootfs()).map_err(failed)?;
        let entry = Entry {
            incarnation: record.incarnation.clone(),
            event: RuntimeEvent::Deleted { id: id.clone() },
        };
        match told {
            Told::NotYet => self.journal.append(&entry).map_err(failed)?,
            Told::Perhaps => self.journal.append_once(&entry).map_err(failed)?,
            Told::Never => {}
        }
        self.bin(folder)
    }

    /// Takes the folder away in one step, then empties it. Any other adapter may sweep the trash
    /// meanwhile, so nothing is put there to be used.
    fn bin(&self, folder: &ContainerFolder) -> Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let failed = |error: io::Error| unknown(&error);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        // With the time, because a process that died over it may have had our number.
        let taken = self
            .trash
            .join(format!("{:x}.{process}.{number}", clock::now().0));
        fs::rename(folder.path(), &taken).map_err(failed)?;
        match fs::remove_dir_all(&taken) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Whether others have heard that the container is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// No.
    NotYet,
    /// Somebody died over it.
    Perhaps,
    /// They have never heard of it, and never will.
    Never,
}

/// Lets no create of this container succeed any more: where a folder stands in place of its pid
/// file, the OCI runtime undoes what it has made. Whatever had written the file before is complete,
/// and a delete finds it.
fn forbid_create(folder: &ContainerFolder) -> io::Result<()> {
    match fs::create_dir(folder.join(file::PID)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn look(folder: &ContainerFolder) -> Result<Option<View>> {
    let folder = folder.clone();
    let view = blocking(move || View::look_into(folder).map_err(|error| unknown(&error))).await?;
    Ok(view.filter(|view| !view.facts.deleting))
}

fn unmount_all(path: &Path) -> io::Result<()> {
    let mut tries = 0;
    while is_mounted(path)? {
        tries += 1;
        let flags = if tries < UNMOUNT_TRIES {
            UnmountFlags::NOFOLLOW
        } else {
            UnmountFlags::NOFOLLOW | UnmountFlags::DETACH
        };
        match unmount(path, flags) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(rustix::io::Errno::BUSY) => std::thread::sleep(UNMOUNT_AGAIN_AFTER),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
