//! What is wrong with a network, as those feel it who use it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use wavetank_live::room::{NetworkState, RoomError, UPLINK};

use crate::bench::{
    LONG, SILENCE, all_arrive, arriving, connected, echo, folder, is_cut, none_arrives, reaches,
    room,
};

fn cuts(pairs: &[(&str, &str)]) -> NetworkState {
    let pairs = pairs
        .iter()
        .map(|(from, to)| ((*from).into(), (*to).into()));
    NetworkState {
        cuts: pairs.collect(),
        ..NetworkState::default()
    }
}

fn dark(host: &str) -> NetworkState {
    NetworkState {
        dark: [host.to_owned()].into(),
        ..NetworkState::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_reach_each_other_but_where_they_are_cut_and_one_way_is_one_way() {
    let folder = folder();
    let Some(room) = room(folder.path(), &["a", "b", "c"]).await else {
        return;
    };
    for (from, to) in [
        ("a", "b"),
        ("b", "c"),
        ("c", "c"),
        (UPLINK, "a"),
        ("b", UPLINK),
    ] {
        assert!(reaches(&room, from, to), "{from} to {to}");
    }
    room.set_network(cuts(&[("a", "b"), ("c", UPLINK)]))
        .await
        .unwrap();
    assert!(none_arrives(&room, "a", "b", 5, 10));
    assert!(all_arrive(&room, "b", "a", 5, 10));
    assert!(none_arrives(&room, "c", UPLINK, 5, 10));
    assert!(all_arrive(&room, UPLINK, "c", 5, 10));
    // A connection needs both ways; others are not concerned.
    assert!(is_cut(&room, "a", "b") && is_cut(&room, "b", "a"));
    assert!(reaches(&room, "a", "c") && reaches(&room, "c", "b"));
    // The state is the whole: what is not in it is healed.
    room.set_network(cuts(&[("b", "c")])).await.unwrap();
    assert!(reaches(&room, "a", "b") && is_cut(&room, "b", "c"));
    room.set_network(NetworkState::default()).await.unwrap();
    assert!(reaches(&room, "b", "c") && reaches(&room, "c", UPLINK));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_is_silent_and_goes_on_when_healed() {
    let folder = folder();
    let Some(room) = room(folder.path(), &["a", "b"]).await else {
        return;
    };
    for state in [cuts(&[("a", "b")]), cuts(&[("b", "a")]), dark("b")] {
        let mut stream = connected(&room, "a", "b");
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        room.set_network(state).await.unwrap();
        // Neither an end nor a reset: nothing at all.
        let error = echo(&mut stream, 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        room.set_network(NetworkState::default()).await.unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut back = [0];
        std::io::Read::read_exact(&mut stream, &mut back).unwrap();
        assert_eq!(back, [2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dark_host_reaches_nobody_and_nobody_reaches_it() {
    let folder = folder();
    let Some(room) = room(folder.path(), &["a", "b", "c"]).await else {
        return;
    };
    room.set_network(dark("a")).await.unwrap();
    assert!(is_cut(&room, "a", "b") && is_cut(&room, "b", "a"));
    assert!(is_cut(&room, UPLINK, "a"));
    // What is a host's own affair goes on.
    assert!(reaches(&room, "a", "a") && reaches(&room, "b", "c"));
    room.set_network(NetworkState::default()).await.unwrap();
    assert!(reaches(&room, "a", "b") && reaches(&room, "b", "a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_lose_and_slow_down_what_they_are_told_to() {
    let folder = folder();
    let Some(room) = room(folder.path(), &["a", "b", "c"]).await else {
        return;
    };
    let can = room.capabilities();
    if can.loss {
        let lossy = |percent| NetworkState {
            loss_percent: [("a".to_owned(), percent)].into(),
            ..NetworkState::default()
        };
        room.set_network(lossy(50)).await.unwrap();
        for (from, to) in [("a", "b"), ("b", "a")] {
            // That it is all or nothing has a chance of one in 2^199.
            assert!((1..200).contains(&arriving(&room, from, to, 200, 10)));
        }
        assert!(all_arrive(&room, "b", "c", 200, 10));
        room.set_network(lossy(100)).await.unwrap();
        assert!(none_arrives(&room, "a", "b", 200, 10));
    }
    if can.bandwidth {
        let slow = NetworkState {
            bytes_per_second_max: [("a".to_owned(), 20_000)].into(),
            ..NetworkState::default()
        };
        room.set_network(slow).await.unwrap();
        for (from, to) in [("a", "b"), ("b", "a")] {
            // The queue before such a link holds a few of them.
            assert!((1..80).contains(&arriving(&room, from, to, 80, 1_000)));
        }
    }
    room.set_network(NetworkState::default()).await.unwrap();
    assert!(all_arrive(&room, "a", "b", 80, 1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_delays_holds_every_packet_back_and_loses_none() {
    let folder = folder();
    let Some(room) = room(folder.path(), &["a", "b", "c"]).await else {
        return;
    };
    let held = Duration::from_millis(60);
    let delayed = |by| NetworkState {
        delay: [("a".to_owned(), by)].into(),
        ..NetworkState::default()
    };
    assert!(room.capabilities().delay, "by the kernel, or by us");
    let mut stream = connected(&room, "a", "b");
    let quickest = |stream: &mut TcpStream| {
        let times = (0..10).map(|_| {
            let began = Instant::now();
            assert_eq!(echo(stream, 5).unwrap(), 5);
            began.elapsed()
        });
        times.min().unwrap()
    };
    // A connection that is there goes on, there and back.
    room.set_network(delayed(held)).await.unwrap();
    assert!(quickest(&mut stream) >= 2 * held);
    room.set_network(delayed(2 * held)).await.unwrap();
    assert!(quickest(&mut stream) >= 4 * held);
    // Nobody else's link is slow, and whatever the kernel sends in one piece comes whole.
    assert!(quickest(&mut connected(&room, "b", "c")) < held);
    assert!(all_arrive(&room, "b", "a", 80, 1_000));
    let sent: Vec<u8> = (0..=u8::MAX).cycle().take(1_000_000).collect();
    let mut writer = stream.try_clone().unwrap();
    let data = sent.clone();
    let writing = std::thread::spawn(move || writer.write_all(&data));
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back).unwrap();
    writing.join().unwrap().unwrap();
    assert!(back == sent, "what came back is not what was sent");
    // What else is wrong is wrong there too.
    let mut both = cuts(&[("a", "b")]);
    both.delay = delayed(held).delay;
    room.set_network(both).await.unwrap();
    assert!(is_cut(&room, "a", "b") && reaches(&room, "a", "c"));
    room.set_network(NetworkState::default()).await.unwrap();
    assert!(quickest(&mut connected(&room, "a", "b")) < held);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_and_nothing_of_it_is_done() {
    let folder = folder();
    let Some(room) = room(folder.path(), &["a", "b"]).await else {
        return;
    };
    let mut state = cuts(&[("a", "b"), ("a", "z")]);
    let error = room.set_network(state.clone()).await.unwrap_err();
    assert!(matches!(error, RoomError::UnknownHost { .. }), "{error}");
    if !room.capabilities().delay {
        state = cuts(&[("a", "b")]);
        state.delay.insert("a".to_owned(), Duration::from_millis(5));
        let error = room.set_network(state).await.unwrap_err();
        assert!(matches!(error, RoomError::Unsupported { .. }), "{error}");
    }
    assert!(reaches(&room, "a", "b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_enters_a_host_is_there() {
    let folder = folder();
    let Some(room) = room(folder.path(), &["a", "b"]).await else {
        return;
    };
    let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let room = &room;
    let there = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            room.enter("a").unwrap();
            std::fs::read_link("/proc/thread-self/ns/net").unwrap()
        });
        worker.join().unwrap()
    });
    assert!(
        room.network_marks().contains(&there.display().to_string()),
        "{there:?}"
    );
    assert_eq!(
        std::fs::read_link("/proc/thread-self/ns/net").unwrap(),
        here
    );
}
