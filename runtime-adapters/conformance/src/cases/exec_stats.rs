//! Cases 58 to 60: beside a container's process: commands, numbers, new limits.

use std::time::Duration;

use wavetank_fixtures::program::{ABSENT_PATH, READY};
use wavetank_fixtures::{Output, Program, Step, TestImage};
use wavetank_port::{
    Capability, ContainerId, ErrorClass, ExecRequest, ExecResult, ExitCode, Limits, RuntimeError,
};

use crate::bed::{Bed, CALL};
use crate::check::{Answer, Check, holds, same};

/// Not enough for what takes for ever.
const SHORT: Duration = Duration::from_secs(1);
/// So much more that a machine which stands still for seconds kills in time all the same.
const LATE: Duration = Duration::from_secs(10);

/// 58
pub async fn exec(bed: &Bed<'_>) -> Check {
    bed.needs(Capability::Exec)?;
    let spec = bed.spec("a", TestImage::Normal);
    let state = bed.start_ready(&spec).await?;
    for code in [0, 5, 255] {
        let steps = [
            Step::Write(Output::Stdout, "out".to_owned()),
            Step::Write(Output::Stderr, "err".to_owned()),
            Step::Exit(code),
        ];
        let expected = ExecResult {
            code: ExitCode::Known(code.into()),
            stdout: b"out".to_vec(),
            stderr: b"err".to_vec(),
        };
        let found = run(bed, &spec.id, &Program::of(steps)).await;
        same("the command", found.works("exec")?, expected)?;
    }
    let absent = ExecRequest {
        command: vec![ABSENT_PATH.to_owned()],
        timeout: CALL,
    };
    let found = bed.runtime.exec(&spec.id, &absent, CALL).await;
    let code = found.works("exec of an absent program")?.code;
    same("an absent program", code, ExitCode::Known(127))?;
    cut_short(bed, &spec.id).await?;
    bed.still_runs(&state).await?;
    not_running(bed, &spec.id).await
}

/// A command that takes too long is killed: a file that it would make later is never made.
async fn cut_short(bed: &Bed<'_>, id: &ContainerId) -> Check {
    let late = "/tmp/late".to_owned();
    let late_ms = u64::try_from(LATE.as_millis()).unwrap_or(u64::MAX);
    let steps = [
        Step::SleepMs(late_ms),
        Step::WriteFile(late.clone(), String::new()),
    ];
    let endless = ExecRequest {
        command: Program::of(steps).command(),
        timeout: SHORT,
    };
    let answer = bed.runtime.exec(id, &endless, CALL).await;
    answer.fails("exec of what takes long", &[ErrorClass::DeadlineExceeded])?;
    // It had begun by then, so this outlasts it.
    tokio::time::sleep(LATE + SHORT).await;
    let look = run(bed, id, &Program::of([Step::RequireFile(late)])).await;
    let code = look.works("exec")?.code;
    holds(!code.is_success(), || {
        "a command that ran too long went on".to_owned()
    })
}

async fn not_running(bed: &Bed<'_>, id: &ContainerId) -> Check {
    let nothing = Program::exit(0);
    bed.runtime.stop(id, CALL, CALL * 2).await.works("stop")?;
    let created = bed.tool("created", &nothing);
    bed.create(&created).await?;
    for id in [id, &created.id] {
        let what = format!("exec in {id}, which does not run");
        let answer = run(bed, id, &nothing).await;
        answer.fails(&what, &[ErrorClass::FailedPrecondition])?;
    }
    let nobody = run(bed, &bed.id("nobody"), &nothing).await;
    nobody
        .fails("exec in nobody", &[ErrorClass::NotFound])
        .map(|_| ())
}

/// 59
pub async fn stats(bed: &Bed<'_>) -> Check {
    let steps = [
        Step::EatMebibytes(16),
        Step::Fork(2),
        Step::Write(Output::Stdout, READY.to_owned()),
        Step::SpinMs(60_000),
    ];
    let spec = bed.tool("a", &Program::of(steps));
    bed.start_ready(&spec).await?;
    let used = bed.runtime.stats(&spec.id, CALL).await.works("stats")?;
    holds(used.memory_bytes >= 16 << 20 && used.processes >= 3, || {
        format!("it has eaten 16 MiB and forked twice, and uses {used:?}")
    })?;
    // How much of a core it gets is up to the machine; in the end it is some.
    bed.until("it has used 100 ms of a core", || async {
        let used = bed.runtime.stats(&spec.id, CALL).await.works("stats")?;
        Ok(used.cpu_nanos >= 100_000_000)
    })
    .await?;
    bed.runtime
        .stop(&spec.id, Duration::ZERO, CALL)
        .await
        .works("stop")?;
    let exited = bed.inspect(&spec.id).await?;
    holds(exited.exit.is_some() && exited.pid.is_none(), || {
        format!("it has exited and has the state {exited:?}")
    })?;
    let answer = bed.runtime.stats(&spec.id, CALL).await;
    answer.fails("stats of an exited one", &[ErrorClass::FailedPrecondition])?;
    bed.remove(&spec.id).await?;
    let answer = bed.runtime.stats(&spec.id, CALL).await;
    answer.fails("stats of a deleted one", &[ErrorClass::NotFound])?;
    let answer = bed.runtime.inspect(&spec.id, CALL).await;
    answer
        .fails("inspect of a deleted one", &[ErrorClass::NotFound])
        .map(|_| ())
}

/// 60
pub async fn update(bed: &Bed<'_>) -> Check {
    bed.needs(Capability::LiveUpdate)?;
    bed.needs(Capability::MemoryLimit)?;
    bed.needs(Capability::Exec)?;
    let mut spec = bed.spec("a", TestImage::Normal);
    spec.memory_bytes_max = Some(512 << 20);
    let before = bed.start_ready(&spec).await?;
    let eat = Program::of([Step::EatMebibytes(128)]);
    let eaten = run(bed, &spec.id, &eat).await.works("exec")?.code;
    same("128 MiB of 512", eaten, ExitCode::Known(0))?;
    let limits = Limits {
        memory_bytes_max: Some(64 << 20),
        cpu_millis_max: None,
    };
    bed.runtime
        .update(&spec.id, &limits, CALL)
        .await
        .works("update")?;
    let eaten = run(bed, &spec.id, &eat).await.works("exec")?.code;
    same("128 MiB of 64", eaten, ExitCode::Known(137))?;
    same("its state", bed.inspect(&spec.id).await?, before)?;
    let stop = bed.runtime.stop(&spec.id, Duration::ZERO, CALL).await;
    stop.works("stop")?;
    let answer = bed.runtime.update(&spec.id, &limits, CALL).await;
    answer
        .fails("update of an exited one", &[ErrorClass::FailedPrecondition])
        .map(|_| ())
}

async fn run(
    bed: &Bed<'_>,
    id: &ContainerId,
    program: &Program,
) -> Result<ExecResult, RuntimeError> {
    let request = ExecRequest {
        command: program.command(),
        timeout: CALL,
    };
    bed.runtime.exec(id, &request, CALL * 2).await
}
