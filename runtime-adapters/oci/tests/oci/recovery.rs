//! What a monitor is for: the truth about a process survives whatever happens around it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use wavetank_oci::cgroup::Cgroup;
use wavetank_oci::journal::Journal;
use wavetank_oci::process::ProcessIdentity;
use wavetank_oci::record::{ContainerFolder, ProcessRecord, file};
use wavetank_oci::sealed::{self, Outlives};
use wavetank_port::{
    ContainerId, ContainerRuntime as _, ContainerStatus, ErrorClass, ExitCode, ExitStatus,
    ListFilter, RuntimeEvent, Signal,
};

use crate::support::{Bed, LONG, config, leftovers};

const FOREVER: &str = "while :; do sleep 0.1; done";

pub fn monitor_of(bed: &Bed, id: &ContainerId) -> Option<ProcessIdentity> {
    let facts = ContainerFolder::at(bed.container(id))
        .facts()
        .expect("facts");
    facts.monitor.valid()
}

fn process_of(bed: &Bed, id: &ContainerId) -> ProcessIdentity {
    let facts = ContainerFolder::at(bed.container(id))
        .facts()
        .expect("facts");
    facts.identity().expect("a process").clone()
}

/// Kills the monitor and waits until it is gone.
pub async fn kill_monitor(bed: &Bed, id: &ContainerId) {
    let monitor = monitor_of(bed, id).expect("a monitor");
    monitor.kill().expect("kill");
    while monitor.is_alive().expect("asked") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn events_of(bed: &Bed, id: &ContainerId) -> Vec<RuntimeEvent> {
    let journal = Journal::open(&bed.folder.path().join("root/events")).expect("journal");
    let mut place = journal.first().expect("first");
    let mut events = Vec::new();
    while let Some((entry, next)) = journal.read(place).expect("read") {
        place = next;
        events.push(entry.event);
    }
    events.retain(|event| event.container() == Some(id));
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_outlives_its_monitor_and_its_output_is_not_lost() {
    let Some(bed) = Bed::new().await else { return };
    let script = "trap 'echo two; exit 5' TERM; echo one; while :; do sleep 0.05; done";
    let id = bed.run("a", script).await;
    bed.has_said(&id, "one").await;
    let before = bed.runtime.inspect(&id, LONG).await.expect("inspect");
    kill_monitor(&bed, &id).await;
    let after = bed.runtime.inspect(&id, LONG).await.expect("inspect");
    assert_eq!(after, before, "it runs on, and nobody sees a difference");
    let exit = bed
        .runtime
        .stop(&id, LONG, LONG)
        .await
        .expect("stop")
        .expect("it ran");
    // Older kernels tell nobody but the parent.
    assert!(
        [ExitCode::Known(5), ExitCode::Unknown].contains(&exit.code),
        "{exit:?}"
    );
    assert_eq!(bed.output(&id).await, "one\ntwo\n");
    let names: Vec<&str> = events_of(&bed, &id)
        .iter()
        .map(RuntimeEvent::name)
        .collect();
    assert_eq!(names, ["start", "exit"]);
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_vanished_unseen_is_explicitly_unknown() {
    let Some(bed) = Bed::new().await else { return };
    let id = bed.run("a", FOREVER).await;
    let path = bed.container(&id);
    // As after a restart of the machine: the process is of another boot, and nobody watches.
    let process = process_of(&bed, &id);
    let of_another_boot = ProcessRecord {
        identity: ProcessIdentity {
            boot_id: "another".to_owned(),
            ..process.clone()
        },
    };
    let stopped = monitor_of(&bed, &id).expect("a monitor");
    sealed::replace_both(&path, file::PROCESS, &of_another_boot, Outlives::Crash).expect("write");
    sealed::remove_both(&path, file::MONITOR).expect("remove");
    let state = bed.runtime.inspect(&id, LONG).await.expect("inspect");
    let unknown = ExitStatus {
        code: ExitCode::Unknown,
        exited_at: None,
        oom_killed: false,
    };
    assert_eq!(
        (state.status, state.exit),
        (ContainerStatus::Exited, Some(unknown))
    );
    assert!(!unknown.code.is_success());
    assert!(
        process.is_alive().expect("asked"),
        "whoever has the number now is left alone"
    );
    process.kill().expect("kill");
    while stopped.is_alive().expect("asked") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let again = bed.runtime.inspect(&id, LONG).await.expect("inspect");
    assert_eq!(again.exit, Some(unknown), "what is recorded stands");
    let exits = events_of(&bed, &id);
    let exits = exits.iter().filter(|event| event.name() == "exit");
    assert!(exits.count() >= 1);
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_with_the_same_number_is_never_killed() {
    let Some(bed) = Bed::new().await else { return };
    let id = bed.run("a", "exit 0").await;
    bed.runtime.wait(&id, LONG).await.expect("wait");
    let mut stranger = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("sleep");
    let now = ProcessIdentity::of(stranger.id())
        .expect("asked")
        .expect("there");
    let then = ProcessRecord {
        identity: ProcessIdentity {
            start_ticks: now.start_ticks - 1,
            ..now.clone()
        },
    };
    let path = bed.container(&id);
    sealed::replace_both(&path, file::PROCESS, &then, Outlives::Crash).expect("write");
    let dead = bed
        .runtime
        .kill(&id, Signal::Kill, LONG)
        .await
        .expect_err("dead");
    assert_eq!(dead.class, ErrorClass::NotFound);
    bed.runtime.delete(&id, true, LONG).await.expect("delete");
    assert!(now.is_alive().expect("asked"), "the stranger lives");
    stranger.kill().expect("kill");
    stranger.wait().expect("reaped");
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_means_dead_with_all_children_and_nothing_is_left() {
    let Some(bed) = Bed::new().await else { return };
    let script = "sleep 1000 & sleep 1000 & while :; do sleep 0.1; done";
    let id = bed.run("a", script).await;
    let init = process_of(&bed, &id);
    let inside = fs::read_to_string(format!("/proc/{}/status", init.pid)).expect("status");
    let own = inside
        .lines()
        .find(|line| line.starts_with("NSpid:"))
        .expect("NSpid");
    assert!(
        own.ends_with("\t1"),
        "the reported process is the workload: {own}"
    );
    let late = bed
        .runtime
        .wait(&id, Duration::from_millis(1))
        .await
        .expect_err("it runs");
    assert_eq!(late.class, ErrorClass::DeadlineExceeded);
    let state = bed.runtime.inspect(&id, LONG).await.expect("inspect");
    assert_eq!((state.status, state.exit), (ContainerStatus::Running, None));
    let children = loop {
        let children = children_of(init.pid);
        if children.len() >= 3 {
            break children;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let waiters: Vec<_> = (0..10)
        .map(|_| {
            let (runtime, id) = (bed.runtime.clone(), id.clone());
            tokio::spawn(async move { runtime.wait(&id, LONG).await.expect("wait") })
        })
        .collect();
    let exit = bed
        .runtime
        .stop(&id, Duration::ZERO, LONG)
        .await
        .expect("stop");
    let exit = exit.expect("it ran");
    assert_eq!(exit.code, ExitCode::Known(137));
    assert!(!init.is_alive().expect("asked"));
    for child in children {
        assert!(!child.is_alive().expect("asked"), "{child:?}");
    }
    for waiter in waiters {
        assert_eq!(waiter.await.expect("joined"), exit, "no wait is lost");
    }
    bed.runtime.delete(&id, false, LONG).await.expect("delete");
    assert_eq!(leftovers(bed.folder.path()), Vec::<String>::new());
    bed.close().await;
}

fn children_of(pid: u32) -> Vec<ProcessIdentity> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).expect("children");
    let pids = text
        .split_whitespace()
        .map(|pid| pid.parse().expect("a number"));
    pids.filter_map(|pid| ProcessIdentity::of(pid).expect("asked"))
        .collect()
}

/// Cuts a file at every byte, looks, and mends it.
async fn cut_everywhere(path: &Path, mut look: impl AsyncFnMut(usize)) {
    let whole = fs::read(path).expect("bytes");
    for length in 0..whole.len() {
        fs::write(path, &whole[..length]).expect("cut");
        look(length).await;
    }
    fs::write(path, &whole).expect("mend");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_torn_anywhere_never_hides_or_ends_a_living_container() {
    let Some(bed) = Bed::new().await else { return };
    let id = bed.run("a", FOREVER).await;
    let before = bed.runtime.inspect(&id, LONG).await.expect("inspect");
    let process = process_of(&bed, &id);
    for name in [file::RECORD, file::PROCESS, file::MONITOR, file::STARTED] {
        cut_everywhere(&bed.container(&id).join(name), async |length| {
            let state = bed.runtime.inspect(&id, LONG).await.expect("inspect");
            let what = format!("{name} cut at {length}");
            assert_eq!(
                (state.status, state.pid),
                (before.status, before.pid),
                "{what}"
            );
        })
        .await;
    }
    for name in ["record", "record.copy"] {
        fs::write(bed.container(&id).join(name), b"torn").expect("tear");
    }
    let error = bed
        .runtime
        .inspect(&id, LONG)
        .await
        .expect_err("nobody can say whose it is");
    assert_eq!(error.class, ErrorClass::Unknown);
    let listed = bed.runtime.list(&ListFilter::default(), LONG).await;
    listed.expect_err("a listing that would leave it out");
    drop(bed.reopened().await);
    assert!(bed.container(&id).exists() && process.is_alive().expect("asked"));
    // Nobody but a person can help here.
    process.kill().expect("kill");
    let rootfs = bed.container(&id).join("bundle/rootfs");
    rustix::mount::unmount(&rootfs, rustix::mount::UnmountFlags::DETACH).expect("unmount");
    let around = config(bed.folder.path(), Path::new("runc")).cgroup();
    let cgroup = Cgroup::open(&format!("/{around}/{id}")).expect("cgroup");
    while process.is_alive().expect("asked") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cgroup.remove();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_is_unknown_and_never_another_code() {
    let Some(bed) = Bed::new().await else { return };
    let id = bed.run("a", "exit 7").await;
    let exit = bed.runtime.wait(&id, LONG).await.expect("wait");
    // Until it has told of the end, the monitor knows it and mends the file.
    while monitor_of(&bed, &id).is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let path = bed.container(&id).join(file::EXIT);
    cut_everywhere(&path, async |length| {
        let state = bed.runtime.inspect(&id, LONG).await.expect("inspect");
        assert_eq!(state.status, ContainerStatus::Exited, "cut at {length}");
        let code = state.exit.expect("exited").code;
        assert_eq!(code, ExitCode::Unknown, "cut at {length}");
    })
    .await;
    let state = bed.runtime.inspect(&id, LONG).await.expect("inspect");
    assert_eq!(state.exit, Some(exit));
    let exits = events_of(&bed, &id);
    let exits = exits.iter().filter(|event| event.name() == "exit");
    assert_eq!(exits.count(), 1, "one end, told once");
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_was_broken_off_is_repaired() {
    let Some(bed) = Bed::new().await else { return };
    let id = bed.create("a", "exit 4").await;
    // The monitor and the process die, and no record of the process was ever written.
    let (monitor, process) = (
        monitor_of(&bed, &id).expect("a monitor"),
        process_of(&bed, &id),
    );
    let lock = fs::File::open(bed.container(&id)).expect("folder");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("lock");
    sealed::remove_both(&bed.container(&id), file::PROCESS).expect("remove");
    monitor.kill().expect("kill");
    while monitor.is_alive().expect("asked") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(lock);
    let gone = bed
        .runtime
        .inspect(&id, LONG)
        .await
        .expect_err("it never came to be");
    assert_eq!(gone.class, ErrorClass::NotFound);
    let id = bed.run("a", "exit 6").await;
    assert!(!process.is_alive().expect("asked"));
    let exit = bed.runtime.wait(&id, LONG).await.expect("wait");
    assert_eq!(exit.code, ExitCode::Known(6));
    bed.close().await;
}
