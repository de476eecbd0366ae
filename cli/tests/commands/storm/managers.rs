//! Managers as they ship, each a process that is killed and started again.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use wavetank_model::{Incarnation, NodeId, NodeRole};
use wavetank_node::serve::{self, JoinRequest};
use wavetank_trace::{HostState, Payload};
use wavetank_world::Stream;

use super::clients::Client;
use super::history::History;

const MANAGERS: u32 = 3;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// One manager: how it is started, and its process while it runs.
struct Manager {
    node: NodeId,
    arguments: Vec<String>,
    log: PathBuf,
    process: Mutex<Option<Child>>,
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Manager {
    fn is_running(&self) -> bool {
        self.process.lock().unwrap().is_some()
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Fails if the process has ended by itself.
    fn must_run(&self, child: &mut Child) {
        let ended = child.try_wait().expect("a child can be waited for");
        let (node, log) = (self.node, self.log());
        assert!(ended.is_none(), "{node} ended by itself, {ended:?}:\n{log}");
    }
}

/// A cluster's managers. They end with this.
pub struct Managers {
    managers: Vec<Manager>,
    folder: TempDir,
}

impl Managers {
    /// A cluster as `wavetank up` makes it, with its processes replaced by children of this one.
    pub fn start(history: &History) -> Self {
        // Not where temporary files are: that may be memory, where nothing has to be flushed.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let dir = folder.path().join("cluster");
        let wavetank = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_wavetank"));
            let output = command.args(arguments).arg("--dir").arg(&dir).output();
            let output = output.unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{arguments:?}: {said}");
        };
        let managers = MANAGERS.to_string();
        wavetank(&["up", "--agents", "0", "--managers", &managers]);
        let record = fs::read(dir.join("cluster.json")).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        let nodes = record["nodes"].as_array().unwrap();
        let managers: Vec<Manager> = (1..=MANAGERS)
            .zip(nodes)
            .map(|(number, node)| Manager {
                node: NodeId::manager(number),
                arguments: arguments_of(&node["pid"]),
                log: dir.join(format!("manager-{number}.log")),
                process: Mutex::default(),
            })
            .collect();
        wavetank(&["down", "--keep"]);
        let managers = Managers { managers, folder };
        for manager in &managers.managers {
            managers.start_again(manager.node, history);
        }
        managers
    }

    fn get(&self, node: NodeId) -> &Manager {
        let found = self.managers.iter().find(|manager| manager.node == node);
        found.expect("a manager of this cluster")
    }

    /// Managers that run, so many, whoever the draws say; waits until there are that many.
    pub async fn draw_running(&self, count: usize, draws: &mut Stream) -> Vec<NodeId> {
        loop {
            let running = self.managers.iter().filter(|it| it.is_running());
            let mut running: Vec<NodeId> = running.map(|manager| manager.node).collect();
            if running.len() >= count {
                let drawn = (0..count).map(|_| {
                    let at = draws.below(running.len() as u64);
                    running.remove(usize::try_from(at).unwrap())
                });
                return drawn.collect();
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Kills a manager that runs.
    pub fn kill(&self, node: NodeId, history: &History) {
        let manager = self.get(node);
        let mut child = manager.process.lock().unwrap().take().expect("it runs");
        manager.must_run(&mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        history.say(Some(node), host(HostState::Killed));
    }

    /// Starts a manager that does not run.
    pub fn start_again(&self, node: NodeId, history: &History) {
        let manager = self.get(node);
        let log = File::options().append(true).create(true).open(&manager.log);
        let child = Command::new(&manager.arguments[0])
            .args(&manager.arguments[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn();
        history.say(Some(manager.node), host(HostState::Started));
        let before = manager.process.lock().unwrap().replace(child.unwrap());
        assert!(before.is_none(), "{} runs already", manager.node);
    }

    /// Fails if a manager does not run.
    pub fn must_run(&self) {
        for manager in &self.managers {
            let mut process = manager.process.lock().unwrap();
            manager.must_run(process.as_mut().expect("it was started"));
        }
    }

    /// A client that asks these managers.
    pub async fn join(&self, number: u32, history: &Arc<History>) -> Client {
        let dir = self.folder.path().join(format!("client-{number}"));
        let request = JoinRequest {
            dir: dir.clone(),
            token: self.token().await.parse().unwrap(),
            role: NodeRole::Client,
            managers: self.addresses(),
            api: Vec::new(),
        };
        let node = serve::join(&request).await.unwrap();
        Client::start(node, dir, history)
    }

    /// Where nodes reach the managers.
    fn addresses(&self) -> Vec<String> {
        let address = |manager: &Manager| {
            let flag = manager.arguments.iter().position(|it| it == "--listen");
            manager.arguments[flag.expect("`up` says where managers listen") + 1].clone()
        };
        self.managers.iter().map(address).collect()
    }

    /// A token for a client; asked for until the managers have a leader.
    async fn token(&self) -> String {
        let operator = self.folder.path().join("cluster/manager-1/operator");
        let mut said = String::new();
        for _ in 0..100 {
            let mut command = tokio::process::Command::new(&self.managers[0].arguments[0]);
            command.args(["ctl", "--json", "token", "client", "--operator"]);
            let output = command.arg(&operator).output().await.unwrap();
            if output.status.success() {
                let token: Value = serde_json::from_slice(&output.stdout).unwrap();
                return token["token"].as_str().unwrap().to_owned();
            }
            said = String::from_utf8_lossy(&output.stderr).into_owned();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no token: {said}");
    }
}

/// Boots are not what is judged here.
fn host(state: HostState) -> Payload {
    let incarnation = Incarnation(0);
    Payload::Host { state, incarnation }
}

/// The command line of a process that runs.
fn arguments_of(pid: &Value) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let line = String::from_utf8(line).unwrap();
    line.split_terminator('\0').map(str::to_owned).collect()
}
