//! A cluster of real nodes on this machine: its folder, its processes, and the node program that
//! they run.
//!
//! Map: `processes` (started, remembered, ended), this file (the folder and the program).

pub mod processes;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use processes::Process;

/// Which processes a cluster has.
const RECORD: &str = "cluster.json";
const PROGRAM: &str = "wavetank-node";
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is remembered of a cluster.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Cluster {
    /// Managers first.
    pub processes: Vec<Process>,
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

/// Asks a cluster through `wavetank-node ctl`, as a user would.
pub struct Ctl<'a> {
    program: &'a Path,
    operator: PathBuf,
}

impl<'a> Ctl<'a> {
    /// Asks the cluster of this folder.
    pub fn new(program: &'a Path, dir: &Path) -> Self {
        Ctl {
            program,
            operator: operator(dir),
        }
    }

    /// One command; the JSON that it prints.
    pub fn ask(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = Command::new(self.program);
        command
            .args(["ctl", "--json", "--operator"])
            .arg(&self.operator);
        let output = succeed(command.args(arguments))?;
        serde_json::from_slice(&output.stdout).context("the answer is no JSON")
    }

    /// Asks until the answer is good, for so long.
    pub fn wait(
        &self,
        what: &str,
        within: Duration,
        arguments: &[&str],
        good: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let answer = self.ask(arguments);
            if answer.as_ref().is_ok_and(&good) {
                return Ok(());
            }
            if began.elapsed() > within {
                let seen = match answer {
                    Ok(answer) => format!("last seen: {answer}"),
                    Err(error) => format!("{error:#}"),
                };
                bail!("{what} took longer than {within:?}; {seen}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// The operator's folder of a cluster.
pub fn operator(dir: &Path) -> PathBuf {
    dir.join("manager-1").join("operator")
}

/// The node program: beside this one, or in `PATH`.
pub fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let beside = own.with_file_name(PROGRAM);
    if beside.is_file() {
        return Ok(beside);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(PROGRAM));
    found
        .into_iter()
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "{PROGRAM} is neither beside this program nor in PATH; \
             build it with `cargo build --release -p {PROGRAM}`"
            )
        })
}

/// Runs a command to its end; what it printed, or what it complained of.
pub fn succeed(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.output();
    let output =
        output.with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}", said.trim().trim_start_matches("error: "));
    }
    Ok(output)
}

/// Free ports on loopback. They are held together, so that all of them are different; whoever
/// takes one before the node does makes the node say so.
pub fn free_ports<const N: usize>() -> anyhow::Result<[String; N]> {
    let mut held = Vec::with_capacity(N);
    for _ in 0..N {
        held.push(TcpListener::bind("127.0.0.1:0").context("no port is free on loopback")?);
    }
    let mut addresses = Vec::with_capacity(N);
    for listener in &held {
        addresses.push(listener.local_addr()?.to_string());
    }
    addresses
        .try_into()
        .map_err(|_| anyhow::anyhow!("as many as there are listeners"))
}
