//! `wavetank up` and `wavetank down`: a cluster of real node processes on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use wavetank_reports::exit_code;

use crate::failure::Failure;
use crate::local::processes::Process;
use crate::local::{Cluster, Ctl, free_ports, operator, program, succeed};
use crate::runtimes::RuntimeName;

/// An election, and what a slow disk adds.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// For what is under way, then for containers that do not want to end.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// Start a cluster of real nodes on this machine
#[derive(Args)]
pub struct UpArguments {
    /// Managers; an odd number survives the loss of the smaller half
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    managers: u32,
    /// Agents
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=100))]
    agents: u32,
    /// What agents run containers with
    #[arg(long, default_value = "sim")]
    runtime: RuntimeName,
    /// The runtime's socket, or the OCI runtime's binary
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Folder for all of its state
    #[arg(long, default_value = "wavetank-cluster", value_name = "DIR")]
    dir: PathBuf,
}

/// End a cluster that `up` started: its services, its nodes; its folder stays
#[derive(Args)]
pub struct DownArguments {
    /// The folder that it was started in
    #[arg(long, default_value = "wavetank-cluster", value_name = "DIR")]
    dir: PathBuf,
    /// Leave services, and so containers, as they are
    #[arg(long)]
    keep: bool,
}

/// Runs `up`.
pub fn up(arguments: &UpArguments) -> Result<u8, Failure> {
    let dir = std::path::absolute(&arguments.dir)?;
    if dir.join("manager-1").exists() {
        return Err(Failure::Usage(format!(
            "{} holds a cluster already; use another --dir, or end it with \
             `wavetank down` and remove the folder",
            dir.display()
        )));
    }
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut start = Start {
        program: program()?,
        cluster: Cluster::default(),
        managers: Vec::new(),
        apis: Vec::new(),
        arguments,
        dir,
    };
    match start.everything() {
        Ok(()) => {
            start.explain();
            Ok(exit_code::PASS)
        }
        Err(error) => {
            // What was started before it went wrong would be in the way.
            start
                .cluster
                .processes
                .iter()
                .rev()
                .for_each(|process| process.end(END_TIMEOUT));
            let logs = start.dir.display();
            Err(Failure::Harness(
                error.context(format!("no cluster; logs are in {logs}")),
            ))
        }
    }
}

/// A cluster being started.
struct Start<'a> {
    program: PathBuf,
    cluster: Cluster,
    /// Where nodes reach managers.
    managers: Vec<String>,
    /// Where operators reach managers.
    apis: Vec<String>,
    arguments: &'a UpArguments,
    dir: PathBuf,
}

impl Start<'_> {
    fn everything(&mut self) -> anyhow::Result<()> {
        for number in 1..=self.arguments.managers {
            self.manager(number)
                .with_context(|| format!("manager-{number}"))?;
        }
        for number in 1..=self.arguments.agents {
            self.agent(number)
                .with_context(|| format!("agent-{number}"))?;
        }
        let ready = |nodes: &serde_json::Value| {
            let agents = nodes["agents"].as_array();
            let ready = agents.map_or(0, |agents| {
                agents
                    .iter()
                    .filter(|agent| agent["status"] == "ready")
                    .count()
            });
            ready == self.arguments.agents as usize
        };
        let ctl = Ctl::new(&self.program, &self.dir);
        ctl.wait(
            "getting all agents ready",
            STEP_TIMEOUT,
            &["list", "nodes"],
            ready,
        )
    }

    /// The first one makes the cluster, the others join it.
    fn manager(&mut self, number: u32) -> anyhow::Result<()> {
        let name = format!("manager-{number}");
        let dir = self.dir.join(&name);
        let [listen, api, status] = free_ports()?;
        let flags = ["--listen", &listen, "--api", &api, "--status", &status];
        match number {
            1 => {
                let mut init = Command::new(&self.program);
                succeed(init.arg("init").arg("--dir").arg(&dir).args(flags))?;
            }
            _ => self.join("manager", &dir)?,
        }
        let mut command = Command::new(&self.program);
        self.start(
            &name,
            command.arg("manager").arg("--dir").arg(&dir).args(flags),
        )?;
        self.managers.push(listen.clone());
        self.apis.push(api.clone());
        let addresses = self.apis.join("\n") + "\n";
        std::fs::write(operator(&self.dir).join("api"), addresses)?;
        let are_members = |nodes: &serde_json::Value| {
            let members = nodes["managers"].as_array().map_or(0, Vec::len);
            members == number as usize
        };
        let ctl = Ctl::new(&self.program, &self.dir);
        ctl.wait(
            "joining the group",
            STEP_TIMEOUT,
            &["list", "nodes"],
            are_members,
        )
    }

    fn agent(&mut self, number: u32) -> anyhow::Result<()> {
        let name = format!("agent-{number}");
        let dir = self.dir.join(&name);
        self.join("agent", &dir)?;
        let [status] = free_ports()?;
        let mut command = match self.arguments.runtime {
            RuntimeName::Sim => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("agent-sim");
                command
            }
            runtime => {
                let mut command = Command::new(&self.program);
                command.args(["agent", "--runtime", runtime.name()]);
                command.args(["--namespace", &format!("wavetank-{name}")]);
                if let Some(socket) = &self.arguments.socket {
                    command.arg("--socket").arg(socket);
                }
                command
            }
        };
        self.start(
            &name,
            command.arg("--dir").arg(&dir).args(["--status", &status]),
        )
    }

    fn join(&self, role: &str, dir: &Path) -> anyhow::Result<()> {
        let ctl = Ctl::new(&self.program, &self.dir);
        let token = ctl.ask(&["token", role])?;
        let token = token["token"]
            .as_str()
            .context("the cluster gave no token")?
            .to_owned();
        let mut join = Command::new(&self.program);
        join.args(["join", "--role", role]).arg("--dir").arg(dir);
        for address in &self.managers {
            join.args(["--manager", address]);
        }
        // In the environment: arguments are there for everybody to read.
        succeed(join.env("WAVETANK_TOKEN", token)).map(drop)
    }

    fn start(&mut self, name: &str, command: &mut Command) -> anyhow::Result<()> {
        let log = self.dir.join(format!("{name}.log"));
        let process = Process::start(name, command, &log)?;
        self.cluster.processes.push(process);
        self.cluster.save(&self.dir)
    }

    fn explain(&self) {
        let operator = operator(&self.dir);
        println!(
            "{} managers, {} agents, logs and state in {}",
            self.arguments.managers,
            self.arguments.agents,
            self.dir.display()
        );
        println!();
        for process in &self.cluster.processes {
            println!("  {:<10} pid {}", process.name, process.pid);
        }
        println!();
        println!("reach it:  export WAVETANK_OPERATOR={}", operator.display());
        println!("           {} ctl list nodes", self.program.display());
        if self.arguments.runtime == RuntimeName::Sim {
            let images = super::agent_sim::IMAGES.map(|(name, what)| format!("{name} ({what})"));
            println!("images:    {}", images.join(", "));
        }
        println!("end it:    wavetank down --dir {}", self.dir.display());
    }
}

/// Runs `down`.
pub fn down(arguments: &DownArguments) -> Result<u8, Failure> {
    let dir = std::path::absolute(&arguments.dir)?;
    let Some(cluster) = Cluster::load(&dir)? else {
        let why = format!(
            "{} holds no cluster that `wavetank up` started",
            dir.display()
        );
        return Err(Failure::NothingSelected(why));
    };
    let emptied = match arguments.keep {
        true => Ok(()),
        false => empty(&dir),
    };
    // Agents first: managers are there to be told of it.
    for process in cluster.processes.iter().rev() {
        process.end(END_TIMEOUT);
    }
    Cluster::default().save(&dir)?;
    emptied.context("the nodes have ended, but containers may be left")?;
    println!("ended; remove {} if you need nothing of it", dir.display());
    Ok(exit_code::PASS)
}

/// Deletes all services, and waits until their tasks are gone.
fn empty(dir: &Path) -> anyhow::Result<()> {
    let program = program()?;
    let ctl = Ctl::new(&program, dir);
    let listed = ctl.ask(&["list", "services"])?;
    let services = listed["services"].as_array().cloned().unwrap_or_default();
    for service in &services {
        let name = service["spec"]["name"].as_str().unwrap_or_default();
        ctl.ask(&["delete", name])?;
    }
    let none =
        |listed: &serde_json::Value| listed["services"].as_array().is_some_and(Vec::is_empty);
    ctl.wait(
        "stopping the tasks",
        STEP_TIMEOUT,
        &["list", "services"],
        none,
    )
}
