//! `wavetank up` and `wavetank down`: a cluster of real node processes on this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use wavetank_reports::exit_code;

use crate::failure::Failure;
use crate::local::containers::Daemon;
use crate::local::ctl::Ctl;
use crate::local::start::{Shape, Started, start};
use crate::local::{Cluster, operator};
use crate::output;
use crate::runtimes::{RuntimeName, block_on_real_time};

/// Containers that do not want to end.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(60);
/// For what is under way.
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
    /// The runtime's socket, or the OCI runtime's binary [default: the usual one; where no daemon
    /// answers there, a private one is started in the cluster's folder]
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

/// Runs `up`. What was started before it goes wrong, or is interrupted, is ended.
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
    let shape = Shape {
        managers: arguments.managers,
        agents: arguments.agents,
        runtime: arguments.runtime,
        socket: arguments.socket.clone(),
        dir: dir.clone(),
    };
    let started = block_on_real_time(start(shape))?;
    let started = started.with_context(|| format!("no cluster; logs are in {}", dir.display()))?;
    let text = explain(&started, arguments);
    started.keep();
    output::print(&text)?;
    Ok(exit_code::PASS)
}

fn explain(started: &Started, arguments: &UpArguments) -> String {
    let dir = started.dir().display();
    let operator = operator(started.dir());
    let (managers, agents) = (arguments.managers, arguments.agents);
    let mut lines = vec![
        format!("{managers} managers, {agents} agents, logs and state in {dir}"),
        String::new(),
    ];
    for node in &started.cluster.nodes {
        let (name, pid) = (&node.process.name, node.process.pid);
        let status = &node.status;
        lines.push(format!("  {name:<10} pid {pid:<8}  http://{status}/readyz"));
    }
    if let Some(daemon) = started
        .cluster
        .containers
        .daemon
        .as_ref()
        .map(Daemon::process)
    {
        lines.push(format!("  {:<10} pid {}", daemon.name, daemon.pid));
    }
    lines.push(String::new());
    lines.push(format!(
        "reach it:  export WAVETANK_OPERATOR={}",
        operator.display()
    ));
    lines.push("           wavetank ctl list nodes".to_owned());
    lines.push(match arguments.runtime {
        RuntimeName::Sim => {
            let images = super::agent_sim::IMAGES.map(|(name, what)| format!("{name} ({what})"));
            format!("images:    {}", images.join(", "))
        }
        _ => "images:    of a registry, in full, as in docker.io/library/nginx:1.27".to_owned(),
    });
    lines.push(format!("end it:    wavetank down --dir {dir}"));
    lines.join("\n") + "\n"
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
    let emptied = match arguments.keep || cluster.nodes.is_empty() {
        true => Ok(()),
        false => block_on_real_time(empty(&dir))?,
    };
    // Agents first: managers are there to be told of it.
    for node in cluster.nodes.iter().rev() {
        node.process.end(END_TIMEOUT);
    }
    let mut rest = Cluster::default();
    match arguments.keep {
        // They stay as they are; a later `down` ends them.
        true => rest.containers = cluster.containers,
        false => cluster.containers.end()?,
    }
    rest.save(&dir)?;
    emptied.context("the nodes have ended, but containers in a shared runtime may be left")?;
    let dir = dir.display();
    output::print(&format!("ended; remove {dir} if you need nothing of it\n"))?;
    Ok(exit_code::PASS)
}

/// Deletes all services, and waits until their tasks are gone.
async fn empty(dir: &Path) -> anyhow::Result<()> {
    let ctl = Ctl::new(dir);
    let listed = ctl.ask(&["list", "services"]).await?;
    let services = listed["services"].as_array().cloned().unwrap_or_default();
    for service in &services {
        let name = service["spec"]["name"].as_str().unwrap_or_default();
        ctl.ask(&["delete", name]).await?;
    }
    let none =
        |listed: &serde_json::Value| listed["services"].as_array().is_some_and(Vec::is_empty);
    let what = "stopping the tasks";
    ctl.wait(what, EMPTY_TIMEOUT, &["list", "services"], none)
        .await
}
