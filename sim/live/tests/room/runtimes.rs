//! Runtime daemons on hosts, with containers in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use wavetank_containerd::{Containerd, ContainerdConfig, Registries};
use wavetank_fixtures::daemon::process::Process;
use wavetank_fixtures::registry::Authentication;
use wavetank_fixtures::{Direction, Flow, Registry, TestImage, Toxics};
use wavetank_live::room::{Audit, DaemonKind, OciRuntime, Records, Room, RoomError, sweep};
use wavetank_podman::{Endpoint, Podman, PodmanConfig};
use wavetank_port::{
    ContainerId, ContainerRuntime, ContainerSpec, ContainerStatus, ExitCode, ListFilter, Network,
    PullRequest,
};

use crate::bench::{
    LONG, all_arrive, all_of, child_folder, folder, killed, room, say_and_hang, sweeping, until,
};

/// The name that Podman's adapter gives to containers in this namespace begins with it.
const NAMESPACE: &str = "room";
const HOST: &str = "agent-1";

/// A room with a daemon on one host, and a registry at its uplink.
struct Bed {
    room: Room,
    kind: DaemonKind,
    runtime: Arc<dyn ContainerRuntime>,
    registry: Registry,
}

impl Bed {
    async fn new(folder: &Path, kind: DaemonKind, oci_runtime: OciRuntime) -> Option<Bed> {
        let room = room(folder, &["manager-1", HOST]).await?;
        let registry = Registry::start((room.uplink(), 0).into(), Authentication::Basic).await;
        let registry = registry.unwrap();
        if let Err(error) = registry.publish_test_images() {
            let required = std::env::var_os("WAVETANK_REQUIRE_RUNTIMES");
            assert!(required.is_none_or(|it| it.is_empty()), "{error}");
            eprintln!("skipped: {error}");
            return None;
        }
        let socket = match room.start_daemon(HOST, kind, oci_runtime).await {
            Ok(socket) => socket,
            Err(error) => panic!("{}", all_of(&error)),
        };
        let runtime: Arc<dyn ContainerRuntime> = match kind {
            DaemonKind::Containerd => {
                let name = room.runtime_namespace(HOST).unwrap();
                let state = room.disk(HOST).unwrap().join("node");
                let mut config = ContainerdConfig::new(socket, name, state);
                config.registries = Registries {
                    plain_http: [registry.host()].into(),
                    ..Registries::default()
                };
                Arc::new(Containerd::connect(config, LONG).await.unwrap())
            }
            DaemonKind::Podman => Arc::new(Podman::new(PodmanConfig {
                endpoint: Endpoint::Unix(socket),
                namespace: NAMESPACE.parse().unwrap(),
            })),
        };
        Some(Bed {
            room,
            kind,
            runtime,
            registry,
        })
    }

    /// A container that runs until it is told to end; its process.
    async fn running(&self, id: &str, network: Network) -> Process {
        let image = self.registry.test_image(TestImage::Normal);
        self.runtime
            .pull(&PullRequest::of(image.clone()), LONG)
            .await
            .unwrap();
        let id = ContainerId(id.to_owned());
        let spec = ContainerSpec {
            network,
            ..ContainerSpec::of(id.clone(), image)
        };
        self.runtime.create(&spec, LONG).await.unwrap();
        let state = self.runtime.start(&id, LONG).await.unwrap();
        assert_eq!(state.status, ContainerStatus::Running);
        Process::read(state.pid.unwrap()).unwrap()
    }

    /// How the daemon calls a container.
    fn name(&self, id: &str) -> String {
        match self.kind {
            DaemonKind::Containerd => id.to_owned(),
            DaemonKind::Podman => format!("{NAMESPACE}.{id}"),
        }
    }

    async fn status(&self, id: &str) -> Option<ContainerStatus> {
        let all = self
            .runtime
            .list(&ListFilter::default(), LONG)
            .await
            .unwrap();
        all.into_iter().find(|it| it.id.0 == id).map(|it| it.status)
    }
}

fn state(process: &Process) -> char {
    Process::read(process.pid).map_or('X', |it| it.state)
}

/// The whole life of a host with containers: paused, without power, on again, closed.
async fn a_host_and_its_containers_are_one(kind: DaemonKind, oci_runtime: OciRuntime) {
    let folder = folder();
    let Some(bed) = Bed::new(folder.path(), kind, oci_runtime).await else {
        return;
    };
    let (room, name) = (&bed.room, bed.name("one"));
    let process = bed.running("one", Network::Host).await;
    // Its network is the host's.
    let network = std::fs::read_link(format!("/proc/{}/ns/net", process.pid)).unwrap();
    assert!(
        room.network_marks()
            .contains(&network.display().to_string())
    );
    // One with a network of its own, which has lost its monitor, is the host's all the same; where
    // the daemon ends it for that, that is not what is looked at here.
    let orphan = bed.running("two", Network::None).await;
    room.signal_monitor(HOST, &bed.name("two"), Signal::KILL)
        .await
        .unwrap();
    if kind == DaemonKind::Podman {
        // The service takes such orphans in; without it they are nobody's child.
        room.kill_daemon(HOST).await.unwrap();
        let ours = room.processes(HOST).unwrap();
        assert!(orphan.is_alive() && ours.iter().any(|it| it.pid == orphan.pid));
        room.restart_daemon(HOST, Records::Keep).await.unwrap();
    }
    room.pause(HOST).await.unwrap();
    assert_eq!(state(&process), 'T');
    assert_ne!(state(&orphan), 'S');
    room.resume(HOST).await.unwrap();
    until("it runs again", || state(&process) == 'S').await;
    assert_eq!(bed.status("one").await, Some(ContainerStatus::Running));
    let before = Audit::take().unwrap();
    room.power_off(HOST).await.unwrap();
    assert!(!process.is_alive() && !orphan.is_alive());
    let disk = room.disk(HOST).unwrap().display().to_string();
    let off = Audit::take().unwrap().about(std::slice::from_ref(&disk));
    assert_eq!((off.processes.len(), off.mounts.len()), (0, 0), "{off:?}");
    assert!(!before.about(std::slice::from_ref(&disk)).is_empty());
    room.power_on(HOST).await.unwrap();
    // What was on disk is there, and does not run.
    assert_ne!(bed.status("one").await, Some(ContainerStatus::Running));
    assert!(!bed.runtime.images(LONG).await.unwrap().is_empty());
    let error = room
        .signal_monitor(HOST, &name, Signal::KILL)
        .await
        .unwrap_err();
    assert!(matches!(error, RoomError::NoMonitor { .. }), "{error}");
    let last = bed.running("three", Network::None).await;
    let (marks, cgroups) = (room.marks(), cgroups(&last));
    let removed = bed.room.close().await.unwrap();
    assert_eq!(removed.left, Vec::<String>::new());
    assert!(!last.is_alive());
    assert_eq!(Audit::take().unwrap().about(&marks), Audit::default());
    assert!(cgroups.iter().all(|it| !it.exists()), "{cgroups:?}");
}

/// The control groups of a process: at least one, not shared with ourselves.
fn cgroups(process: &Process) -> Vec<PathBuf> {
    let all = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap();
    let ours = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let theirs = all.lines().filter(|it| !ours.lines().any(|our| our == *it));
    let found = theirs.filter_map(|it| {
        let mut fields = it.splitn(3, ':').skip(1);
        let hierarchy = fields.next()?.trim_start_matches("name=");
        let path = fields.next()?.trim_start_matches('/');
        Some(Path::new("/sys/fs/cgroup").join(hierarchy).join(path))
    });
    let found: Vec<PathBuf> = found.filter(|it| it.exists()).collect();
    assert!(!found.is_empty(), "{all}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_containerd_and_its_containers_are_one() {
    a_host_and_its_containers_are_one(DaemonKind::Containerd, OciRuntime::Runc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_podman_and_its_containers_are_one() {
    a_host_and_its_containers_are_one(DaemonKind::Podman, OciRuntime::Runc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_run_containers_with_crun_as_well() {
    for kind in [DaemonKind::Containerd, DaemonKind::Podman] {
        let folder = folder();
        let Some(bed) = Bed::new(folder.path(), kind, OciRuntime::Crun).await else {
            return;
        };
        let process = bed.running("one", Network::Host).await;
        let id = ContainerId("one".to_owned());
        let exit = bed.runtime.stop(&id, Duration::ZERO, LONG).await.unwrap();
        assert_eq!(exit.unwrap().code, ExitCode::Known(137));
        assert!(!process.is_alive());
        bed.runtime.delete(&id, false, LONG).await.unwrap();
    }
}

/// What can be done to a daemon alone.
async fn a_daemon_is_harmed_alone(kind: DaemonKind) {
    let folder = folder();
    let Some(bed) = Bed::new(folder.path(), kind, OciRuntime::Runc).await else {
        return;
    };
    let room = &bed.room;
    let process = bed.running("one", Network::Host).await;
    let short = Duration::from_millis(300);
    room.pause_daemon(HOST).await.unwrap();
    assert!(bed.runtime.version(short).await.is_err());
    room.resume_daemon(HOST).await.unwrap();
    bed.runtime.version(LONG).await.unwrap();
    room.kill_daemon(HOST).await.unwrap();
    assert!(bed.runtime.version(short).await.is_err());
    assert!(process.is_alive());
    // Two may want it dead at a time.
    room.kill_daemon(HOST).await.unwrap();
    room.restart_daemon(HOST, Records::Keep).await.unwrap();
    assert!(bed.runtime.version(short).await.is_err());
    room.restart_daemon(HOST, Records::Keep).await.unwrap();
    assert_eq!(bed.status("one").await, Some(ContainerStatus::Running));
    // The node's way to it can be broken alone.
    let proxy = room.proxy(HOST).unwrap();
    proxy.set(Direction::ToClient, Toxics::flow(Flow::Hang));
    assert!(bed.runtime.version(short).await.is_err());
    proxy.heal();
    bed.runtime.version(LONG).await.unwrap();
    room.restart_daemon(HOST, Records::Lose).await.unwrap();
    assert!(!process.is_alive());
    assert_eq!(bed.status("one").await, None);
    let process = bed.running("one", Network::Host).await;
    assert!(all_arrive(room, "manager-1", HOST, 1, 1));
    // Nothing runs without power, and what was killed is not brought back by power alone.
    room.kill_daemon(HOST).await.unwrap();
    room.power_off(HOST).await.unwrap();
    assert!(!process.is_alive());
    room.power_on(HOST).await.unwrap();
    assert!(bed.runtime.version(short).await.is_err());
    room.power_off(HOST).await.unwrap();
    room.restart_daemon(HOST, Records::Keep).await.unwrap();
    assert!(bed.runtime.version(short).await.is_err());
    room.power_on(HOST).await.unwrap();
    bed.runtime.version(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containerd_is_harmed_alone() {
    a_daemon_is_harmed_alone(DaemonKind::Containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_podman_is_harmed_alone() {
    a_daemon_is_harmed_alone(DaemonKind::Podman).await;
}

/// What a killed harness leaves of a daemon and its container, and a sweep takes away.
async fn a_daemon_is_swept(kind: DaemonKind, child: &str) {
    let folder = folder();
    // Says whether there can be one at all.
    if room(folder.path(), &["a"]).await.is_none() {
        return;
    }
    let _alone = sweeping().await;
    let said = killed(child, folder.path()).await;
    let (marks, pid, cgroups): (Vec<String>, u32, Vec<PathBuf>) =
        serde_json::from_slice(&said).unwrap();
    let process = Process::read(pid).expect("the container goes on");
    let left = Audit::take().unwrap().about(&marks);
    assert!(
        left.processes.len() > 1 && !left.mounts.is_empty(),
        "{kind:?}: {left:?}"
    );
    sweep(false).unwrap();
    assert!(!process.is_alive());
    assert_eq!(Audit::take().unwrap().about(&marks), Audit::default());
    assert!(cgroups.iter().all(|it| !it.exists()), "{cgroups:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containerd_of_a_killed_harness_is_swept() {
    let child = "runtimes::a_harness_with_containerd_that_hangs";
    a_daemon_is_swept(DaemonKind::Containerd, child).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_podman_of_a_killed_harness_is_swept() {
    let child = "runtimes::a_harness_with_podman_that_hangs";
    a_daemon_is_swept(DaemonKind::Podman, child).await;
}

async fn hang_with(kind: DaemonKind) {
    let Some(folder) = child_folder() else {
        return;
    };
    let bed = Bed::new(&folder.join("child"), kind, OciRuntime::Runc)
        .await
        .unwrap();
    let process = bed.running("one", Network::None).await;
    say_and_hang(&folder, &(bed.room.marks(), process.pid, cgroups(&process))).await;
}

/// Not a test but the child of one: only there it does anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_harness_with_containerd_that_hangs() {
    hang_with(DaemonKind::Containerd).await;
}

/// Not a test but the child of one: only there it does anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_harness_with_podman_that_hangs() {
    hang_with(DaemonKind::Podman).await;
}
