//! What a case has to itself: a registry with a plan's images, and a runtime that is cleaned up.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;
use wavetank_fixtures::Registry;
use wavetank_fixtures::registry::Authentication;
use wavetank_live::images::LiveImages;
use wavetank_oci::cgroup::Cgroup;
use wavetank_oci::record::ContainerFolder;
use wavetank_oci::sealed::Sealed;
use wavetank_oci::{Config, MonitorProgram, OciRuntime, Registries};
use wavetank_port::{
    ContainerId, ContainerRuntime, ContainerSpec, ListFilter, Network, PullRequest,
};
use wavetank_scenario::plan;

/// Longer than anything here takes, on a loaded machine too.
pub const LONG: Duration = Duration::from_secs(60);

/// One test.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// What this machine lacks for it.
    pub usable: fn() -> Result<(), String>,
    pub run: fn() -> Pin<Box<dyn Future<Output = ()>>>,
}

/// A registry of one's own on the loopback, with these images.
pub async fn registry(
    images: &BTreeMap<String, plan::Image>,
    speed: u32,
) -> (Arc<Registry>, LiveImages) {
    let address = ([127, 0, 0, 1], 0).into();
    let registry = Registry::start(address, Authentication::Basic)
        .await
        .expect("registry");
    let live = LiveImages::publish(images, speed, &registry).expect("images");
    (Arc::new(registry), live)
}

/// An image that runs for ever, obeys SIGTERM at once and is small.
pub fn image() -> plan::Image {
    plan::Image {
        run_for: None,
        exit_code: 0,
        on_term: plan::OnTerm::Exits {
            after: Duration::ZERO,
            code: None,
        },
        health: plan::Health::Ok,
        pull_bytes: 0,
        exists: true,
        memory_bytes: 0,
    }
}

/// How often something is looked at that comes about by itself.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Looks again and again until there is something to see.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(start.elapsed() < LONG, "never came about: {what}");
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// An OCI runtime in a folder of its own.
pub struct OciBed {
    pub folder: TempDir,
    pub runtime: Arc<OciRuntime>,
}

impl OciBed {
    pub async fn new() -> Self {
        Self::with_runtime(Path::new("runc")).await
    }

    pub async fn with_runtime(program: &Path) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("wavetank-live.")
            .tempdir()
            .expect("folder");
        let config = config(folder.path(), program);
        let runtime = OciRuntime::open(config, LONG).await.expect("open");
        OciBed {
            folder,
            runtime: Arc::new(runtime),
        }
    }

    pub fn usable() -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("an OCI runtime needs root here".to_owned());
        }
        let runc = std::process::Command::new("runc").arg("--version").output();
        match runc {
            Ok(output) if output.status.success() => Ok(()),
            _ => Err("there is no runc".to_owned()),
        }
    }
}

/// How the runtime below `folder` is set up.
pub fn config(folder: &Path, program: &Path) -> Config {
    Config {
        root: folder.join("root"),
        runtime_root: folder.join("run"),
        runtime: program.to_owned(),
        monitor: MonitorProgram::CurrentExecutable,
        registries: Registries::default(),
    }
}

impl Drop for OciBed {
    /// Ends what the case has left, monitors first, so that nobody takes over.
    fn drop(&mut self) {
        let containers = self.folder.path().join("root/containers");
        for item in std::fs::read_dir(containers)
            .into_iter()
            .flatten()
            .flatten()
        {
            let folder = ContainerFolder::at(item.path());
            let Ok(facts) = folder.facts() else { continue };
            if let Some(monitor) = facts.monitor.valid() {
                let _ = monitor.kill();
            }
            if let Ok(Some(record)) = folder.record().map(Sealed::valid)
                && let Ok(cgroup) = Cgroup::open(&record.cgroup)
            {
                let _ = cgroup.kill_all();
                cgroup.remove();
            }
            let _ = unmount(folder.rootfs(), UnmountFlags::DETACH);
        }
        let around = config(self.folder.path(), Path::new("runc")).cgroup();
        if let Ok(around) = Cgroup::open(&around) {
            around.remove();
        }
    }
}

/// A container of an image of the plan, which has been pulled; not started.
pub async fn create(
    runtime: &dyn ContainerRuntime,
    live: &LiveImages,
    image: &str,
    id: &str,
    memory_bytes_max: Option<u64>,
) -> ContainerId {
    let reference = live.reference(image).expect("an image of the plan");
    let pulled = runtime
        .pull(&PullRequest::of(reference.clone()), LONG)
        .await;
    pulled.expect("pull");
    let id = ContainerId(id.to_owned());
    let spec = ContainerSpec {
        memory_bytes_max,
        network: Network::None,
        ..ContainerSpec::of(id.clone(), reference)
    };
    runtime.create(&spec, LONG).await.expect("create");
    id
}

/// The same, started.
pub async fn start(
    runtime: &dyn ContainerRuntime,
    live: &LiveImages,
    image: &str,
    id: &str,
) -> ContainerId {
    let id = create(runtime, live, image, id, None).await;
    runtime.start(&id, LONG).await.expect("start");
    id
}

/// Removes every container that there is.
pub async fn delete_all(runtime: &dyn ContainerRuntime) {
    let all = runtime.list(&ListFilter::default(), LONG).await;
    for state in all.expect("list") {
        runtime.delete(&state.id, true, LONG).await.expect("delete");
    }
}
