//! A cluster from nothing: the first manager makes it, everybody else joins it by a token.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use wavetank_node::serve::oci_config;

use super::containers::{Daemon, DaemonKind};
use super::ctl::{Ctl, succeed};
use super::ports::free_ports;
use super::processes::Process;
use super::{Cluster, Node, node, operator};
use crate::runtimes::RuntimeName;

/// An election, and what a slow disk adds.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// For what is under way when a cluster is ended.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// What is to be started.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Managers, at least one.
    pub managers: u32,
    /// Agents.
    pub agents: u32,
    /// What agents run containers with.
    pub runtime: RuntimeName,
    /// The runtime's socket, or the OCI runtime's binary; a private daemon's once it has started.
    pub socket: Option<PathBuf>,
    /// Folder for all of its state; it exists.
    pub dir: PathBuf,
}

/// A cluster that was started, or is about to be. Its nodes end with this, unless it is kept.
pub struct Started {
    /// Its nodes.
    pub cluster: Cluster,
    /// Where nodes reach managers.
    pub managers: Vec<String>,
    /// Where operators reach managers.
    apis: Vec<String>,
    shape: Shape,
}

impl Drop for Started {
    fn drop(&mut self) {
        let nodes = self.cluster.nodes.iter().rev();
        nodes.for_each(|node| node.process.end(END_TIMEOUT));
        // There is nobody to tell; `down` can be asked again.
        let _ = self.cluster.containers.end();
    }
}

/// Starts a cluster; comes back when all of it is ready. Whoever stops waiting ends what there is.
pub async fn start(shape: Shape) -> anyhow::Result<Started> {
    let mut started = Started {
        cluster: Cluster::default(),
        managers: Vec::new(),
        apis: Vec::new(),
        shape,
    };
    for number in 1..=started.shape.managers {
        let manager = started.manager(number).await;
        manager.with_context(|| format!("manager-{number}"))?;
    }
    started.daemon()?;
    for number in 1..=started.shape.agents {
        let agent = started.agent(number).await;
        agent.with_context(|| format!("agent-{number}"))?;
    }
    started.wait_for_agents().await?;
    Ok(started)
}

impl Started {
    /// Asks it.
    pub fn ctl(&self) -> Ctl {
        Ctl::new(&self.shape.dir)
    }

    /// Where all of its state is.
    pub fn dir(&self) -> &Path {
        &self.shape.dir
    }

    /// Lets its nodes live on.
    pub fn keep(mut self) -> Cluster {
        std::mem::take(&mut self.cluster)
    }

    async fn wait_for_agents(&self) -> anyhow::Result<()> {
        let wanted = self.shape.agents as usize;
        let ready = |nodes: &Value| {
            let agents = nodes["agents"].as_array().map_or(&[][..], Vec::as_slice);
            let ready = agents.iter().filter(|agent| agent["status"] == "ready");
            ready.count() == wanted
        };
        let what = "getting all agents ready";
        let ctl = self.ctl();
        ctl.wait(what, STEP_TIMEOUT, &["list", "nodes"], ready)
            .await
    }

    /// The first one makes the cluster, the others join it.
    async fn manager(&mut self, number: u32) -> anyhow::Result<()> {
        let name = format!("manager-{number}");
        let dir = self.shape.dir.join(&name);
        let [listen, api, status] = free_ports()?;
        let flags = ["--listen", &listen, "--api", &api, "--status", &status];
        match number {
            1 => {
                let mut init = tokio::process::Command::from(node()?);
                succeed(init.arg("init").arg("--dir").arg(&dir).args(flags)).await?;
            }
            _ => self.join("manager", &dir).await?,
        }
        let mut command = node()?;
        command.arg("manager").arg("--dir").arg(&dir).args(flags);
        self.run(&name, &mut command, status.clone())?;
        self.managers.push(listen.clone());
        self.apis.push(api.clone());
        let addresses = self.apis.join("\n") + "\n";
        std::fs::write(operator(&self.shape.dir).join("api"), addresses)?;
        let are_members = |nodes: &Value| {
            let members = nodes["managers"].as_array().map_or(0, Vec::len);
            // Until all have their vote, the group outlives fewer losses than it should.
            members == number as usize && nodes["joining"].is_null()
        };
        let what = "joining the group";
        let ctl = self.ctl();
        ctl.wait(what, STEP_TIMEOUT, &["list", "nodes"], are_members)
            .await
    }

    async fn agent(&mut self, number: u32) -> anyhow::Result<()> {
        let name = format!("agent-{number}");
        let dir = self.shape.dir.join(&name);
        self.join("agent", &dir).await?;
        let [status] = free_ports()?;
        let mut command = self.agent_command(&name, &dir)?;
        command.arg("--dir").arg(&dir).args(["--status", &status]);
        self.run(&name, &mut command, status)
    }

    fn agent_command(&mut self, name: &str, dir: &Path) -> anyhow::Result<Command> {
        match self.shape.runtime {
            RuntimeName::Sim => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("agent-sim");
                Ok(command)
            }
            runtime => self.real_agent(runtime, name, dir),
        }
    }

    /// An agent with a part of the runtime that no other cluster has.
    fn real_agent(
        &mut self,
        runtime: RuntimeName,
        name: &str,
        dir: &Path,
    ) -> anyhow::Result<Command> {
        let namespace = format!("wt-{}-{name}", std::process::id());
        let mut command = node()?;
        command.args(["agent", "--runtime", runtime.name()]);
        command.args(["--namespace", &namespace]);
        if let Some(socket) = &self.shape.socket {
            command.arg("--socket").arg(socket);
        }
        if let Some(daemon) = &mut self.cluster.containers.daemon {
            daemon.serve(&namespace);
        }
        if runtime == RuntimeName::Oci {
            let config = oci_config(dir, PathBuf::new());
            let folder = (dir.join("oci"), config.cgroup());
            self.cluster.containers.folders.push(folder);
        }
        // Remembered before it can be of use: whatever becomes of us, `down` finds it.
        self.cluster.save(&self.shape.dir)?;
        Ok(command)
    }

    /// Sees to it that there is a daemon where the runtime needs one.
    fn daemon(&mut self) -> anyhow::Result<()> {
        let kind = match self.shape.runtime {
            RuntimeName::Containerd => DaemonKind::Containerd,
            RuntimeName::Podman => DaemonKind::Podman,
            RuntimeName::Sim | RuntimeName::Oci => return Ok(()),
        };
        if self.shape.socket.is_some() || kind.is_there() {
            return Ok(());
        }
        let daemon = Daemon::start(kind, &self.shape.dir)?;
        let daemon = self.cluster.containers.daemon.insert(daemon);
        self.shape.socket = Some(daemon.socket());
        self.cluster.save(&self.shape.dir)?;
        match &self.cluster.containers.daemon {
            Some(daemon) => daemon.ready(),
            None => Ok(()),
        }
    }

    async fn join(&self, role: &str, dir: &Path) -> anyhow::Result<()> {
        let token = self.ctl().token(role).await?;
        let mut join = tokio::process::Command::from(node()?);
        join.args(["join", "--role", role]).arg("--dir").arg(dir);
        for address in &self.managers {
            join.args(["--manager", address]);
        }
        // In the environment: arguments are there for everybody to read.
        succeed(join.env("WAVETANK_TOKEN", token)).await.map(drop)
    }

    fn run(&mut self, name: &str, command: &mut Command, status: String) -> anyhow::Result<()> {
        let log = self.shape.dir.join(format!("{name}.log"));
        let process = Process::start(name, command, &log)?;
        self.cluster.nodes.push(Node { process, status });
        self.cluster.save(&self.shape.dir)
    }
}
