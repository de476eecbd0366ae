//! A manager and an agent as they ship, over real sockets and disks, with a simulated container
//! runtime: what an operator does with `ctl`.

use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use serde_json::Value;
use tokio::task::JoinHandle;
use wavetank_model::{NodeId, NodeRole};
use wavetank_node::config::{AgentFlags, File, Flags, ManagerFlags, ManagerSettings};
use wavetank_node::ctl::{self, CtlArguments, CtlError};
use wavetank_node::serve::{self, JoinRequest, ServeError};
use wavetank_port::{ContainerSpec, OutputStream};
use wavetank_scenario::plan::{Health, Image, OnTerm, Range, RuntimeSteps};
use wavetank_sim_runtime::{SimConfig, SimRuntime};
use wavetank_world::{Interpretation, Program, Registry, Step};

#[derive(Parser)]
struct Tool {
    #[command(flatten)]
    ctl: CtlArguments,
}

/// A cluster in a folder. Its nodes end with it.
pub struct Cluster {
    pub folder: tempfile::TempDir,
    pub listen: String,
    pub api: String,
    pub nodes: Vec<JoinHandle<Result<(), ServeError>>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter().for_each(JoinHandle::abort);
    }
}

/// A free port.
pub fn free() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

pub fn flags(dir: PathBuf) -> Flags {
    Flags {
        dir: Some(dir),
        status: Some(free()),
        ..Flags::default()
    }
}

impl Cluster {
    pub fn start() -> Self {
        let mut cluster = Cluster {
            folder: tempfile::tempdir().unwrap(),
            listen: free(),
            api: free(),
            nodes: Vec::new(),
        };
        let settings = cluster.manager("m");
        serve::init(&settings).unwrap();
        cluster.run(settings);
        cluster
    }

    /// The settings of the manager that lives in this folder.
    pub fn manager(&self, folder: &str) -> ManagerSettings {
        let own = ManagerFlags {
            listen: Some(self.listen.clone()),
            api: Some(self.api.clone()),
            ..ManagerFlags::default()
        };
        let flags = flags(self.folder.path().join(folder));
        File::default().manager(&flags, &own).unwrap()
    }

    pub fn run(&mut self, settings: ManagerSettings) {
        let node = tokio::spawn(serve::manager(settings, std::future::pending()));
        self.nodes.push(node);
    }

    pub async fn add_agent(&mut self) {
        let token = self.json("token agent").await["token"]
            .as_str()
            .unwrap()
            .to_owned();
        let dir = self.folder.path().join("a");
        let request = JoinRequest {
            dir: dir.clone(),
            token: token.parse().unwrap(),
            role: NodeRole::Agent,
            managers: vec![self.listen.clone()],
            api: Vec::new(),
        };
        assert_eq!(serve::join(&request).await.unwrap(), NodeId::agent(1));
        let again = JoinRequest {
            dir: self.folder.path().join("thief"),
            ..request
        };
        let spent = serve::join(&again).await.unwrap_err();
        let spent = serve::chain(&spent);
        assert!(spent.contains("was used by agent-1"), "{spent}");
        let settings = File::default().agent(&flags(dir), &AgentFlags::default());
        let agent = serve::agent(settings.unwrap(), runtime(), std::future::pending());
        self.nodes.push(tokio::spawn(agent));
    }

    pub async fn ctl(&self, command: &str) -> Result<String, CtlError> {
        let mut out = Vec::new();
        self.ctl_into(command, &mut out).await?;
        Ok(String::from_utf8(out).unwrap())
    }

    async fn ctl_into(&self, command: &str, out: &mut (dyn Write + Send)) -> Result<(), CtlError> {
        let operator = self.folder.path().join("m/operator");
        let words = ["ctl", "--operator", operator.to_str().unwrap()];
        let words = words.into_iter().chain(command.split_whitespace());
        let tool = Tool::try_parse_from(words).unwrap();
        ctl::run(tool.ctl, out).await
    }

    pub async fn json(&self, command: &str) -> Value {
        let text = self.ctl(&format!("--json {command}")).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Asks until it is so. A manager that was just started may not answer yet.
    pub async fn until(&self, command: &str, so: impl Fn(&Value) -> bool) -> Value {
        let mut last = String::new();
        for _ in 0..600 {
            match self.ctl(&format!("--json {command}")).await {
                Ok(text) => {
                    let seen = serde_json::from_str(&text).unwrap();
                    if so(&seen) {
                        return seen;
                    }
                    last = text;
                }
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("`{command}` still says {last}");
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path: &Path = &self.folder.path().join(name);
        std::fs::write(path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// What a command has printed so far, to be read while it runs.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Printed {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Waits until this has been printed so often.
    async fn until(&self, part: &str, times: usize) {
        for _ in 0..600 {
            if self.text().matches(part).count() >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not {times} times `{part}` in {}", self.text());
    }
}

fn runtime() -> Arc<SimRuntime> {
    let time = Duration::from_millis(1);
    let exactly = Range {
        min: time,
        max: time,
    };
    let image = Image {
        run_for: None,
        exit_code: 0,
        on_term: OnTerm::Exits {
            after: time,
            code: None,
        },
        health: Health::Ok,
        pull_bytes: 1,
        exists: true,
        memory_bytes: 0,
    };
    let config = SimConfig {
        node: NodeId::agent(1),
        seed: 1,
        latency: exactly,
        event_delay: exactly,
        steps: RuntimeSteps::new(),
        interpreter: Some(interpret),
    };
    let images = ["web:1", "web:2"].map(|name| (name.to_owned(), image.clone()));
    let registry = Registry::new(images.into_iter().collect());
    Arc::new(SimRuntime::new(&config, Arc::new(Mutex::new(registry))))
}

/// Whatever runs says so in three lines, and says farewell on SIGTERM.
fn interpret(spec: &ContainerSpec) -> Interpretation {
    let say = |stream, text: &str| Step::Write(stream, text.as_bytes().to_vec());
    let steps = vec![
        say(OutputStream::Stdout, "one\ntw"),
        say(OutputStream::Stderr, "warning\n"),
        say(OutputStream::Stdout, "o\nthree\n"),
        Step::AwaitSignal(15),
        say(
            OutputStream::Stdout,
            &format!("farewell from {}\n", spec.image),
        ),
        Step::Exit(0),
    ];
    Interpretation::Program(Program {
        steps,
        stop_signal: None,
    })
}

fn ready(service: &Value) -> usize {
    let tasks = service["tasks"].as_array().map_or(&[][..], Vec::as_slice);
    tasks.iter().filter(|task| task["ready"] == true).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_runs_a_service_from_its_first_day_to_its_last() {
    let mut cluster = Cluster::start();
    cluster.add_agent().await;
    let file = cluster.write("web.yaml", "name: web\nimage: web:1\nreplicas: 2\n");
    cluster.ctl(&format!("apply {file}")).await.unwrap();
    cluster.until("get web", |web| ready(web) == 2).await;
    cluster.ctl("scale web 3").await.unwrap();
    cluster.until("get web", |web| ready(web) == 3).await;
    cluster.ctl("update web --image web:2").await.unwrap();
    let updated = |web: &Value| web["generation"] == 2 && web["rollout"] == "completed";
    cluster.until("get web", updated).await;
    cluster.ctl("stop web").await.unwrap();
    cluster.until("get web", |web| ready(web) == 0).await;
    cluster.ctl("start web").await.unwrap();
    cluster.until("get web", |web| ready(web) == 3).await;
    cluster.ctl("drain agent-1").await.unwrap();
    // Its tasks stay for want of another agent: the service may not miss one.
    let drains = |nodes: &Value| nodes["agents"][0]["availability"] == "drain";
    cluster.until("list nodes", drains).await;
    cluster.ctl("activate agent-1").await.unwrap();
    // Whatever took a task's place meanwhile runs beside it for a moment.
    let settled = |web: &Value| ready(web) == 3 && web["rollout"] == "completed";
    let mut listed = String::new();
    for _ in 0..600 {
        cluster.until("get web", settled).await;
        listed = cluster.ctl("list").await.unwrap();
        if listed.contains("3/3") {
            break;
        }
    }
    assert!(
        listed.contains("web:2") && listed.contains("3/3"),
        "{listed}"
    );
    cluster.ctl("put a/key value").await.unwrap();
    assert_eq!(cluster.ctl("get-key a/key").await.unwrap(), "value\n");
    cluster.ctl("delete web").await.unwrap();
    let gone = |listed: &Value| listed["services"].as_array().is_some_and(Vec::is_empty);
    cluster.until("list", gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_reads_what_containers_write() {
    let mut cluster = Cluster::start();
    cluster.add_agent().await;
    let file = cluster.write("web.yaml", "name: web\nimage: web:1\nreplicas: 1\n");
    cluster.ctl(&format!("apply {file}")).await.unwrap();
    let web = cluster.until("get web", |web| ready(web) == 1).await;
    let task = web["tasks"][0]["task"].as_str().unwrap().to_owned();
    let one = "one\ntwwarning\no\nthree\n";
    assert_eq!(cluster.ctl("logs web").await.unwrap(), one);
    assert_eq!(cluster.ctl(&format!("logs {task}.1")).await.unwrap(), one);
    let tail = cluster.ctl(&format!("logs {task} --tail 1")).await.unwrap();
    assert_eq!(tail, "warning\nthree\n");
    assert_eq!(cluster.ctl("logs web --tail 0").await.unwrap(), "");
    let json = cluster.ctl("--json logs web --tail 1").await.unwrap();
    let lines: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let shown = |line: &Value| format!("{} {} {}", line["task"], line["stream"], line["text"]);
    let shown: Vec<String> = lines.iter().map(shown).collect();
    let wanted = [("stderr", "warning"), ("stdout", "three")];
    let wanted = wanted.map(|(stream, text)| format!("\"{task}\" \"{stream}\" \"{text}\\n\""));
    assert_eq!(shown, wanted);

    cluster.ctl("scale web 2").await.unwrap();
    cluster.until("get web", |web| ready(web) == 2).await;
    let both = cluster.ctl("logs web").await.unwrap();
    let mut lines: Vec<&str> = both.lines().collect();
    lines.sort_unstable();
    let said = |text: &str| lines.iter().filter(|line| line.ends_with(text)).count();
    assert_eq!(
        (lines.len(), said(" | two"), said(" | warning")),
        (8, 2, 2),
        "{both}"
    );
    assert!(
        lines.iter().any(|line| *line == format!("{task} | three")),
        "{both}"
    );

    follows_to_the_end(&cluster).await;
}

/// Whoever follows two tasks sees what comes later, and the end.
async fn follows_to_the_end(cluster: &Cluster) {
    let printed = Printed::default();
    let follow = async {
        let mut out = printed.clone();
        let followed = cluster.ctl_into("logs web --follow --tail 1", &mut out);
        followed.await.unwrap();
    };
    let stop = async {
        // Each log ends in this line: who has read it follows that log.
        printed.until(" | three\n", 2).await;
        cluster.ctl("stop web").await.unwrap();
    };
    tokio::join!(follow, stop);
    let all = printed.text();
    let farewells = all.matches(" | farewell from web:1\n").count();
    assert_eq!(farewells, 2, "{all}");
    // Before that the last line of each output of each task, and nothing else.
    assert_eq!(all.matches(" | warning\n").count(), 2, "{all}");
    assert_eq!(all.lines().count(), 6, "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_read_is_refused_with_a_reason() {
    let mut cluster = Cluster::start();
    cluster.add_agent().await;
    let refused = async |cluster: &Cluster, command: &str| {
        let error = cluster.ctl(command).await.unwrap_err();
        (error.exit_code(), error.to_string())
    };
    let because = |why: &str| (1, why.to_owned());
    assert_eq!(
        refused(&cluster, "logs web").await,
        because("service web does not exist")
    );
    assert_eq!(
        refused(&cluster, "logs task-99").await,
        because("task-99 does not exist")
    );
    let file = cluster.write("web.yaml", "name: web\nimage: none:1\nreplicas: 1\n");
    cluster.ctl(&format!("apply {file}")).await.unwrap();
    let pulls = |web: &Value| web["tasks"][0]["attempt"] == 1;
    let web = cluster.until("get web", pulls).await;
    let task = web["tasks"][0]["task"].as_str().unwrap().to_owned();
    let (code, why) = refused(&cluster, &format!("logs {task}")).await;
    let wanted = format!("agent-1 has no container of {task}.1 (any more)");
    assert_eq!((code, why), (1, wanted));
    let (code, why) = refused(&cluster, &format!("logs {task}.7")).await;
    assert_eq!(code, 1);
    assert!(why.contains("has no attempt 7"), "{why}");
    // Its agent ends: nobody has a connection with it.
    cluster.nodes.pop().unwrap().abort();
    let (code, why) = refused(&cluster, &format!("logs {task}")).await;
    assert_eq!(code, 6);
    assert!(why.contains("agent-1 is not connected"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_has_an_exit_code() {
    let cluster = Cluster::start();
    let refused = cluster.ctl("stop nothing").await.unwrap_err();
    assert_eq!(
        (refused.exit_code(), &*refused.to_string()),
        (1, "service nothing does not exist")
    );
    let file = cluster.write("bad.yaml", "name: web\nimage: web:1\nreplica: 2\n");
    let usage = cluster.ctl(&format!("apply {file}")).await.unwrap_err();
    assert_eq!(usage.exit_code(), 2);
    assert!(
        usage.to_string().contains("bad.yaml:3:1: unknown field"),
        "{usage}"
    );
    let nobody = cluster
        .ctl(&format!("--api {} list", free()))
        .await
        .unwrap_err();
    assert_eq!(nobody.exit_code(), 6);
    assert!(
        nobody.to_string().contains("no manager answers"),
        "{nobody}"
    );
}
