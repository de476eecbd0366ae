//! What a local cluster runs its containers with: a daemon that is there, or a private one in the
//! cluster's folder, which is started like a node and ended with all that it left behind.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use wavetank_fixtures::daemon::containerd::ContainerdSettings;
use wavetank_fixtures::daemon::podman::PodmanSettings;
use wavetank_fixtures::daemon::{DaemonCommand, containerd, podman, sweep};

use super::processes::Process;

/// How long a daemon may take to answer on a loaded machine.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest path of a Unix socket (`sockaddr_un`), without the NUL at its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A daemon that can be private to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DaemonKind {
    /// containerd.
    Containerd,
    /// Podman's service.
    Podman,
}

impl DaemonKind {
    fn name(self) -> &'static str {
        match self {
            DaemonKind::Containerd => "containerd",
            DaemonKind::Podman => "podman",
        }
    }

    /// Where a daemon of the machine listens.
    fn usual_socket(self) -> &'static Path {
        Path::new(match self {
            DaemonKind::Containerd => "/run/containerd/containerd.sock",
            DaemonKind::Podman => "/run/podman/podman.sock",
        })
    }

    /// Whether a daemon of the machine answers there.
    pub fn is_there(self) -> bool {
        UnixStream::connect(self.usual_socket()).is_ok()
    }

    fn prepare(self, directory: &Path) -> std::io::Result<DaemonCommand> {
        match self {
            DaemonKind::Containerd => {
                containerd::prepare(directory, &ContainerdSettings::default())
            }
            DaemonKind::Podman => podman::prepare(directory, &PodmanSettings::default()),
        }
    }

    fn socket(self, directory: &Path) -> PathBuf {
        match self {
            DaemonKind::Containerd => containerd::socket(directory),
            DaemonKind::Podman => podman::socket(directory),
        }
    }
}

/// What is remembered of a cluster's containers, so that nothing of them is left behind.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Containers {
    /// The private daemon, if there is one.
    pub daemon: Option<Daemon>,
    /// Folders in which agents keep containers that have no daemon, and the names of their control
    /// groups.
    pub folders: Vec<(PathBuf, String)>,
}

/// A private daemon.
#[derive(Debug, Serialize, Deserialize)]
pub struct Daemon {
    kind: DaemonKind,
    process: Process,
    directory: PathBuf,
    /// Which parts of it agents use. Some of what they name is shared with the machine.
    namespaces: Vec<String>,
}

impl Daemon {
    /// Starts a daemon in a folder below that of the cluster.
    pub fn start(kind: DaemonKind, cluster: &Path) -> anyhow::Result<Self> {
        let name = kind.name();
        let directory = cluster.join(name);
        let length = kind.socket(&directory).as_os_str().len();
        if length > SOCKET_PATH_BYTES_MAX {
            bail!(
                "{} is too long a path for a private {name}: its socket would need {length} bytes \
                 and may have {SOCKET_PATH_BYTES_MAX}; use a shorter --dir",
                cluster.display()
            );
        }
        let command = kind
            .prepare(&directory)
            .with_context(|| format!("cannot prepare a private {name}"))?;
        let log = cluster.join(format!("{name}.log"));
        let process = Process::start(name, &mut command.to_command(), &log).with_context(|| {
            format!("no {name} runs here and none can be started; `wavetank doctor` says more")
        })?;
        Ok(Daemon {
            kind,
            process,
            directory: command.directory,
            namespaces: Vec::new(),
        })
    }

    /// Waits until it answers.
    pub fn ready(&self) -> anyhow::Result<()> {
        let (name, socket) = (self.kind.name(), self.socket());
        let began = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            if !self.process.is_running() {
                bail!("the private {name} has ended; its log says why");
            }
            if began.elapsed() > READY_TIMEOUT {
                bail!("the private {name} does not answer; its log may say why");
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.kind.socket(&self.directory)
    }

    /// For people.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// An agent uses this part of it.
    pub fn serve(&mut self, namespace: &str) {
        self.namespaces.push(namespace.to_owned());
    }

    /// Ends it with its containers, and says what could not be removed.
    fn end(&self) -> std::io::Result<Vec<String>> {
        self.process.end(Duration::ZERO);
        match self.kind {
            DaemonKind::Containerd => containerd::sweep_daemon(&self.directory, &self.namespaces),
            DaemonKind::Podman => podman::sweep_service(&self.directory),
        }
    }
}

impl Containers {
    /// Ends whatever is left of the cluster's containers once its nodes have ended.
    pub fn end(&self) -> anyhow::Result<()> {
        let mut left = Vec::new();
        for (folder, cgroup) in &self.folders {
            left.extend(clear(folder, cgroup)?);
        }
        if let Some(daemon) = &self.daemon {
            left.extend(daemon.end()?);
        }
        match left.is_empty() {
            true => Ok(()),
            false => bail!("could not remove {}", left.join(", ")),
        }
    }
}

/// Ends monitors with their containers, and what is mounted for them.
fn clear(folder: &Path, cgroup: &str) -> std::io::Result<Vec<String>> {
    let mut left = Vec::new();
    let Ok(folder) = fs::canonicalize(folder) else {
        return Ok(left);
    };
    let processes = sweep::end_processes(&folder)?;
    left.extend(processes.iter().map(|it| format!("process {}", it.pid)));
    let mounts = sweep::unmount_below(&folder)?;
    left.extend(mounts.iter().map(|it| format!("mount {}", it.display())));
    let groups = sweep::remove_cgroups(cgroup)?;
    left.extend(groups.iter().map(|it| format!("cgroup {}", it.display())));
    Ok(left)
}
