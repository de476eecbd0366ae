//! Commands beside a container's process, and what it uses.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use wavetank_port::observe::EXEC_OUTPUT_BYTES_MAX;
use wavetank_port::{
    ContainerId, ContainerStats, ErrorClass, ExecRequest, ExecResult, ExitCode, OutputStream,
};

use crate::error::{Error, Result};
use crate::process::{self, Init};
use crate::service::Service;
use crate::transport::{Call, FrameReader};
use crate::wire;

/// How often the end of a command is asked for once its output is closed.
const POLL: Duration = Duration::from_millis(5);

/// What an OCI runtime's refusal to run a command looks like: one that cannot be run, or is absent.
const REFUSED: [ExitCode; 2] = [ExitCode::Known(126), ExitCode::Known(127)];

/// What Podman then writes to the command's error output.
const REFUSAL: &[u8] = b"OCI ";

/// How often a command that ran too long is looked for, and how long after each time: Podman may be
/// slow to begin it.
const KILL_TRIES_MAX: u32 = 600;
const KILL_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How often usage is asked for that is answered without a number, and how long after each time.
const STATS_TRIES_MAX: u32 = 40;
const STATS_AGAIN_AFTER: Duration = Duration::from_millis(50);

impl Service {
    pub(crate) async fn exec(
        self: &Arc<Self>,
        id: &ContainerId,
        request: &ExecRequest,
    ) -> Result<ExecResult> {
        let seen = self.observe_running(id).await?;
        let session = self.create_exec(id, request).await?;
        match timeout(request.timeout, self.run_exec(&session)).await {
            Ok(result) => {
                let result = result?;
                if is_refusal(&result) {
                    self.check_init(id).await?;
                }
                Ok(result)
            }
            Err(_) => {
                if self.client.shares_processes() {
                    tokio::spawn(Arc::clone(self).kill_exec(session, seen.podman_id));
                }
                Err(Error::ours(
                    ErrorClass::DeadlineExceeded,
                    format!("a command in {id} ran longer than {:?}", request.timeout),
                ))
            }
        }
    }

    /// Fails if the container has ended, also where Podman has not noticed yet: that is why its
    /// OCI runtime refused.
    async fn check_init(&self, id: &ContainerId) -> Result<()> {
        let seen = self.observe_running(id).await?;
        match self.hold_init(&seen).await {
            Init::Ended => {
                let message = format!("container {id} has ended before a command in it could run");
                Err(Error::ours(ErrorClass::FailedPrecondition, message))
            }
            Init::Held(_) | Init::Elsewhere => Ok(()),
        }
    }

    async fn create_exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<String> {
        if request.command.is_empty() {
            let message = format!("no command to run in {id}");
            return Err(Error::ours(ErrorClass::InvalidArgument, message));
        }
        let body = wire::ExecCreate {
            command: &request.command,
            stdout: true,
            stderr: true,
        };
        let call = Call::post(self.container_path(id, "/exec")?).json(&body)?;
        let made: wire::Made = self.client.send(call).await?.json().await?;
        // The id becomes part of a path.
        match !made.id.is_empty() && made.id.bytes().all(|it| it.is_ascii_hexdigit()) {
            true => Ok(made.id),
            false => Err(Error::Malformed {
                call: format!("exec in {id}"),
                problem: "the answer names no session".to_owned(),
            }),
        }
    }

    async fn run_exec(&self, session: &str) -> Result<ExecResult> {
        let body = wire::ExecStart {
            detach: false,
            tty: false,
        };
        let call = Call::post(format!("/exec/{session}/start")).json(&body)?;
        let frames = self.client.send(call).await?.frames();
        let (stdout, stderr) = collect(frames).await?;
        Ok(ExecResult {
            code: self.exec_code(session).await?,
            stdout,
            stderr,
        })
    }

    /// A command may close its outputs before it ends.
    async fn exec_code(&self, session: &str) -> Result<ExitCode> {
        loop {
            let state = match self.exec_state(session).await {
                // Sessions are forgotten some time after their end.
                Err(error) if error.is_not_found() => return Ok(ExitCode::Unknown),
                state => state?,
            };
            if !state.running {
                let code = i32::try_from(state.exit_code).ok().filter(|it| *it >= 0);
                return Ok(code.map_or(ExitCode::Unknown, ExitCode::Known));
            }
            sleep(POLL).await;
        }
    }

    async fn exec_state(&self, session: &str) -> Result<wire::ExecState> {
        let call = Call::get(format!("/exec/{session}/json"));
        self.client.send(call).await?.json().await
    }

    /// Podman has no call for this, so it takes a process that can be reached from here; on
    /// another machine the command goes on. Best effort: the caller is told of the deadline anyway,
    /// and does not wait for a command that is yet to begin.
    async fn kill_exec(self: Arc<Self>, session: String, podman_id: String) {
        for _ in 0..KILL_TRIES_MAX {
            let Ok(state) = self.exec_state(&session).await else {
                return;
            };
            match wire::pid(state.pid) {
                _ if state.can_remove => return,
                Some(pid) if state.running => return process::kill_member(pid, &podman_id),
                _ => sleep(KILL_AGAIN_AFTER).await,
            }
        }
    }

    pub(crate) async fn stats(&self, id: &ContainerId) -> Result<ContainerStats> {
        let mut usage = None;
        for _ in 0..STATS_TRIES_MAX {
            // Says so itself if the container has ended.
            let seen = self.observe_running(id).await?;
            let call = Call::get("/containers/stats")
                .query("containers", &seen.podman_id)
                .query("stream", "false");
            let answer: wire::StatsAnswer = self.client.send(call).await?.json().await?;
            usage = answer.stats.first().map(|stats| ContainerStats {
                memory_bytes: stats.mem_usage,
                cpu_nanos: stats.cpu_nano,
                processes: stats.pids,
            });
            // A process that has ended is in no group but the machine's own, or in none.
            if let Some(usage) = usage.take_if(|it| it.processes > 0) {
                return Ok(usage);
            }
            sleep(STATS_AGAIN_AFTER).await;
        }
        // Where the kernel does not count the processes of groups there is no better answer.
        usage.ok_or_else(|| {
            let message = format!("the Podman service does not say what container {id} uses");
            Error::ours(ErrorClass::Unknown, message)
        })
    }
}

/// True if the OCI runtime seems to have refused, not the command to have failed.
fn is_refusal(result: &ExecResult) -> bool {
    let (out, err) = (&result.stdout, &result.stderr);
    let says_so = err.is_empty() || err.windows(REFUSAL.len()).any(|it| it == REFUSAL);
    REFUSED.contains(&result.code) && out.is_empty() && says_so
}

/// Both outputs, each cut at its limit; what comes after is read and dropped, so that the command
/// is not held up.
async fn collect(mut frames: FrameReader) -> Result<(Vec<u8>, Vec<u8>)> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(frame) = frames.next().await? {
        let kept: &mut Vec<u8> = match frame.stream {
            OutputStream::Stdout => &mut stdout,
            OutputStream::Stderr => &mut stderr,
        };
        let room = EXEC_OUTPUT_BYTES_MAX - kept.len();
        kept.extend(frame.bytes.into_iter().take(room));
    }
    Ok((stdout, stderr))
}
