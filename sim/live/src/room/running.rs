//! A program that was started on a host.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::Signal;
use tokio::process::Child;
use tokio::sync::watch;
use wavetank_fixtures::daemon::network_namespace;
use wavetank_fixtures::daemon::process::Process;

use super::error::RoomError;
use super::layout::Host;

/// A process on a host. It is waited for in the background; dropping this leaves it alone: it ends
/// with its host's power, or with the room.
#[derive(Clone, Debug)]
pub struct Running {
    process: Process,
    log: PathBuf,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Running {
    /// Starts a program in the host's network namespace and in a process group of its own. Both
    /// its outputs are appended to `<folder>/<name>.log`; it reads nothing. Must be called in a
    /// runtime.
    pub(crate) fn start(host: &Host, name: &str, mut command: Command) -> Result<Self, RoomError> {
        let log = host.folder.join(format!("{name}.log"));
        let work = move || -> io::Result<Running> {
            fs::create_dir_all(&host.folder)?;
            let file = OpenOptions::new().create(true).append(true).open(&log)?;
            command
                .stdin(Stdio::null())
                .stdout(file.try_clone()?)
                .stderr(file)
                .process_group(0);
            let runtime = tokio::runtime::Handle::current();
            let child = network_namespace::within(&host.namespace_path(), move || {
                let _runtime = runtime.enter();
                tokio::process::Command::from(command).spawn()
            })?;
            Running::watch(child, log)
        };
        work().map_err(|source| RoomError::Spawn {
            program: name.to_owned(),
            host: host.name.clone(),
            source,
        })
    }

    fn watch(mut child: Child, log: PathBuf) -> io::Result<Running> {
        // Our own child is there until it is waited for, which begins below.
        let process = child.id().and_then(Process::read);
        let process = process.ok_or_else(|| io::Error::other("it is gone at once"))?;
        let (told, exit) = watch::channel(None);
        tokio::spawn(async move {
            // Our own child cannot be lost to us.
            if let Ok(status) = child.wait().await {
                told.send_replace(Some(status));
            }
        });
        Ok(Running { process, log, exit })
    }

    /// Its process id, or the one it had.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// What both its outputs go to.
    pub fn log(&self) -> &PathBuf {
        &self.log
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        self.exit_status().is_none() && self.process.is_alive()
    }

    /// How it ended; `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Sends a signal to it and not to what it started; false if it has ended.
    pub fn signal(&self, signal: Signal) -> bool {
        self.process.signal(signal)
    }

    /// Waits for its end; `None` if that was never learnt, because the runtime is ending.
    pub async fn wait(&self) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await;
        status.ok().and_then(|it| *it)
    }
}
