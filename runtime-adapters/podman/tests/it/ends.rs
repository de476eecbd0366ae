//! A private service that is dropped takes everything with it.

use wavetank_fixtures::Program;
use wavetank_fixtures::daemon::podman::PodmanSettings;
use wavetank_fixtures::daemon::process::{self, Process};
use wavetank_port::ContainerRuntime as _;

use crate::{CALL, Real};

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_service_leaves_no_process_mount_or_control_group() {
    let Some(real) = Real::start(&PodmanSettings::default()).await else {
        return;
    };
    let spec = real.spec("a", &Program::forever());
    real.podman.create(&spec, CALL).await.expect("create");
    let state = real.podman.start(&spec.id, CALL).await.expect("start");
    let init = state.pid.and_then(Process::read).expect("its process");
    let groups = real.daemon.cgroups().expect("the control groups");
    assert!(init.is_alive() && !groups.is_empty());
    let Real {
        daemon, _folder, ..
    } = real;
    let directory = daemon.directory().to_owned();
    assert!(
        !process::mounts_below(&directory)
            .expect("the mounts")
            .is_empty()
    );
    drop(daemon);
    assert!(!init.is_alive());
    let processes = process::of_directory(&directory).expect("the processes");
    let alive: Vec<Process> = processes.into_iter().filter(Process::is_alive).collect();
    assert_eq!(alive, []);
    assert!(
        process::mounts_below(&directory)
            .expect("the mounts")
            .is_empty()
    );
    assert_eq!(groups.iter().filter(|it| it.exists()).count(), 0);
}
