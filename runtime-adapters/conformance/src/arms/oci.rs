//! The arm of the oci adapter: a root in a folder of its own, and the machine's runc behind a
//! script that can break off a create.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use tempfile::TempDir;
use wavetank_fixtures::daemon::process::{Process, mounts_below};
use wavetank_fixtures::daemon::resources::{Audit, count};
use wavetank_fixtures::daemon::sweep::{cgroups, end_processes, remove_cgroups, unmount_below};
use wavetank_fixtures::{Program, TestImage};
use wavetank_oci::record::ContainerFolder;
use wavetank_oci::{Config, MonitorProgram, OciRuntime, monitor};
use wavetank_port::{Capability, ContainerId, ContainerRuntime};

use crate::arm::{Arm, ArmError, Images, Resources};
use crate::arms::images::ArmImages;
use crate::latency::Peer;
use crate::run::Bench;

/// The deadline of what the arm itself asks of the adapter.
const CALL: Duration = Duration::from_secs(30);

/// Passes everything on to runc, except that a create fails after runc has done it when a file
/// says so.
const RUNTIME: &str = "#!/bin/sh
case \" $* \" in
*' create '*) if rm \"$0.fail-next-create\" 2>/dev/null; then runc \"$@\"; exit 1; fi ;;
esac
exec runc \"$@\"
";

/// Makes arms with a root each. Containers are watched by the program that runs the cases, whose
/// `main` must begin with [`wavetank_oci::monitor::main_if_asked`].
pub struct OciBench;

#[async_trait]
impl Bench for OciBench {
    fn runtime(&self) -> &'static str {
        "oci"
    }

    async fn arm(&self) -> Result<Box<dyn Arm>, ArmError> {
        let images = ArmImages::start().await?;
        let folder = tempfile::Builder::new()
            .prefix("wavetank-oci.")
            .tempdir()
            .map_err(harness)?;
        let runtime = folder.path().join("runtime");
        fs::write(&runtime, RUNTIME).map_err(harness)?;
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).map_err(harness)?;
        let arm = OciArm {
            adapter: Arc::new(open(config(folder.path(), "a")).await?),
            images,
            folder,
        };
        Ok(Box::new(arm))
    }
}

struct OciArm {
    adapter: Arc<OciRuntime>,
    images: ArmImages,
    folder: TempDir,
}

/// The set-up of the root of this name below `folder`.
fn config(folder: &Path, name: &str) -> Config {
    Config {
        root: folder.join(name).join("root"),
        runtime_root: folder.join(name).join("run"),
        runtime: folder.join("runtime"),
        monitor: MonitorProgram::CurrentExecutable,
        // The arm's registry is on loopback, which is plain HTTP by itself.
        registries: wavetank_oci::Registries::default(),
    }
}

async fn open(config: Config) -> Result<OciRuntime, ArmError> {
    let opened = OciRuntime::open(config, CALL).await;
    opened.map_err(|error| ArmError::Harness(format!("the root cannot be opened: {error}")))
}

impl OciArm {
    fn config(&self) -> Config {
        config(self.folder.path(), "a")
    }

    fn container(&self, id: &ContainerId) -> ContainerFolder {
        ContainerFolder::new(&self.config().root.join("containers"), id)
    }

    fn monitor_of(&self, id: &ContainerId) -> Result<Process, ArmError> {
        let facts = self.container(id).facts().map_err(harness)?;
        let pid = facts.monitor.valid().map(|identity| identity.pid);
        process(pid, &format!("{id} has no monitor"))
    }

    fn process_of(&self, id: &ContainerId) -> Result<Process, ArmError> {
        let facts = self.container(id).facts().map_err(harness)?;
        let pid = facts.identity().map(|identity| identity.pid);
        process(pid, &format!("{id} has no process"))
    }

    /// Kills monitor and process of a container, the monitor first, so that nobody says how it
    /// ended. The container's lock is held meanwhile: the adapter would give it a new monitor.
    async fn crash(&self, id: &ContainerId) -> Result<(), ArmError> {
        let folder = File::open(self.container(id).path()).map_err(harness)?;
        flock(&folder, FlockOperation::LockExclusive).map_err(|error| harness(error.into()))?;
        for victim in [self.monitor_of(id), self.process_of(id)] {
            let Ok(victim) = victim else {
                continue;
            };
            victim.signal(Signal::KILL);
            // Whose zombie is still there is not gone without a word.
            while Process::read(victim.pid)
                .is_some_and(|it| it.started_ticks == victim.started_ticks)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }

    /// What is in a folder of the root, if it is there.
    fn entries(&self, name: &str) -> Result<u64, ArmError> {
        match fs::read_dir(self.folder.path().join("a").join(name)) {
            Ok(entries) => Ok(entries.count() as u64),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(harness(error)),
        }
    }
}

fn process(pid: Option<u32>, absent: &str) -> Result<Process, ArmError> {
    let process = pid.and_then(Process::read);
    process.ok_or_else(|| ArmError::Harness(absent.to_owned()))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "so that `map_err` takes it as it is"
)]
fn harness(error: io::Error) -> ArmError {
    ArmError::Harness(error.to_string())
}

#[async_trait]
impl Arm for OciArm {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        self.adapter.clone()
    }

    async fn other_namespace(&self) -> Result<Arc<dyn ContainerRuntime>, ArmError> {
        let config = config(self.folder.path(), "b");
        Ok(Arc::new(open(config).await?))
    }

    fn images(&self) -> &dyn Images {
        &self.images
    }

    async fn corrupt_local_image(&self, _image: TestImage) -> Result<(), ArmError> {
        let blobs = self.config().root.join("images/blobs");
        for item in fs::read_dir(blobs).map_err(harness)? {
            let path = item.map_err(harness)?.path();
            let length = fs::metadata(&path).map_err(harness)?.len();
            let file = File::options().write(true).open(&path).map_err(harness)?;
            file.set_len(length / 2).map_err(harness)?;
        }
        Ok(())
    }

    async fn kill_daemon(&self) -> Result<(), ArmError> {
        Err(ArmError::NotApplicable(Capability::Daemon))
    }

    async fn start_daemon(&self) -> Result<(), ArmError> {
        Err(ArmError::NotApplicable(Capability::Daemon))
    }

    async fn reboot(&self) -> Result<(), ArmError> {
        let config = self.config();
        let mut locks = Vec::new();
        for item in fs::read_dir(config.root.join("containers")).map_err(harness)? {
            let folder = File::open(item.map_err(harness)?.path()).map_err(harness)?;
            flock(&folder, FlockOperation::LockExclusive).map_err(|error| harness(error.into()))?;
            locks.push(folder);
        }
        end_processes(&config.root).map_err(harness)?;
        remove_cgroups(&config.cgroup()).map_err(harness)?;
        unmount_below(&config.root).map_err(harness)?;
        fs::remove_dir_all(&config.runtime_root).map_err(harness)?;
        drop(locks);
        // The recovery that every adapter begins with.
        open(config).await.map(drop)
    }

    async fn kill_monitor(&self, id: &ContainerId) -> Result<(), ArmError> {
        self.monitor_of(id)?.signal(Signal::KILL);
        Ok(())
    }

    async fn pause_monitor(&self, id: &ContainerId, paused: bool) -> Result<(), ArmError> {
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        match self.monitor_of(id) {
            Ok(monitor) => {
                monitor.signal(signal);
                Ok(())
            }
            // It may have been removed while it was stopped.
            Err(_) if !paused => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn kill_process(&self, id: &ContainerId) -> Result<(), ArmError> {
        self.process_of(id)?.signal(Signal::KILL);
        Ok(())
    }

    async fn fail_next_create(&self) -> Result<(), ArmError> {
        fs::write(self.folder.path().join("runtime.fail-next-create"), "").map_err(harness)
    }

    async fn orphan_record(&self, id: &ContainerId) -> Result<(), ArmError> {
        self.crash(id).await
    }

    async fn resources(&self) -> Result<Resources, ArmError> {
        let audit = Audit {
            directory: self.folder.path(),
            monitors: &[monitor::ASKED],
            holders: &[std::process::id()],
        };
        let mut counts = count(&audit).map_err(harness)?;
        // The one around them all is made once and kept: a removal would race with a create.
        let around = self.config().cgroup();
        let mut groups = cgroups(&around).map_err(harness)?;
        groups.retain(|group| !group.ends_with(&around));
        counts.insert("control-groups".to_owned(), groups.len() as u64);
        for name in [
            "root/containers",
            "root/trash",
            "root/images/unfinished",
            "run",
        ] {
            counts.insert(name.to_owned(), self.entries(name)?);
        }
        Ok(counts)
    }

    async fn peer(&self, program: &Program) -> Result<Option<Peer>, ArmError> {
        let folder = self.folder.path().join("peer");
        Peer::runc(&folder, program).map(Some).map_err(harness)
    }

    async fn close(self: Box<Self>) -> Result<(), ArmError> {
        let OciArm {
            adapter, folder, ..
        } = *self;
        drop(adapter);
        end_processes(folder.path()).map_err(harness)?;
        for name in ["a", "b"] {
            let groups = config(folder.path(), name).cgroup();
            remove_cgroups(&groups).map_err(harness)?;
        }
        unmount_below(folder.path()).map_err(harness)?;
        let left: Vec<PathBuf> = mounts_below(folder.path()).map_err(harness)?;
        if !left.is_empty() {
            return Err(ArmError::Harness(format!("still mounted: {left:?}")));
        }
        folder.close().map_err(harness)
    }
}
