//! Clusters of real processes, as `wavetank up` starts them: with the simulated runtime, and with
//! each real one that this machine has.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use wavetank_conformance::host::prerequisites;
use wavetank_fixtures::daemon::process::{mounts_below, of_directory};
use wavetank_fixtures::daemon::sweep::cgroups;
use wavetank_fixtures::{Registry, TestImage};

/// Longest that anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster in a folder of its own, ended with it.
struct Cluster {
    folder: TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // After a test that failed, all of it is still there.
        let _ = self.wavetank(&["down"]);
        for process in of_directory(self.folder.path()).unwrap_or_default() {
            process.signal(Signal::KILL);
        }
    }
}

impl Cluster {
    fn up(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster { folder };
        let up = cluster.wavetank(&[&["up"][..], arguments].concat());
        assert!(up.status.success(), "{}", said(&up));
        cluster
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("c")
    }

    /// A command of the cluster.
    fn wavetank(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wavetank"));
        command.args(arguments).arg("--dir").arg(self.dir());
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn ctl(&self, arguments: &[&str]) -> Output {
        self.ctl_command(arguments).output().unwrap()
    }

    fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wavetank"));
        let operator = self.dir().join("manager-1/operator");
        command.arg("ctl").args(arguments);
        command.env("WAVETANK_OPERATOR", operator);
        command
    }

    /// A command that has to succeed; what it prints.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Asks until it is so.
    fn until(&self, arguments: &[&str], so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        let arguments = [&["--json"][..], arguments].concat();
        loop {
            let output = self.ctl(&arguments);
            let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
            if so(&answer) {
                return answer;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{arguments:?} still says {answer}"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Asks until it succeeds; what it prints then.
    fn done_at_last(&self, arguments: &[&str]) -> String {
        let began = Instant::now();
        loop {
            let output = self.ctl(arguments);
            if output.status.success() {
                return String::from_utf8(output.stdout).unwrap();
            }
            let still = said(&output);
            assert!(began.elapsed() < PATIENCE, "{arguments:?}: still {still}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn apply(&self, service: &str) {
        let file = self.folder.path().join("service.yaml");
        fs::write(&file, service).unwrap();
        self.done(&["apply", file.to_str().unwrap()]);
    }

    fn until_ready(&self, service: &str, tasks: usize) -> Value {
        self.until(&["get", service], |service| {
            let of = service["tasks"].as_array().map_or(&[][..], Vec::as_slice);
            of.iter().filter(|task| task["ready"] == true).count() == tasks
        })
    }

    /// What `up` remembers.
    fn record(&self) -> Value {
        let record = fs::read_to_string(self.dir().join("cluster.json")).unwrap();
        serde_json::from_str(&record).unwrap()
    }

    /// A process of the cluster, as it is remembered.
    fn process(&self, name: &str) -> Value {
        let processes = self.record()["nodes"].as_array().unwrap().clone();
        let mut found = processes.into_iter().filter(|it| it["name"] == name);
        found.next().expect("a process of this name")
    }

    fn signal(&self, name: &str, signal: Signal) {
        let pid = self.process(name)["pid"].as_i64().unwrap();
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// What a node says of its readiness: the status, and why.
    fn readiness(&self, name: &str) -> (u16, String) {
        self.shown(name, "/readyz")
    }

    /// What a node shows to anybody: the status, and the body.
    fn shown(&self, name: &str, path: &str) -> (u16, String) {
        let at = self.process(name)["status"].as_str().unwrap().to_owned();
        let mut stream = TcpStream::connect(at).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|it| it.parse().ok());
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        (status.unwrap_or(0), body.trim().to_owned())
    }

    fn until_readiness(&self, name: &str, wanted: u16) -> String {
        let began = Instant::now();
        loop {
            let (status, why) = self.readiness(name);
            if status == wanted {
                return why;
            }
            assert!(began.elapsed() < PATIENCE, "{name}: {status} {why}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The managers whose metrics say that they lead.
    fn leading(&self, managers: &[&str]) -> Vec<String> {
        let leads = |name: &&&str| {
            let (status, metrics) = self.shown(name, "/metrics");
            assert_eq!(status, 200, "{metrics}");
            let mut gauges = metrics
                .lines()
                .filter(|it| it.starts_with("wavetank_leads{"));
            gauges.next().expect("a gauge").ends_with(" 1")
        };
        managers
            .iter()
            .filter(leads)
            .map(|it| (*it).to_owned())
            .collect()
    }

    /// The address of a manager's API.
    fn api(&self, name: &str) -> String {
        let pid = self.process(name)["pid"].as_i64().unwrap();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let api = words.skip_while(|word| word != "--api").nth(1);
        api.expect("it was started with one").into_owned()
    }

    /// The manager that leads, as the cluster says.
    fn leader(&self) -> String {
        let nodes = self.done(&["--json", "list", "nodes"]);
        let nodes: Value = serde_json::from_str(&nodes).unwrap();
        let leader = nodes["leader"].as_str();
        leader.expect("one of them leads").to_owned()
    }

    /// The manager that leads, once the cluster and the metrics of these managers say the same:
    /// they are asked one after the other, and another one may lead meanwhile.
    fn only_leader(&self, managers: &[&str]) -> String {
        let agree = |nodes: &Value| {
            let leader = nodes["leader"].as_str();
            leader.is_some_and(|leader| self.leading(managers) == [leader])
        };
        let nodes = self.until(&["list", "nodes"], agree);
        nodes["leader"].as_str().unwrap().to_owned()
    }

    /// What its containers are grouped by outside of its folder.
    fn groups(&self) -> Vec<String> {
        let containers = &self.record()["containers"];
        let namespaces = containers["daemon"]["namespaces"].as_array();
        let namespaces = namespaces.into_iter().flatten();
        let folders = containers["folders"].as_array().into_iter().flatten();
        namespaces
            .chain(folders.map(|folder| &folder[1]))
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    /// Ends it, and looks at what is left.
    fn down(&self) {
        let groups = self.groups();
        let down = self.wavetank(&["down"]);
        assert!(down.status.success(), "{}", said(&down));
        assert_nothing_left(self.folder.path());
        for group in groups {
            assert_eq!(cgroups(&group).unwrap(), Vec::<PathBuf>::new());
            let state = Path::new("/run/containerd/runc").join(&group);
            assert!(!state.exists(), "{}", state.display());
        }
    }
}

fn assert_nothing_left(folder: &Path) {
    let folder = folder.canonicalize().unwrap();
    let left = of_directory(&folder).unwrap();
    let left: Vec<String> = left
        .iter()
        .filter(|it| !it.is_zombie())
        .map(|it| String::from_utf8_lossy(&it.command_line).into_owned())
        .collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(mounts_below(&folder).unwrap(), Vec::<PathBuf>::new());
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn a_cluster_outlives_its_leader_and_shows_its_logs() {
    let cluster = Cluster::up(&["--managers", "3", "--agents", "2"]);
    cluster.apply("name: web\nimage: web:1\nreplicas: 2\n");
    let web = cluster.until_ready("web", 2);
    let leader = cluster.leader();
    cluster.signal(&leader, Signal::KILL);
    cluster.done(&["scale", "web", "3"]);
    cluster.until_ready("web", 3);
    assert_ne!(cluster.leader(), leader, "another one leads");
    let task = web["tasks"][0]["task"].as_str().unwrap();
    let log = "web:1 starts\nlistening\n";
    assert_eq!(cluster.done(&["logs", task]), log);
    assert_eq!(cluster.done(&["logs", task, "--tail", "1"]), "listening\n");
    let all = cluster.done(&["logs", "web", "--tail", "1"]);
    let mut lines: Vec<&str> = all.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 3, "{all}");
    assert!(
        lines.iter().all(|line| line.ends_with(" | listening")),
        "{all}"
    );
    cluster.down();
}

/// A command that goes on, and the lines that it has printed. Ended with it.
struct Watch {
    process: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn begin(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Watch { process, lines }
    }

    fn until(&self, words: &str) {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            if line.contains(words) {
                return;
            }
            seen.push(line);
        }
        panic!("`{words}` is not in {seen:?}");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_watch_goes_on_with_another_manager() {
    let cluster = Cluster::up(&["--managers", "3", "--agents", "1"]);
    let managers = ["manager-1", "manager-2", "manager-3"];
    let leader = cluster.only_leader(&managers);
    cluster.apply("name: web\nimage: web:1\nreplicas: 1\n");
    let others: Vec<&str> = managers.into_iter().filter(|it| *it != leader).collect();
    let mut command = cluster.ctl_command(&["watch"]);
    for manager in [&[&*leader], &*others].concat() {
        command.args(["--api", &cluster.api(manager)]);
    }
    let watch = Watch::begin(command);
    watch.until("service web: 1/1 ready");
    cluster.signal(&leader, Signal::KILL);
    cluster.done(&["scale", "web", "2"]);
    watch.until("service web: 2/2 ready");
    cluster.only_leader(&others);
    cluster.down();
}

#[test]
fn a_node_that_is_cut_off_says_that_it_is_not_ready() {
    let cluster = Cluster::up(&["--managers", "2", "--agents", "1"]);
    let nodes = ["manager-1", "manager-2", "agent-1"];
    for node in nodes {
        cluster.until_readiness(node, 200);
    }
    // One that is stopped says nothing, as one behind a cut network.
    cluster.signal("manager-2", Signal::STOP);
    cluster.until_readiness("manager-1", 503);
    let why = cluster.until_readiness("agent-1", 503);
    assert_eq!(why, "not in a session with the managers");
    cluster.signal("manager-2", Signal::CONT);
    for node in nodes {
        assert_eq!(cluster.until_readiness(node, 200), "ok");
    }
    cluster.down();
}

/// Whether a runtime can be used here.
pub fn is_usable(runtime: &'static str) -> bool {
    let Some(problem) = prerequisites(runtime).problem() else {
        return true;
    };
    let required = std::env::var_os("WAVETANK_REQUIRE_RUNTIMES");
    let required = required.is_some_and(|it| !it.is_empty());
    assert!(!required, "{runtime}: {problem}");
    eprintln!("skipped: {runtime}: {problem}");
    false
}

/// Real containers run, outlive the leader, log, and are gone in the end.
fn live_with(runtime: &'static str) {
    if !is_usable(runtime) {
        return;
    }
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let registry = tokio.block_on(Registry::start_with_test_images()).unwrap();
    let image = registry.test_image(TestImage::Normal);
    let cluster = Cluster::up(&["--managers", "3", "--agents", "1", "--runtime", runtime]);
    cluster.apply(&format!("name: web\nimage: {image}\nreplicas: 2\n"));
    let web = cluster.until_ready("web", 2);
    let leader = cluster.leader();
    cluster.signal(&leader, Signal::KILL);
    let task = web["tasks"][0]["task"].as_str().unwrap();
    // Nobody may lead for a moment.
    let log = cluster.done_at_last(&["logs", task, "--tail", "1"]);
    assert_eq!(log, "ready\n");
    cluster.done(&["scale", "web", "1"]);
    cluster.until_ready("web", 1);
    let folder = cluster.folder.path().canonicalize().unwrap();
    assert_ne!(mounts_below(&folder).unwrap(), Vec::<PathBuf>::new());
    cluster.down();
}

#[test]
fn services_run_in_containerd_that_is_started_for_them() {
    live_with("containerd");
}

#[test]
fn services_run_in_podman_that_is_started_for_them() {
    live_with("podman");
}

#[test]
fn services_run_with_an_oci_runtime_alone() {
    live_with("oci");
}

/// What cannot be asked to end is ended all the same.
#[test]
fn containers_end_with_a_cluster_whose_managers_are_gone() {
    if !is_usable("oci") {
        return;
    }
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let registry = tokio.block_on(Registry::start_with_test_images()).unwrap();
    let image = registry.test_image(TestImage::IgnoresTerm);
    let cluster = Cluster::up(&["--managers", "1", "--agents", "1", "--runtime", "oci"]);
    cluster.apply(&format!("name: web\nimage: {image}\nreplicas: 1\n"));
    cluster.until_ready("web", 1);
    cluster.signal("manager-1", Signal::KILL);
    let down = cluster.wavetank(&["down"]);
    assert_eq!(down.status.code(), Some(6), "{}", said(&down));
    assert_nothing_left(cluster.folder.path());
    cluster.down();
}
