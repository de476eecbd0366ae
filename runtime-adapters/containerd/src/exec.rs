//! Commands beside a container's process.
//!
//! Their outputs come through named pipes that we read while they run: memory is bounded by what
//! is kept, disk by nothing being written there.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prost_types::Any;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use wavetank_port::observe::EXEC_OUTPUT_BYTES_MAX;
use wavetank_port::{
    ContainerId, ErrorClass, ExecRequest, ExecResult, ExitCode, RuntimeError, runtime::Result,
};

use crate::api::containerd::services::tasks::v1::{
    DeleteProcessRequest, ExecProcessRequest, KillRequest, StartRequest, WaitRequest,
};
use crate::daemon::{Daemon, about};
use crate::error::{broken, error, found};
use crate::lifecycle::{LOOK_AGAIN, local, state_error};
use crate::observe::Phase;
use crate::record::now;
use crate::spec;

/// How a shell says that a program is not there.
const NOT_FOUND: i32 = 127;
/// How a shell says that a program cannot be run.
const NOT_EXECUTABLE: i32 = 126;
const KILL: u32 = 9;
/// How often it is looked whether a container has ended in which a command could not be started.
const ENDING_LOOKS: u32 = 20;

/// One exec: its name within the container and its pipes.
struct Exec {
    daemon: Arc<Daemon>,
    container: ContainerId,
    name: String,
    dir: PathBuf,
}

impl Daemon {
    pub(crate) async fn exec(
        self: Arc<Self>,
        id: ContainerId,
        request: ExecRequest,
    ) -> Result<ExecResult> {
        let observed = self.observe(&id).await?;
        if !matches!(observed.phase, Phase::Running { .. }) {
            return Err(state_error(&id, "exec", "it does not run"));
        }
        let container_spec = observed.container.spec.ok_or_else(|| broken(&id.0))?;
        let process = spec::exec_process(&container_spec, &request.command)?;
        let name = unique_name();
        let exec = Exec {
            daemon: self.clone(),
            dir: observed.record.log_dir.join(&name),
            container: id,
            name,
        };
        let result = exec.run_with_pipes(process, request.timeout).await;
        // Named pipes hold no data once they are closed: nothing is lost with them.
        let _ = tokio::fs::remove_dir_all(&exec.dir).await;
        result
    }
}

impl Exec {
    async fn run_with_pipes(&self, process: Any, timeout: Duration) -> Result<ExecResult> {
        let created = std::fs::create_dir_all(&self.dir);
        created.map_err(|it| local(&self.container, &it))?;
        let (stdout, stderr) = (self.pipe("stdout")?, self.pipe("stderr")?);
        let (done, ended) = watch::channel(false);
        let (code, stdout, stderr) = tokio::join!(
            async {
                let code = self.run(process, timeout).await;
                // The shim has passed on all output when it has deleted the process.
                done.send_replace(true);
                code
            },
            keep(stdout, ended.clone()),
            keep(stderr, ended.clone()),
        );
        Ok(match code? {
            Ended::With(code) => ExecResult {
                code,
                stdout,
                stderr,
            },
            Ended::NotStarted(code, why) => ExecResult {
                code: ExitCode::Known(code),
                stdout: Vec::new(),
                stderr: why.into_bytes(),
            },
        })
    }

    /// A named pipe and our end of it. Ours is open for both directions, so that the shim's coming
    /// and going is no end.
    fn pipe(&self, name: &str) -> Result<pipe::Receiver> {
        let path = self.dir.join(name);
        let made = mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
        made.map_err(|it| local(&self.container, &it.into()))?;
        let open = pipe::OpenOptions::new()
            .read_write(true)
            .open_receiver(&path);
        open.map_err(|it| local(&self.container, &it))
    }

    async fn run(&self, process: Any, timeout: Duration) -> Result<Ended> {
        let request = ExecProcessRequest {
            container_id: self.container.0.clone(),
            exec_id: self.name.clone(),
            stdout: self.dir.join("stdout").display().to_string(),
            stderr: self.dir.join("stderr").display().to_string(),
            spec: Some(process),
        };
        let mut tasks = self.daemon.connection.tasks();
        if let Err(status) = tasks.exec(request).await {
            return self.refused(about(&self.container)(status)).await;
        }
        let request = StartRequest {
            container_id: self.container.0.clone(),
            exec_id: self.name.clone(),
        };
        if let Err(status) = tasks.start(request).await {
            let why = about(&self.container)(status);
            let _ = self.delete().await;
            return self.refused(why).await;
        }
        let in_time = tokio::time::timeout(timeout, self.wait()).await.is_ok();
        if !in_time {
            found(self.kill().await)?;
            self.wait().await;
        }
        let code = found(self.delete().await)?;
        if !in_time {
            let message = format!(
                "container {}: exec: killed after {timeout:?}",
                self.container
            );
            return Err(error(ErrorClass::DeadlineExceeded, message));
        }
        Ok(Ended::With(code.map_or(ExitCode::Unknown, ExitCode::Known)))
    }

    /// What a command is told that was not started. In a container that is just ending runc fails
    /// on anything, in words as if the program were missing.
    async fn refused(&self, why: RuntimeError) -> Result<Ended> {
        for _ in 0..ENDING_LOOKS {
            let observed = self.daemon.observe(&self.container).await?;
            if !observed.is_running() {
                return Err(state_error(&self.container, "exec", "it has ended"));
            }
            if names_program(&why) {
                return not_started(why);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        // The container is there and runs.
        match why.class {
            ErrorClass::NotFound | ErrorClass::InvalidArgument => {
                Err(error(ErrorClass::Unavailable, why.message))
            }
            _ => Err(why),
        }
    }

    /// Answers when the command has ended or there is no way to know.
    async fn wait(&self) {
        let request = WaitRequest {
            container_id: self.container.0.clone(),
            exec_id: self.name.clone(),
        };
        let mut tasks = self.daemon.connection.tasks();
        while let Err(status) = tasks.wait(request.clone()).await {
            let gone = about(&self.container)(status).class != ErrorClass::Unavailable;
            // The daemon is away, or its shim is dying: the next answer says which.
            tokio::time::sleep(LOOK_AGAIN).await;
            if gone {
                return;
            }
        }
    }

    async fn kill(&self) -> Result<()> {
        let request = KillRequest {
            container_id: self.container.0.clone(),
            exec_id: self.name.clone(),
            signal: KILL,
            all: false,
        };
        let answer = self.daemon.connection.tasks().kill(request).await;
        answer.map(drop).map_err(about(&self.container))
    }

    /// Ends the shim's knowledge of the command and says its exit code.
    async fn delete(&self) -> Result<i32> {
        let request = DeleteProcessRequest {
            container_id: self.container.0.clone(),
            exec_id: self.name.clone(),
        };
        let answer = self.daemon.connection.tasks().delete_process(request).await;
        let answer = answer.map_err(about(&self.container))?.into_inner();
        Ok(i32::try_from(answer.exit_status).unwrap_or(i32::MAX))
    }
}

/// How an exec ended.
enum Ended {
    With(ExitCode),
    NotStarted(i32, String),
}

/// True if runc complains about the program itself.
fn names_program(why: &RuntimeError) -> bool {
    ["exec: \"", "exec /"]
        .iter()
        .any(|it| why.message.contains(it))
}

fn not_started(why: RuntimeError) -> Result<Ended> {
    if why.class != ErrorClass::InvalidArgument {
        return Err(why);
    }
    let absent = ["executable file not found", "no such file"];
    let code = if absent.iter().any(|it| why.message.contains(it)) {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    };
    Ok(Ended::NotStarted(code, why.message))
}

/// Reads a pipe until `ended` and it is empty; keeps the beginning.
async fn keep(pipe: pipe::Receiver, mut ended: watch::Receiver<bool>) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match pipe.try_read(&mut buffer) {
            Ok(length) => {
                let room = EXEC_OUTPUT_BYTES_MAX - kept.len();
                kept.extend_from_slice(&buffer[..length.min(room)]);
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::WouldBlock => {
                if *ended.borrow() {
                    return kept;
                }
                tokio::select! {
                    _ = pipe.readable() => {}
                    _ = ended.changed() => {}
                }
            }
            Err(_) => return kept,
        }
    }
}

/// Unlike every other on this machine, so that two callers' execs do not meet.
pub(crate) fn unique_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("exec-{}-{}-{count}", std::process::id(), now().0)
}
