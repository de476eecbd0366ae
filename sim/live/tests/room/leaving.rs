//! Rooms leave nothing, however they end, and do not concern each other.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use wavetank_fixtures::daemon::process::Process;
use wavetank_live::room::{Audit, Room, sweep};

use crate::bench::{
    child_folder, folder, is_cut, killed, length, reaches, room, say_and_hang, shell, sweeping,
    until,
};

/// What names all that is on a room's hosts as long as it is there.
fn all_marks(room: &Room) -> Vec<String> {
    [room.marks(), room.network_marks()].concat()
}

/// Things of every kind on a room's hosts. Returns a process that is in namespaces of its own and
/// names nothing of the room.
async fn busy(room: &Room) -> u32 {
    let script = "setsid unshare --net --mount sleep 1000 & echo $!; exec sleep 1000";
    let running = room.spawn("a", "busy", shell(script)).unwrap();
    let disk = room.disk("b").unwrap().join("mounted");
    std::fs::create_dir_all(&disk).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "x"])
        .arg(&disk)
        .status();
    assert!(mount.unwrap().success());
    let cgroup = format!("{}-test", room.runtime_namespace("a").unwrap());
    room.claim_cgroup(&cgroup).unwrap();
    for hierarchy in ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"] {
        if std::fs::create_dir(Path::new(hierarchy).join(&cgroup)).is_ok() {
            break;
        }
    }
    until("all of it is there", || {
        let found = Audit::take().unwrap().about(&all_marks(room));
        length(running.log()) > 1 && !found.processes.is_empty() && !found.mounts.is_empty()
    })
    .await;
    let child = std::fs::read_to_string(running.log()).unwrap();
    child.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_or_dropped_room_leaves_the_machine_as_it_was() {
    for is_dropped in [false, true] {
        let folder = folder();
        let before = Audit::take();
        let Some(room) = room(folder.path(), &["a", "b"]).await else {
            return;
        };
        let before = before.unwrap();
        let hidden = Process::read(busy(&room).await).unwrap();
        let marks = room.marks();
        let during = Audit::take()
            .unwrap()
            .since(&before)
            .about(&all_marks(&room));
        for (what, found) in [
            ("processes", &during.processes),
            ("mounts", &during.mounts),
            ("namespaces", &during.network_namespaces),
            ("links", &during.links),
            ("cgroups", &during.cgroups),
            ("ledgers", &during.ledgers),
        ] {
            assert!(!found.is_empty(), "the audit sees no {what}");
        }
        if is_dropped {
            drop(room);
        } else {
            let removed = room.close().await.unwrap();
            assert_eq!(removed.left, Vec::<String>::new());
        }
        let after = Audit::take().unwrap();
        assert_eq!(after.about(&marks), Audit::default());
        assert!(after.processes.is_disjoint(&during.processes));
        assert!(!hidden.is_alive());
        // Others may come and go meanwhile; rules of ours would stay.
        let rules = after.since(&before).packet_filter;
        let address_of_ours = |it: &&String| it.contains(" 10.");
        assert_eq!(rules.iter().find(address_of_ours), None);
        assert!(!folder.path().join("r").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rooms_do_not_know_each_other() {
    let (one_folder, other_folder) = (folder(), folder());
    let Some(one) = room(one_folder.path(), &["a", "b"]).await else {
        return;
    };
    let other = room(other_folder.path(), &["a", "b"]).await.unwrap();
    assert_ne!(one.run(), other.run());
    let addresses = [&one, &other].map(|it| [it.uplink(), it.address("a").unwrap()]);
    let distinct: BTreeSet<_> = addresses.iter().flatten().collect();
    assert_eq!(distinct.len(), 4);
    assert!(reaches(&one, "a", "b") && reaches(&other, "a", "b"));
    one.power_off("a").await.unwrap();
    assert!(is_cut(&one, "a", "b") && reaches(&other, "a", "b"));
    // Neither is swept: their owner lives.
    let swept = {
        let _alone = sweeping().await;
        sweep(false).unwrap()
    };
    assert!(
        swept
            .iter()
            .all(|it| it.run != one.run() && it.run != other.run())
    );
    one.close().await.unwrap();
    assert!(reaches(&other, "a", "b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_harness_left_is_swept() {
    let folder = folder();
    // A room of our own says whether there can be one at all, and is to be spared.
    let Some(room) = room(folder.path(), &["a"]).await else {
        return;
    };
    let _alone = sweeping().await;
    let said = killed("leaving::a_harness_that_hangs", folder.path()).await;
    let (marks, network_marks, hidden): (Vec<String>, Vec<String>, u32) =
        serde_json::from_slice(&said).unwrap();
    let hidden = Process::read(hidden).unwrap();
    let left = Audit::take()
        .unwrap()
        .about(&[marks.clone(), network_marks].concat());
    assert!(!left.processes.is_empty() && !left.links.is_empty() && !left.ledgers.is_empty());
    let swept = sweep(false).unwrap();
    let ours = swept
        .iter()
        .find(|it| marks[0].ends_with(&it.run))
        .expect("it is said");
    assert_eq!(ours.left, Vec::<String>::new());
    assert!(ours.to_string().contains("removed network namespace wt-"));
    let after = Audit::take().unwrap();
    assert_eq!(after.about(&marks), Audit::default());
    assert!(after.processes.is_disjoint(&left.processes));
    assert!(!hidden.is_alive());
    // Once is enough, and ours is still there.
    assert!(sweep(false).unwrap().iter().all(|it| it.run != ours.run));
    assert!(reaches(&room, "uplink", "a"));
}

/// Not a test but the child of one: only there it does anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_harness_that_hangs() {
    let Some(folder) = child_folder() else {
        return;
    };
    // Not in the folder of the room that its parent has.
    let room = room(&folder.join("child"), &["a", "b"]).await.unwrap();
    let hidden = busy(&room).await;
    say_and_hang(&folder, &(room.marks(), room.network_marks(), hidden)).await;
}
