//! A cluster of real nodes on this machine: its folder, its processes, and what they run.
//!
//! Map: `start` (a cluster from nothing), `processes` (started, remembered, ended), `containers` (a
//! private daemon, and what containers leave behind), `ctl` (asked as a user would), `client`
//! (asked as a peer), `usage` (what nodes cost), `ports`, this file (the folder and the commands).

pub mod client;
pub mod containers;
pub mod ctl;
pub mod ports;
pub mod processes;
pub mod start;
pub mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use containers::Containers;
use processes::Process;

/// Which processes a cluster has.
const RECORD: &str = "cluster.json";

/// A node that was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Its process.
    #[serde(flatten)]
    pub process: Process,
    /// Where it says how it does: `/healthz`, `/readyz`, `/metrics`.
    pub status: String,
}

/// What is remembered of a cluster.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Cluster {
    /// Managers first.
    pub nodes: Vec<Node>,
    /// What they run containers with.
    #[serde(default)]
    pub containers: Containers,
}

impl Cluster {
    /// The cluster of a folder, if there is one.
    pub fn load(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(RECORD);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let cluster = serde_json::from_str(&text);
                let damaged = || format!("{} is damaged", path.display());
                cluster.with_context(damaged).map(Some)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Remembers it.
    pub fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(RECORD);
        let text = serde_json::to_string_pretty(self)?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The operator's folder of a cluster.
pub fn operator(dir: &Path) -> PathBuf {
    dir.join("manager-1").join("operator")
}

/// A command of the node's program, which this one is as well: what runs is never another build.
pub fn node() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.arg("node");
    Ok(command)
}
