//! A service that answers with anything at all: every call ends with a typed error or an answer,
//! never with a panic and never not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use wavetank_podman::Podman;
use wavetank_port::{
    ContainerId, ContainerRuntime as _, ContainerStatus, ErrorClass, ExecRequest, ExitCode,
    ImageReference, ListFilter, LogOptions, PullPolicy, PullRequest, RuntimeError, RuntimeEvent,
    Signal,
};

use crate::client;
use crate::liar::{Answer, INSPECT, Liar, WITHIN, ended, ok, stumble};

/// More than any answer may have.
const ENDLESS_BYTES: usize = 40 << 20;

/// Every call of the port; streams are read to their first answer.
async fn every_call(podman: &Podman) -> Vec<(&'static str, Result<(), RuntimeError>)> {
    let id = ContainerId("a".to_owned());
    let image = ImageReference("localhost/a:1".to_owned());
    let pull = PullRequest {
        policy: PullPolicy::Always,
        ..PullRequest::of(image.clone())
    };
    let exec = ExecRequest {
        command: vec!["x".to_owned()],
        timeout: WITHIN,
    };
    let log = async {
        let mut log = podman.logs(&id, &LogOptions::default(), WITHIN).await?;
        log.next().await
    };
    let list = ListFilter::default();
    vec![
        ("version", podman.version(WITHIN).await.map(drop)),
        ("pull", podman.pull(&pull, WITHIN).await.map(drop)),
        ("images", podman.images(WITHIN).await.map(drop)),
        ("remove image", podman.remove_image(&image, WITHIN).await),
        ("inspect", podman.inspect(&id, WITHIN).await.map(drop)),
        ("start", podman.start(&id, WITHIN).await.map(drop)),
        ("kill", podman.kill(&id, Signal::Kill, WITHIN).await),
        ("pause", podman.pause(&id, WITHIN).await),
        ("delete", podman.delete(&id, true, WITHIN).await),
        ("list", podman.list(&list, WITHIN).await.map(drop)),
        ("logs", log.await.map(drop)),
        ("exec", podman.exec(&id, &exec, WITHIN).await.map(drop)),
        ("stats", podman.stats(&id, WITHIN).await.map(drop)),
        ("events", podman.events(None, WITHIN).await.map(drop)),
    ]
}

async fn class_of_each(answer: Vec<u8>, expected: ErrorClass) {
    let liar = Liar::new(answer);
    for (call, result) in every_call(&liar.podman).await {
        let error = result.expect_err(call);
        assert_eq!(error.class, expected, "{call}: {error}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_unavailable() {
    class_of_each(Vec::new(), ErrorClass::Unavailable).await;
    class_of_each(b"HTTP/1.1 200 O".to_vec(), ErrorClass::Unavailable).await;
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"Id\":";
    class_of_each(cut.to_vec(), ErrorClass::Unavailable).await;
    let cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n[{";
    class_of_each(cut.to_vec(), ErrorClass::Unavailable).await;
}

#[tokio::test]
async fn an_answer_of_the_wrong_kind_is_unknown() {
    for body in ["{", "7", "{\"Id\":{}}", "\u{0}", "<html>", "[[[[[["] {
        let liar = Liar::new(ok(body.as_bytes()));
        for call in [
            "version", "images", "inspect", "start", "delete", "list", "logs", "stats",
        ] {
            let calls = every_call(&liar.podman).await;
            let (_, result) = calls.into_iter().find(|(it, _)| *it == call).expect(call);
            let error = result.expect_err(call);
            assert_eq!(
                error.class,
                ErrorClass::Unknown,
                "{call} of `{body}`: {error}"
            );
        }
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let liar = Liar::new(ok(&vec![b' '; ENDLESS_BYTES]));
    for (call, result) in [
        ("version", liar.podman.version(WITHIN).await.map(drop)),
        ("images", liar.podman.images(WITHIN).await.map(drop)),
    ] {
        let error = result.expect_err(call);
        assert_eq!(
            error.class,
            ErrorClass::ResourceExhausted,
            "{call}: {error}"
        );
    }
    let endless_error = [
        b"HTTP/1.1 500 No\r\nContent-Length: 99999999\r\n\r\n".as_slice(),
        &vec![b'x'; 1 << 20],
    ];
    let liar = Liar::new(endless_error.concat());
    let error = liar.podman.version(WITHIN).await.expect_err("an error");
    assert_eq!(error.class, ErrorClass::ResourceExhausted, "{error}");
}

#[tokio::test]
async fn a_service_that_says_nothing_meets_the_deadline() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("s");
    // The kernel accepts for a listener that nobody serves.
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let error = client(socket).version(Duration::from_millis(50)).await;
    let error = error.expect_err("no answer");
    assert_eq!(error.class, ErrorClass::DeadlineExceeded);
    let error = client(folder.path().join("absent")).version(WITHIN).await;
    assert_eq!(error.expect_err("no socket").class, ErrorClass::Unavailable);
}

/// Tells the truth about the container, and `answer` about whatever comes after it.
fn truthful_but(path: &'static str, answer: Vec<u8>) -> Liar {
    Liar::answering(move |request| {
        let target = request.split(' ').nth(1).unwrap_or_default();
        if target.contains(path) {
            return answer.clone();
        }
        match target.ends_with("/exec") {
            true => ok(br#"{"Id":"e0"}"#),
            false => ok(INSPECT.as_bytes()),
        }
    })
}

const PROCESS_GOING: &str = "read /proc/7/cgroup: no such process";

#[tokio::test]
async fn a_service_that_stumbles_is_asked_again() {
    let stumbles = AtomicU32::new(0);
    let liar = Liar::answering(
        move |_| match stumbles.fetch_add(1, Ordering::Relaxed) % 3 {
            2 => ok(INSPECT.as_bytes()),
            _ => stumble(PROCESS_GOING),
        },
    );
    let id = ContainerId("a".to_owned());
    for _ in 0..3 {
        let state = liar.podman.inspect(&id, WITHIN).await.expect("a state");
        assert_eq!(state.status, ContainerStatus::Running);
    }
}

#[tokio::test]
async fn a_signal_is_never_sent_twice() {
    let kills = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&kills);
    let liar = Liar::answering(move |request| match request.contains("/kill") {
        true => {
            counted.fetch_add(1, Ordering::Relaxed);
            stumble(PROCESS_GOING)
        }
        false => ok(INSPECT.as_bytes()),
    });
    let id = ContainerId("a".to_owned());
    let error = liar.podman.kill(&id, Signal::HangUp, WITHIN).await;
    let error = error.expect_err("a stumble");
    assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
    assert_eq!(kills.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_service_that_always_stumbles_is_unavailable() {
    let liar = Liar::new(stumble(PROCESS_GOING));
    let id = ContainerId("a".to_owned());
    let error = liar.podman.inspect(&id, WITHIN).await.expect_err("no end");
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert!(error.message.contains(PROCESS_GOING), "{error}");
}

/// Podman 4.3 answers a wait 20 seconds late if a monitor's clean-up fails; inspections know.
#[tokio::test]
async fn a_wait_that_the_service_never_answers_ends_with_the_process() {
    let asked = AtomicU32::new(0);
    let liar = Liar::doing(move |request| match asked.fetch_add(1, Ordering::Relaxed) {
        _ if request.contains("/wait") => Answer::Begun(Vec::new()),
        0 => Answer::Whole(ok(INSPECT.as_bytes())),
        _ => Answer::Whole(ok(ended().as_bytes())),
    });
    let id = ContainerId("a".to_owned());
    let exit = liar.podman.wait(&id, WITHIN).await.expect("an exit");
    assert_eq!(exit.code, ExitCode::Known(5));
}

#[tokio::test]
async fn frames_that_lie_about_their_length_are_unknown() {
    let id = ContainerId("a".to_owned());
    let head = b"HTTP/1.1 200 OK\r\n\r\n".as_slice();
    let lies: [&[u8]; 3] = [
        &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        &[1, 0, 0, 0, 0, 0, 0, 9, b'x'],
        &[9, 0, 0, 0, 0, 0, 0, 1, b'x'],
    ];
    for lie in lies {
        let answer = [head, lie].concat();
        let liar = truthful_but("/logs", answer.clone());
        let log = liar.podman.logs(&id, &LogOptions::default(), WITHIN).await;
        let error = log.expect("a log").next().await.expect_err("a lie");
        assert_eq!(error.class, ErrorClass::Unknown, "{lie:?}: {error}");
        let liar = truthful_but("/start", answer);
        let exec = ExecRequest {
            command: vec!["x".to_owned()],
            timeout: WITHIN,
        };
        let error = liar.podman.exec(&id, &exec, WITHIN).await;
        let error = error.expect_err("a lie");
        assert_eq!(error.class, ErrorClass::Unknown, "{lie:?}: {error}");
    }
}

#[tokio::test]
async fn a_session_cannot_name_another_path() {
    let liar = Liar::answering(|request| match request.contains("/exec ") {
        true => ok(br#"{"Id":"../containers/b"}"#),
        false => ok(INSPECT.as_bytes()),
    });
    let exec = ExecRequest {
        command: vec!["x".to_owned()],
        timeout: WITHIN,
    };
    let id = ContainerId("a".to_owned());
    let error = liar
        .podman
        .exec(&id, &exec, WITHIN)
        .await
        .expect_err("a lie");
    assert_eq!(error.class, ErrorClass::Unknown, "{error}");
}

#[tokio::test]
async fn a_pull_that_only_seems_to_end_is_no_success() {
    let pull = PullRequest {
        policy: PullPolicy::Always,
        ..PullRequest::of(ImageReference("localhost/a:1".to_owned()))
    };
    let table = [
        ("{\"stream\":\"Trying\"}\n", ErrorClass::Unavailable),
        ("{\"error\":\"manifest unknown\"}\n", ErrorClass::NotFound),
        (
            "{\"id\":\"1\"}\n{\"error\":\"unexpected EOF\"}",
            ErrorClass::Unavailable,
        ),
        ("Trying\n", ErrorClass::Unknown),
    ];
    for (body, class) in table {
        let liar = Liar::new(ok(body.as_bytes()));
        let error = liar.podman.pull(&pull, WITHIN).await.expect_err(body);
        assert_eq!(error.class, class, "{body}: {error}");
    }
}

#[tokio::test]
async fn an_event_that_is_none_ends_the_stream_with_an_error() {
    let liar = Liar::answering(|request| match request.contains("stream=true") {
        true => ok(b"{\"Action\":\"died\"}\n"),
        false => ok(b""),
    });
    let mut events = liar.podman.events(None, WITHIN).await.expect("a stream");
    let error = events.next().await.expect_err("no event");
    assert_eq!(error.class, ErrorClass::Unknown, "{error}");
    let over = events.next().await.expect_err("the end");
    assert_eq!(over.class, ErrorClass::Unavailable);
}

#[tokio::test]
async fn a_file_of_events_that_is_just_being_written_is_read_again() {
    // As Podman 4.3 says it: status 200, and the refusal in the body.
    let torn = r#"{"cause":"unexpected end of JSON input",
        "message":"unexpected end of JSON input","response":500}"#;
    let event = r#"{"Action":"remove","timeNano":9,
        "Actor":{"ID":"9d0e","Attributes":{"name":"test.a"}}}"#;
    let [torn, event] = [torn, event].map(|line| ok(line.replace('\n', "").as_bytes()));
    let asked = AtomicU32::new(0);
    // The replay stumbles, then the stream does; the replay after that has the event.
    let liar = Liar::answering(move |request| match request.contains("stream=true") {
        true => torn.clone(),
        false => match asked.fetch_add(1, Ordering::Relaxed) {
            0 | 2 => torn.clone(),
            1 => ok(b""),
            _ => event.clone(),
        },
    });
    let mut events = liar.podman.events(None, WITHIN).await.expect("a stream");
    let found = events.next().await.expect("an event").event;
    let id = ContainerId("a".to_owned());
    assert_eq!(found, RuntimeEvent::Deleted { id });
}

/// Cuts, doubles and replaces bytes of a good answer.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let good = ok(INSPECT.as_bytes());
    let length = good.len();
    let change = (0..length, any::<u8>());
    (proptest::collection::vec(change, 0..4), 0..=length).prop_map(move |(changes, end)| {
        let mut bytes = good.clone();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(end);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_answered_every_call_ends(
        answer in prop_oneof![
            damaged(),
            proptest::collection::vec(any::<u8>(), 0..200),
            ".{0,200}".prop_map(|body| ok(body.as_bytes())),
        ],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let liar = Liar::new(answer);
            for (call, result) in every_call(&liar.podman).await {
                if let Err(error) = result {
                    let late = error.class == ErrorClass::DeadlineExceeded;
                    assert!(!late, "{call} was not ended by the end of the answer: {error}");
                }
            }
        });
    }
}
