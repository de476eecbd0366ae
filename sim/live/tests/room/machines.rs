//! What is done to machines, as the programs on them feel it.

use std::os::unix::process::ExitStatusExt as _;

use rustix::process::Signal;
use wavetank_fixtures::daemon::process::Process;
use wavetank_live::room::{HostConfig, RoomError};

use crate::bench::{SILENCE, folder, is_cut, length, reaches, room, room_of, shell, until};

/// Ticks into its log, and so does a child in a network namespace and a group of its own.
const TICKING: &str = "setsid unshare --net sh -c 'while :; do echo c >>child; sleep 0.02; done' &
    while :; do echo t; sleep 0.02; done";

#[tokio::test(flavor = "multi_thread")]
async fn programs_run_on_their_host_log_there_and_end_with_their_status() {
    let folder = folder();
    let Some(room) = room(folder.path(), &["a"]).await else {
        return;
    };
    let script = "echo out; echo err >&2; readlink /proc/self/ns/net; cat; exit 7";
    let running = room.spawn("a", "node", shell(script)).unwrap();
    assert_eq!(running.wait().await.unwrap().code(), Some(7));
    assert!(!running.is_alive() && !running.signal(Signal::TERM));
    let log = std::fs::read_to_string(room.folder("a").unwrap().join("node.log")).unwrap();
    let (said, namespace) = log.split_at("out\nerr\n".len());
    assert_eq!(said, "out\nerr\n");
    assert!(room.network_marks().contains(&namespace.trim().to_owned()));
    let sleeping = room
        .spawn("a", "sleeper", shell("exec sleep 1000"))
        .unwrap();
    assert!(sleeping.is_alive() && sleeping.signal(Signal::TERM));
    assert_eq!(sleeping.wait().await.unwrap().signal(), Some(15));
    let error = room.spawn("a", "none", std::process::Command::new("no-such-program"));
    assert!(matches!(error, Err(RoomError::Spawn { .. })));
    assert!(room.spawn("b", "none", shell("true")).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_machine_does_nothing_until_it_is_resumed() {
    let folder = folder();
    let Some(room) = room(folder.path(), &["a", "b"]).await else {
        return;
    };
    let child = folder.path().join("child");
    let mut ticking = shell(TICKING);
    ticking.current_dir(folder.path());
    let running = room.spawn("a", "ticking", ticking).unwrap();
    let log = running.log().clone();
    let both = || (length(&log), length(&child));
    until("both tick", || both().0 > 0 && both().1 > 0).await;
    let other = room.spawn(
        "b",
        "ticking",
        shell("while :; do echo t; sleep 0.02; done"),
    );
    let other_log = other.unwrap().log().clone();
    room.pause("a").await.unwrap();
    let (before, other_before) = (both(), length(&other_log));
    tokio::time::sleep(SILENCE).await;
    assert_eq!(both(), before);
    until("the other machine goes on", || {
        length(&other_log) > other_before
    })
    .await;
    room.resume("a").await.unwrap();
    until("both go on", || both().0 > before.0 && both().1 > before.1).await;
    // Its power can be cut while it is paused.
    room.pause("a").await.unwrap();
    room.power_off("a").await.unwrap();
    assert_eq!(running.wait().await.unwrap().signal(), Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_of_power_leaves_the_disk_and_a_wipe_leaves_nothing() {
    let folder = folder();
    let small = HostConfig {
        small_disk_bytes: Some(4 << 20),
        ..HostConfig::named("b")
    };
    let Some(room) = room_of(folder.path(), vec![HostConfig::named("a"), small]).await else {
        return;
    };
    for host in ["a", "b"] {
        let kept = room.disk(host).unwrap().join("kept");
        std::fs::write(&kept, "x").unwrap();
        let running = room
            .spawn(host, "sleeper", shell("sleep 1000 & echo $!; wait"))
            .unwrap();
        until("it has a child", || length(running.log()) > 1).await;
        let child = std::fs::read_to_string(running.log()).unwrap();
        let child = Process::read(child.trim().parse().unwrap()).unwrap();
        room.power_off(host).await.unwrap();
        assert!(!running.is_alive() && !child.is_alive());
        assert!(is_cut(&room, host, "uplink") && is_cut(&room, "uplink", host));
        room.power_on(host).await.unwrap();
        assert!(reaches(&room, host, "uplink"));
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), "x");
        room.wipe(host).await.unwrap();
        assert_eq!(
            std::fs::read_dir(room.disk(host).unwrap()).unwrap().count(),
            0
        );
        // What the harness knows of the machine is not the machine's.
        assert!(running.log().exists());
        room.power_on(host).await.unwrap();
        assert!(reaches(&room, host, "uplink"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_disk_can_be_filled_and_freed() {
    let folder = folder();
    let small = HostConfig {
        small_disk_bytes: Some(4 << 20),
        ..HostConfig::named("b")
    };
    let Some(room) = room_of(folder.path(), vec![HostConfig::named("a"), small]).await else {
        return;
    };
    let file = room.disk("b").unwrap().join("file");
    for _ in 0..2 {
        std::fs::write(&file, vec![1; 1 << 20]).unwrap();
        std::fs::remove_file(&file).unwrap();
        room.fill_disk("b").await.unwrap();
        let error = std::fs::write(&file, vec![1; 1 << 12]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        room.free_disk("b").await.unwrap();
    }
    // Nobody fills the machine's own disk.
    let error = room.fill_disk("a").await.unwrap_err();
    assert!(matches!(error, RoomError::Unsupported { .. }), "{error}");
}
