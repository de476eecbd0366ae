//! Builds and runs, as processes of their own: a run is made by the program that was built last,
//! not by the one that this is.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Output, Stdio};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::Deserialize;
use tokio::process::Command;
use wavetank_reports::RunReport;
use wavetank_trace::{Event, Reader};

/// Names the program that builds; cargo tells it to what it runs.
const CARGO: &str = "CARGO";

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A build.
    Build,
    /// A run.
    Run,
}

/// A process that is waited for.
pub struct Task {
    /// What it is for.
    pub kind: Kind,
    pid: Option<Pid>,
    output: Pin<Box<dyn Future<Output = io::Result<Output>>>>,
}

impl Task {
    /// Starts it in a process group of its own, so that Ctrl-C at a terminal is ours to pass on:
    /// once, and to whom it concerns. What it says on stderr is the user's to read at once.
    pub fn start(kind: Kind, command: &mut Command) -> io::Result<Self> {
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        Ok(Task {
            kind,
            pid: pid.and_then(Pid::from_raw),
            output: Box::pin(child.wait_with_output()),
        })
    }

    /// Asks it to end: as Ctrl-C does, after which a live run leaves nothing behind.
    pub fn interrupt(&self) {
        if let Some(pid) = self.pid {
            // Compilers are the build's; what a run has started is its own to end. Either may be
            // over in this moment.
            let _ = match self.kind {
                Kind::Build => kill_process_group(pid, Signal::INT),
                Kind::Run => kill_process(pid, Signal::INT),
            };
        }
    }

    /// Waits for its end. May be given up and called again, until it has answered once.
    pub async fn ended(&mut self) -> io::Result<Output> {
        self.output.as_mut().await
    }
}

/// The build of this program in the way in which this one was built. It says on stdout where the
/// program is.
pub fn build(root: &Path) -> Command {
    let cargo = std::env::var_os(CARGO).unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.arg("build").current_dir(root);
    command.args(["--bin", "wavetank"]);
    command.args(["--message-format", "json-render-diagnostics"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command
}

/// A message of cargo, of which only one kind is read: `compiler-artifact` in "External tools" of
/// the Cargo book.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

/// Where a build has put the program.
///
/// # Errors
/// If it has not.
pub fn built(output: &Output) -> anyhow::Result<PathBuf> {
    if !output.status.success() {
        anyhow::bail!("the build failed ({})", output.status);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let messages = said.lines().filter_map(|it| serde_json::from_str(it).ok());
    let mut executables = messages.filter_map(|it: Message| it.executable);
    executables
        .next_back()
        .context("the build has not said where the program is")
}

/// A run that came to its end.
pub struct Ended {
    /// What came of it.
    pub report: RunReport,
    /// What happened; or why that cannot be read.
    pub events: Result<Vec<Event>, String>,
}

/// What a run has left.
///
/// # Errors
/// If it made no report: its scenario file is not valid, or it is not for this world. It has said
/// on stderr what was wrong.
pub fn ran(output: &Output) -> anyhow::Result<Ended> {
    let said = String::from_utf8_lossy(&output.stdout);
    let no_run = || format!("there was no run ({})", output.status);
    let line = said.lines().last().with_context(no_run)?;
    let mut report: RunReport = serde_json::from_str(line).with_context(no_run)?;
    // It goes with this program, so nobody is told of it.
    let trace = report.trace.take();
    let events = match &trace {
        Some(path) => events(Path::new(path)).map_err(|error| format!("{error:#}")),
        None => Err("the run has left no trace".to_owned()),
    };
    Ok(Ended { report, events })
}

fn events(trace: &Path) -> anyhow::Result<Vec<Event>> {
    let reader = Reader::new(BufReader::new(File::open(trace)?))?;
    Ok(reader.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    fn output(status: i32, stdout: &str) -> Output {
        Output {
            status: ExitStatus::from_raw(status << 8),
            stdout: stdout.as_bytes().to_vec(),
            stderr: Vec::new(),
        }
    }

    #[test]
    fn the_program_is_where_cargo_says() {
        let said = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/debug/wavetank\"}\n\
            {\"reason\":\"build-finished\",\"success\":true}\n";
        let program = built(&output(0, said)).unwrap();
        assert_eq!(program, Path::new("/t/debug/wavetank"));
        assert!(built(&output(101, said)).is_err());
        assert!(built(&output(0, "nothing\n")).is_err());
    }

    #[test]
    fn a_run_without_a_report_is_no_run() {
        let error = |output| ran(&output).err().map(|error| format!("{error:#}"));
        let silent = error(output(2, ""));
        assert_eq!(silent.as_deref(), Some("there was no run (exit status: 2)"));
        assert!(error(output(0, "{}\n")).is_some());
    }
}
