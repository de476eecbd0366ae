//! Podman's live stream ends whenever its file of events is rotated. Ours must not show it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;
use wavetank_fixtures::Program;
use wavetank_fixtures::daemon::podman::PodmanSettings;
use wavetank_port::{ContainerRuntime as _, EventCursor, EventStream, RuntimeEvent};

use crate::{CALL, Real};

/// Small enough that the file is rotated often: an event has about 260 bytes, a life has five
/// events, and a rotation keeps the newer half, which is nine lives.
const EVENTS_BYTES_MAX: u64 = 24_000;

/// Enough for half a dozen rotations.
const LIVES: usize = 60;

/// Lives that nobody listens to. Wherever a rotation falls, it keeps more than that.
const MISSED: usize = 5;

/// What every life shows.
const LIFE: [&str; 3] = ["start", "exit", "delete"];

#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_lost_or_said_twice_when_the_file_is_rotated() {
    let settings = PodmanSettings {
        events_bytes_max: EVENTS_BYTES_MAX,
        ..PodmanSettings::default()
    };
    let Some(real) = Real::start(&settings).await else {
        return;
    };
    let mut stream = real.podman.events(None, CALL).await.expect("a stream");
    let (half, rest) = (LIVES / 2, LIVES);
    lives(&real, 0..half).await;
    let (mut seen, cursor) = collect(stream.as_mut(), half).await;
    // Another subscriber goes on from there, after it has missed some.
    drop(stream);
    lives(&real, half..half + MISSED).await;
    let mut stream = real
        .podman
        .events(Some(&cursor), CALL)
        .await
        .expect("a stream from the cursor");
    lives(&real, half + MISSED..rest).await;
    let (more, _) = collect(stream.as_mut(), rest - half).await;
    seen.extend(more);
    let expected: BTreeMap<String, Vec<&str>> = (0..rest)
        .map(|it| (format!("c{it}"), LIFE.to_vec()))
        .collect();
    assert_eq!(seen, expected);
    let file = real.daemon.directory().join("tmp/events/events.log");
    let length = std::fs::metadata(file).expect("the file of events").len();
    assert!(
        length < 2 * EVENTS_BYTES_MAX,
        "never rotated: {length} bytes"
    );
}

async fn lives(real: &Real, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let spec = real.spec(&format!("c{number}"), &Program::exit(3));
        real.podman.create(&spec, CALL).await.expect("create");
        real.podman.start(&spec.id, CALL).await.expect("start");
        real.podman.wait(&spec.id, CALL).await.expect("wait");
        real.podman
            .delete(&spec.id, false, CALL)
            .await
            .expect("delete");
    }
}

/// Reads until so many containers have been deleted, and a moment longer for what is one too many.
async fn collect(
    stream: &mut dyn EventStream,
    deletes: usize,
) -> (BTreeMap<String, Vec<&'static str>>, EventCursor) {
    let mut seen: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    let (mut cursor, mut deleted) = (None, 0);
    while deleted < deletes {
        let next = timeout(CALL, stream.next())
            .await
            .expect("an event in time");
        let record = next.expect("an event");
        assert_ne!(record.event, RuntimeEvent::Interrupted, "after {seen:?}");
        cursor = record.cursor;
        deleted += usize::from(record.event.name() == "delete");
        let id = record.event.container().expect("an id").to_string();
        seen.entry(id).or_default().push(record.event.name());
    }
    let one_more = timeout(Duration::from_millis(300), stream.next()).await;
    assert!(one_more.is_err(), "one too many: {one_more:?}");
    (seen, cursor.expect("a cursor"))
}
