//! What Podman 4.3 answers while something changes under its hands, and what is made of it. The
//! words are its own; the moments are too short to be met on purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use wavetank_port::{
    ContainerId, ContainerRuntime as _, ContainerSpec, ErrorClass, ExecRequest, ExitCode,
    ImageReference, LogOptions, PullPolicy, PullRequest, RuntimeError, RuntimeEvent, Signal,
};

use crate::liar::{Answer, INSPECT, Liar, WITHIN, ended, no_such_container, ok, stumble};

/// runc's word on a process that has ended and was not waited for yet.
const TOO_LATE: &str = "cannot remove container 9d0e as it could not be stopped: sending SIGKILL to \
                        container 9d0e: container state improper: stopped";
const NOT_NOTED: &str = "timed out waiting for file /t/exits/9d0e: internal libpod error";
const CLEANING_UP: &str = "cleaning up container 9d0e: removing mount: device or resource busy";

fn id() -> ContainerId {
    ContainerId("a".to_owned())
}

/// Gives its answers one after the other, the last one again and again.
fn turns(answers: Vec<Vec<u8>>) -> impl FnMut() -> Vec<u8> + Send {
    let mut next = 0;
    move || {
        let at = next.min(answers.len() - 1);
        next += 1;
        answers[at].clone()
    }
}

/// Deletes a container that has ended; what becomes of each request is given in turn.
async fn delete(deletes: Vec<Vec<u8>>, looks: Vec<Vec<u8>>) -> Result<(), RuntimeError> {
    let (mut deletes, mut looks) = (turns(deletes), turns(looks));
    let liar = Liar::answering(move |request| match request.starts_with("DELETE") {
        true => deletes(),
        false => looks(),
    });
    liar.podman.delete(&id(), false, WITHIN).await
}

#[tokio::test]
async fn a_removal_that_stumbles_is_repeated() {
    let here = ok(ended().as_bytes());
    let removed = ok(b"[]");
    for words in [
        TOO_LATE,
        NOT_NOTED,
        "beginning transaction: database is locked",
    ] {
        let deletes = vec![stumble(words), stumble(words), removed.clone()];
        delete(deletes, vec![here.clone()]).await.expect(words);
    }
    let error = delete(vec![stumble(CLEANING_UP)], vec![here]).await;
    let error = error.expect_err("it is still there");
    assert!(error.message.contains("cleaning up"), "{error}");
}

#[tokio::test]
async fn a_removal_that_complains_has_removed() {
    let here = ok(ended().as_bytes());
    for words in [CLEANING_UP, NOT_NOTED] {
        let looks = vec![here.clone(), no_such_container()];
        let done = delete(vec![stumble(words), no_such_container()], looks).await;
        done.expect(words);
    }
    // What somebody else has removed is not ours to have removed.
    let error = delete(vec![no_such_container()], vec![here]).await;
    assert_eq!(error.expect_err("it is gone").class, ErrorClass::NotFound);
}

/// Podman's own removal would kill it, and might take it apart before it is gone.
#[tokio::test]
async fn what_runs_has_ended_before_it_is_removed() {
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let liar = Liar::answering(move |request| {
        let mut seen = seen.lock().expect("no panic");
        let is = |what: &str| request.contains(what);
        let what = match (is("/kill"), is("/wait"), request.starts_with("DELETE")) {
            (true, ..) => "kill",
            (_, true, _) => "wait",
            (.., true) => "delete",
            _ if seen.contains(&"kill") => return ok(ended().as_bytes()),
            _ => return ok(INSPECT.as_bytes()),
        };
        seen.push(what);
        ok(b"[]")
    });
    liar.podman.delete(&id(), true, WITHIN).await.expect("done");
    assert_eq!(*order.lock().expect("no panic"), ["kill", "wait", "delete"]);
}

#[tokio::test]
async fn a_signal_that_meets_an_ended_process_says_so_at_once() {
    // By its records the process lives still.
    let answer = |words: &'static str| {
        Liar::answering(move |request| match request.contains("/kill") {
            true => stumble(words),
            false => ok(INSPECT.as_bytes()),
        })
    };
    let kill = async |words| answer(words).podman.kill(&id(), Signal::Kill, WITHIN).await;
    let late = kill("container state improper: stopped").await;
    assert_eq!(late.expect_err("too late").class, ErrorClass::NotFound);
    // The signal was sent; how the process ended is not known.
    kill(NOT_NOTED).await.expect("sent");
}

#[tokio::test]
async fn a_create_that_stumbles_over_another_ones_volume_is_repeated() {
    let words = "adding volume to state: name n.v is in use: volume already exists";
    let mut answers = turns(vec![stumble(words), ok(br#"{"Id":"9d0e"}"#)]);
    let liar = Liar::answering(move |_| answers());
    let spec = ContainerSpec::of(id(), ImageReference("localhost/a:1".to_owned()));
    liar.podman.create(&spec, WITHIN).await.expect("made");
}

#[tokio::test]
async fn a_pull_whose_shared_layer_went_is_begun_again() {
    let lost = br#"{"error":"adding layer with blob \"sha256:0\": layer not known"}"#;
    let pull = PullRequest {
        policy: PullPolicy::Always,
        ..PullRequest::of(ImageReference("localhost/a:1".to_owned()))
    };
    let image = br#"{"Id":"1","Digest":"sha256:1","RepoTags":["localhost/a:1"]}"#;
    let mut pulls = turns(vec![ok(lost), ok(br#"{"id":"1"}"#)]);
    let liar = Liar::answering(move |request| match request.contains("/pull") {
        true => pulls(),
        false => ok(image),
    });
    liar.podman.pull(&pull, WITHIN).await.expect("pulled");
    let liar = Liar::new(ok(lost));
    let error = liar.podman.pull(&pull, WITHIN).await.expect_err("lost");
    assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
}

#[tokio::test]
async fn usage_of_what_has_just_ended_is_asked_for_until_that_is_known() {
    let stats = |pids: u32| {
        format!(r#"{{"Error":null,"Stats":[{{"CPUNano":1,"MemUsage":7,"PIDs":{pids}}}]}}"#)
    };
    let usage = async |stats: Vec<String>, looks: Vec<Vec<u8>>| {
        let stats = stats.iter().map(|it| ok(it.as_bytes())).collect();
        let (mut stats, mut looks) = (turns(stats), turns(looks));
        let liar = Liar::answering(move |request| match request.contains("/stats") {
            true => stats(),
            false => looks(),
        });
        liar.podman.stats(&id(), WITHIN).await
    };
    let here = ok(INSPECT.as_bytes());
    let gone = ok(ended().as_bytes());
    let counted = usage(vec![stats(0), stats(2)], vec![here.clone()]).await;
    assert_eq!(counted.expect("usage").processes, 2);
    let ended = usage(vec![stats(0)], vec![here.clone(), gone]).await;
    let error = ended.expect_err("it has ended");
    assert_eq!(error.class, ErrorClass::FailedPrecondition, "{error}");
    // A kernel that does not count processes.
    let uncounted = usage(vec![stats(0)], vec![here]).await;
    assert_eq!(uncounted.expect("usage").memory_bytes, 7);
}

fn frame(stream: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("short").to_be_bytes();
    [&[stream, 0, 0, 0], &length[..], bytes].concat()
}

/// Runs a command that ends with 127 and wrote this to its outputs.
async fn exec(out: &str, err: &str) -> Result<ExitCode, RuntimeError> {
    let frames = [frame(1, out.as_bytes()), frame(2, err.as_bytes())].concat();
    let mut looks = turns(vec![ok(INSPECT.as_bytes()), ok(ended().as_bytes())]);
    let liar = Liar::answering(move |request| match request {
        _ if request.contains("/start") => ok(&frames),
        _ if request.contains("/exec/") => ok(br#"{"Running":false,"ExitCode":127,"Pid":0}"#),
        _ if request.contains("/exec") => ok(br#"{"Id":"e0"}"#),
        _ => looks(),
    });
    let request = ExecRequest {
        command: vec!["x".to_owned()],
        timeout: WITHIN,
    };
    let result = liar.podman.exec(&id(), &request, WITHIN).await;
    result.map(|it| it.code)
}

#[tokio::test]
async fn a_command_refused_because_its_container_ended_is_not_a_missing_one() {
    let error = exec(
        "",
        "runc: cannot exec in a stopped container: OCI runtime error",
    )
    .await;
    let error = error.expect_err("it has ended");
    assert_eq!(error.class, ErrorClass::FailedPrecondition, "{error}");
    for (out, err) in [("done", ""), ("", "sh: nope: not found")] {
        let code = exec(out, err).await.expect("its own code");
        assert_eq!(code, ExitCode::Known(127));
    }
}

fn frames_of(lines: &[&str]) -> Vec<u8> {
    let frames = lines.iter().map(|line| {
        let line = format!("2026-11-21T09:28:49Z {line}\n");
        frame(1, line.as_bytes())
    });
    frames.collect::<Vec<_>>().concat()
}

fn log_of(lines: &[&str]) -> Vec<u8> {
    ok(&frames_of(lines))
}

async fn followed(liar: &Liar) -> Vec<String> {
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let mut log = liar
        .podman
        .logs(&id(), &options, WITHIN)
        .await
        .expect("a log");
    let mut read = Vec::new();
    while let Some(chunk) = log.next().await.expect("a chunk") {
        read.push(String::from_utf8(chunk.bytes).expect("text"));
    }
    read
}

/// Podman ends a followed log where it meets a line of events that is half written.
#[tokio::test]
async fn a_followed_log_goes_on_where_it_was_cut_off_and_ends_with_its_container() {
    let mut parts = turns(vec![
        log_of(&["one", "two"]),
        log_of(&["one", "two", "three"]),
        log_of(&["one", "two", "three", "four"]),
    ]);
    let streams = Arc::new(AtomicU32::new(0));
    let opened = Arc::clone(&streams);
    let liar = Liar::doing(move |request| {
        if request.contains("/logs") {
            opened.fetch_add(1, Ordering::Relaxed);
            return Answer::Whole(parts());
        }
        match opened.load(Ordering::Relaxed) {
            _ if request.contains("/wait") => Answer::Begun(Vec::new()),
            0 | 1 => Answer::Whole(ok(INSPECT.as_bytes())),
            _ => Answer::Whole(ok(ended().as_bytes())),
        }
    });
    assert_eq!(
        followed(&liar).await,
        ["one\n", "two\n", "three\n", "four\n"]
    );
    assert_eq!(streams.load(Ordering::Relaxed), 3);
}

/// And does not end it where the end was written just before Podman looked for it.
#[tokio::test]
async fn a_followed_log_that_podman_never_ends_ends_with_its_container() {
    let mut is_open = false;
    let liar = Liar::doing(move |request| match request.contains("/logs") {
        true if request.contains("follow=true") => {
            is_open = true;
            let head = b"HTTP/1.1 200 OK\r\n\r\n";
            Answer::Begun([&head[..], &frames_of(&["first"])].concat())
        }
        true => Answer::Whole(log_of(&["first", "last"])),
        false if is_open => Answer::Whole(ok(ended().as_bytes())),
        false => Answer::Whole(ok(INSPECT.as_bytes())),
    });
    assert_eq!(followed(&liar).await, ["first\n", "last\n"]);
}

/// A file that is rotated while it is read is read from its new beginning.
#[tokio::test]
async fn an_event_that_is_told_twice_is_given_once() {
    let event = |nanos: u32| {
        format!(
            r#"{{"Action":"remove","timeNano":{nanos},"Actor":{{"ID":"9d0e","Attributes":{{"name":"test.a"}}}}}}"#
        )
    };
    let told = [event(1), event(2), event(1), event(2), event(3)].join("\n");
    let liar = Liar::answering(move |request| match request.contains("stream=true") {
        true => ok(told.as_bytes()),
        false => ok(b""),
    });
    let mut events = liar.podman.events(None, WITHIN).await.expect("a stream");
    let mut cursors = Vec::new();
    for _ in 0..3 {
        let record = events.next().await.expect("an event");
        assert_eq!(record.event, RuntimeEvent::Deleted { id: id() });
        cursors.push(record.cursor.expect("a cursor").0);
    }
    assert_eq!(cursors, ["1/remove/9d0e", "2/remove/9d0e", "3/remove/9d0e"]);
}
