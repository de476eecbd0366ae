//! The chaos runtime under our own adapter and by itself.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use wavetank_port::{ContainerRuntime as _, ContainerStatus, ErrorClass, ExitCode, Signal};

use crate::support::{Bed, LONG, spec};

/// A link to the program with rules of its own.
struct Chaos {
    _folder: TempDir,
    program: PathBuf,
}

impl Chaos {
    fn new(rules: &Value) -> Self {
        Self::with_text(&json!({ "version": 1, "runtime": "runc", "rules": rules }).to_string())
    }

    fn with_text(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let program = folder.path().join("runtime");
        // No copy: a child that is forked meanwhile would hold it open for writing, and what is
        // open for writing cannot be executed.
        symlink(env!("CARGO_BIN_EXE_wavetank-chaos-runtime"), &program).expect("link");
        fs::write(folder.path().join("runtime.json"), text).expect("rules");
        Chaos {
            _folder: folder,
            program,
        }
    }

    /// The rules that fired, in order.
    fn fired(&self) -> Vec<String> {
        let path = format!("{}.json.fired", self.program.display());
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = |line: &str| serde_json::from_str::<Value>(line).expect("a line of JSON");
        text.lines()
            .map(|it| line(it)["rule"].as_str().expect("a name").to_owned())
            .collect()
    }

    /// Waits until so many have fired: a stand-in writes that down after the real process's end.
    async fn has_fired(&self, count: usize) {
        let deadline = Instant::now() + LONG;
        while self.fired().len() < count && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(&self.program)
            .args(arguments)
            .output()
            .expect("it runs")
    }
}

/// How late the end is of a container whose end is late.
const LATE_MILLIS: u64 = 1_500;

fn rule(name: &str, verb: &str, first: u64, fault: &Value) -> Value {
    json!({ "name": name, "verb": verb, "calls": { "first": first, "count": 1 }, "fault": fault })
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_due_rule_it_is_the_real_runtime() {
    let chaos = Chaos::new(&json!([rule(
        "never",
        "kill",
        1_000,
        &json!({ "hang": {} })
    )]));
    let Some(bed) = Bed::with_runtime(&chaos.program).await else {
        return;
    };
    let root = bed.folder.path().join("run");
    let root = root.to_str().expect("text");
    for arguments in [
        &["--version"][..],
        &["--root", root, "state", "nobody"],
        &["--root", root, "kill", "nobody", "9"],
        &["--root", root, "list"],
        &["no-such-verb"],
    ] {
        let real = Command::new("runc").args(arguments).output().expect("runc");
        let ours = chaos.run(arguments);
        assert_eq!(ours.status.code(), real.status.code(), "{arguments:?}");
        assert_eq!(
            without_times(&ours.stdout),
            without_times(&real.stdout),
            "{arguments:?}"
        );
        assert_eq!(
            without_times(&ours.stderr),
            without_times(&real.stderr),
            "{arguments:?}"
        );
    }
    let id = bed.run("a", "exit 7").await;
    let exit = bed.runtime.wait(&id, LONG).await.expect("wait");
    assert_eq!(exit.code, ExitCode::Known(7));
    assert!(chaos.fired().is_empty());
    bed.close().await;
}

/// Log lines carry the time.
fn without_times(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(|line| match line.split_once(" level=") {
        Some((_, rest)) => rest.to_owned(),
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_forged_lost_or_late() {
    let chaos = Chaos::new(&json!([
        rule(
            "forged",
            "create",
            1,
            &json!({ "wrong-exit-code": { "code": 9 } })
        ),
        rule(
            "late",
            "create",
            2,
            &json!({ "late-exit": { "millis": LATE_MILLIS } })
        ),
        rule(
            "killed",
            "create",
            3,
            &json!({ "late-exit": { "millis": 1 } })
        ),
        rule("lost", "create", 4, &json!({ "lost-exit": {} })),
    ]));
    let Some(bed) = Bed::with_runtime(&chaos.program).await else {
        return;
    };
    let forged = bed.run("forged", "exit 7").await;
    let exit = bed.runtime.wait(&forged, LONG).await.expect("wait");
    assert_eq!(exit.code, ExitCode::Known(9));
    ends_late(&bed).await;
    let killed = bed.run("killed", "while :; do sleep 1; done").await;
    bed.runtime
        .kill(&killed, Signal::Kill, LONG)
        .await
        .expect("kill");
    let exit = bed.runtime.wait(&killed, LONG).await.expect("wait");
    assert_eq!(exit.code, ExitCode::Known(137));
    let lost = bed.run("lost", "exit 7").await;
    real_process_ends(&bed, &lost.0).await;
    let soon = Duration::from_millis(300);
    let never = bed.runtime.wait(&lost, soon).await.expect_err("never seen");
    assert_eq!(never.class, ErrorClass::DeadlineExceeded);
    // The deletion would end a stand-in that has not come to writing it down.
    chaos.has_fired(4).await;
    bed.runtime.delete(&lost, true, LONG).await.expect("delete");
    assert_eq!(chaos.fired(), ["forged", "late", "killed", "lost"]);
    bed.close().await;
}

/// A container whose end is told late and not before.
async fn ends_late(bed: &Bed) {
    let late = Duration::from_millis(LATE_MILLIS);
    let id = bed.create("late", "exit 7").await;
    let asked_at = Instant::now();
    bed.runtime.start(&id, LONG).await.expect("start");
    real_process_ends(bed, &id.0).await;
    let state = bed.runtime.inspect(&id, LONG).await.expect("inspect");
    // On a machine that stood still meanwhile the end may have come.
    if asked_at.elapsed() < late {
        assert_eq!(state.status, ContainerStatus::Running, "not known yet");
    }
    let exit = bed.runtime.wait(&id, LONG).await.expect("wait");
    assert_eq!(exit.code, ExitCode::Known(7));
    let started_at = state.started_at.expect("it was started").0;
    let exited_at = exit.exited_at.expect("its monitor saw it").0;
    assert!(Duration::from_nanos(exited_at - started_at) >= late);
}

/// Asks the real runtime until it says so.
async fn real_process_ends(bed: &Bed, id: &str) {
    let root = bed.folder.path().join("run");
    loop {
        let state = Command::new("runc")
            .arg("--root")
            .arg(&root)
            .args(["state", id])
            .output();
        let state: Value = serde_json::from_slice(&state.expect("runc").stdout).expect("state");
        if state["status"] == "stopped" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_lose_their_reply_and_hang_by_their_number() {
    let chaos = Chaos::new(&json!([
        rule(
            "fail",
            "create",
            2,
            &json!({ "fail": { "message": "no luck" } })
        ),
        rule(
            "lost",
            "start",
            2,
            &json!({ "lost-reply": { "message": "lost" } })
        ),
        rule("early", "start", 3, &json!({ "exit-before-start": {} })),
        rule("hang", "kill", 1, &json!({ "hang": {} })),
    ]));
    let Some(bed) = Bed::with_runtime(&chaos.program).await else {
        return;
    };
    let hung = bed
        .run("hung", "trap '' TERM; while :; do sleep 0.1; done")
        .await;
    let second = spec("second", &["/bin/true"]);
    let error = bed
        .runtime
        .create(&second, LONG)
        .await
        .expect_err("the second create");
    assert!(error.message.contains("no luck"), "{error}");
    let gone = bed
        .runtime
        .inspect(&second.id, LONG)
        .await
        .expect_err("nothing is left");
    assert_eq!(gone.class, ErrorClass::NotFound);
    let lost = bed.run("lost", "while :; do sleep 1; done").await;
    let state = bed.runtime.inspect(&lost, LONG).await.expect("inspect");
    assert_eq!(
        state.status,
        ContainerStatus::Running,
        "it runs, whatever was replied"
    );
    let early = bed.run("early", "while :; do sleep 1; done").await;
    let exit = bed.runtime.wait(&early, LONG).await.expect("wait");
    assert_eq!(exit.code, ExitCode::Known(137));
    let exit = bed
        .runtime
        .stop(&hung, Duration::ZERO, LONG)
        .await
        .expect("stop");
    assert_eq!(exit.expect("it ran").code, ExitCode::Known(137));
    assert_eq!(chaos.fired(), ["fail", "lost", "early", "hang"]);
    bed.close().await;
}

/// Calls of several containers mix; the one that was created with the fault is the one that dies.
#[tokio::test(flavor = "multi_thread")]
async fn the_container_that_was_created_to_end_early_does_whoever_starts_first() {
    let chaos = Chaos::new(&json!([rule(
        "early",
        "create",
        1,
        &json!({ "exit-before-start": { "code": 7 } })
    )]));
    let Some(bed) = Bed::with_runtime(&chaos.program).await else {
        return;
    };
    let loops = ["/bin/sh", "-c", "while :; do sleep 1; done"];
    let (doomed, other) = (spec("doomed", &loops), spec("other", &loops));
    for spec in [&doomed, &other] {
        bed.runtime.create(spec, LONG).await.expect("create");
    }
    assert!(chaos.fired().is_empty(), "nothing has been started");
    for spec in [&other, &doomed] {
        bed.runtime.start(&spec.id, LONG).await.expect("start");
    }
    let exit = bed.runtime.wait(&doomed.id, LONG).await.expect("wait");
    assert_eq!(exit.code, ExitCode::Known(7));
    let state = bed.runtime.inspect(&other.id, LONG).await.expect("inspect");
    assert_eq!(state.status, ContainerStatus::Running);
    assert_eq!(chaos.fired(), ["early"]);
    // What is created under the same id later has another fate.
    bed.runtime
        .delete(&doomed.id, true, LONG)
        .await
        .expect("delete");
    bed.runtime.create(&doomed, LONG).await.expect("create");
    bed.runtime.start(&doomed.id, LONG).await.expect("start");
    let state = bed
        .runtime
        .inspect(&doomed.id, LONG)
        .await
        .expect("inspect");
    assert_eq!(state.status, ContainerStatus::Running);
    bed.close().await;
}

#[test]
fn rules_that_are_not_understood_stop_everything() {
    let text = "{\"version\": 1,\n \"runtime\": \"runc\",\n \"rulez\": []}";
    let chaos = Chaos::with_text(text);
    let log = Path::new(&chaos.program).with_extension("log");
    let log_text = log.to_str().expect("text");
    let output = chaos.run(&["--log", log_text, "--log-format", "json", "state", "a"]);
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).expect("text");
    for part in ["runtime.json", "unknown field `rulez`", "line 3"] {
        assert!(words.contains(part), "{words}");
    }
    let logged: Value = serde_json::from_slice(&fs::read(&log).expect("log")).expect("JSON");
    assert!(logged["time"].as_str().is_some_and(|it| it.ends_with('Z')));
    assert!(
        logged["msg"]
            .as_str()
            .is_some_and(|it| it.contains("rulez"))
    );
}
