//! One container's life, step by step.

use wavetank_port::{
    ContainerRuntime as _, ContainerStatus, ErrorClass, ExecRequest, ExitCode, LogOptions,
    OutputStream, Signal,
};

use crate::support::{Bed, LONG, spec};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_created_started_and_ends_with_its_code() {
    let Some(bed) = Bed::new().await else { return };
    let id = bed.create("a", "echo out; echo err >&2; exit 7").await;
    let state = bed.runtime.inspect(&id, LONG).await.expect("inspect");
    assert_eq!((state.status, state.pid), (ContainerStatus::Created, None));
    let state = bed.runtime.start(&id, LONG).await.expect("start");
    assert!(state.started_at.is_some());
    let exit = bed.runtime.wait(&id, LONG).await.expect("wait");
    assert_eq!((exit.code, exit.oom_killed), (ExitCode::Known(7), false));
    assert!(exit.exited_at >= state.started_at);
    let again = bed.runtime.wait(&id, LONG).await.expect("wait");
    assert_eq!(again, exit, "the same for every reader");
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let mut log = bed.runtime.logs(&id, &options, LONG).await.expect("logs");
    let mut chunks = Vec::new();
    while let Some(chunk) = log.next().await.expect("chunk") {
        chunks.push((chunk.stream, chunk.bytes));
    }
    chunks.sort();
    let expected = [
        (OutputStream::Stdout, b"out\n".to_vec()),
        (OutputStream::Stderr, b"err\n".to_vec()),
    ];
    assert_eq!(chunks, expected);
    bed.runtime.delete(&id, false, LONG).await.expect("delete");
    let gone = bed.runtime.inspect(&id, LONG).await.expect_err("gone");
    assert_eq!(gone.class, ErrorClass::NotFound);
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_absent_fails_at_the_start() {
    let Some(bed) = Bed::new().await else { return };
    let spec = spec("a", &["/bin/nothing"]);
    bed.runtime.create(&spec, LONG).await.expect("create");
    let error = bed.runtime.start(&spec.id, LONG).await.expect_err("absent");
    assert_eq!(error.class, ErrorClass::InvalidArgument, "{error}");
    bed.runtime
        .delete(&spec.id, false, LONG)
        .await
        .expect("delete");
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_container_can_be_looked_into_paused_and_stopped() {
    let Some(bed) = Bed::new().await else { return };
    let id = bed
        .run(
            "a",
            "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done",
        )
        .await;
    bed.has_said(&id, "ready").await;
    let request = ExecRequest {
        command: ["/bin/sh", "-c", "echo hi; exit 5"]
            .map(str::to_owned)
            .to_vec(),
        timeout: LONG,
    };
    let result = bed.runtime.exec(&id, &request, LONG).await.expect("exec");
    assert_eq!(
        (result.code, result.stdout),
        (ExitCode::Known(5), b"hi\n".to_vec())
    );
    let stats = bed.runtime.stats(&id, LONG).await.expect("stats");
    assert!(stats.processes >= 1, "{stats:?}");
    bed.runtime.pause(&id, LONG).await.expect("pause");
    let state = bed.runtime.inspect(&id, LONG).await.expect("inspect");
    assert_eq!(state.status, ContainerStatus::Paused);
    bed.runtime.resume(&id, LONG).await.expect("resume");
    let exit = bed.runtime.stop(&id, LONG, LONG).await.expect("stop");
    assert_eq!(exit.expect("it ran").code, ExitCode::Known(3));
    let dead = bed
        .runtime
        .kill(&id, Signal::Kill, LONG)
        .await
        .expect_err("dead");
    assert_eq!(dead.class, ErrorClass::NotFound);
    bed.close().await;
}
