//! A manager and an agent as they ship, over real sockets and disks, with a simulated container
//! runtime: what an operator does with `ctl`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use serde_json::Value;
use tokio::task::JoinHandle;
use wavetank_model::{NodeId, NodeRole};
use wavetank_node::config::{AgentFlags, File, Flags, ManagerFlags};
use wavetank_node::ctl::{self, CtlArguments, CtlError};
use wavetank_node::serve::{self, JoinRequest, ServeError};
use wavetank_scenario::plan::{Health, Image, OnTerm, Range};
use wavetank_sim_runtime::{SimConfig, SimRuntime};
use wavetank_world::Registry;

#[derive(Parser)]
struct Tool {
    #[command(flatten)]
    ctl: CtlArguments,
}

/// A cluster in a folder. Its nodes end with it.
struct Cluster {
    folder: tempfile::TempDir,
    listen: String,
    nodes: Vec<JoinHandle<Result<(), ServeError>>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter().for_each(JoinHandle::abort);
    }
}

fn free() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn flags(dir: PathBuf) -> Flags {
    Flags {
        dir: Some(dir),
        status: Some(free()),
        ..Flags::default()
    }
}

impl Cluster {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = free();
        let own = ManagerFlags {
            listen: Some(listen.clone()),
            api: Some(free()),
            ..ManagerFlags::default()
        };
        let file = File::default();
        let settings = file.manager(&flags(folder.path().join("m")), &own).unwrap();
        serve::init(&settings).unwrap();
        let node = tokio::spawn(serve::manager(settings, std::future::pending()));
        Cluster {
            folder,
            listen,
            nodes: vec![node],
        }
    }

    async fn add_agent(&mut self) {
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

    async fn ctl(&self, command: &str) -> Result<String, CtlError> {
        let operator = self.folder.path().join("m/operator");
        let words = ["ctl", "--operator", operator.to_str().unwrap()];
        let words = words.into_iter().chain(command.split_whitespace());
        let tool = Tool::try_parse_from(words).unwrap();
        let mut out = Vec::new();
        ctl::run(tool.ctl, &mut out).await?;
        Ok(String::from_utf8(out).unwrap())
    }

    async fn json(&self, command: &str) -> Value {
        let text = self.ctl(&format!("--json {command}")).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Asks until it is so.
    async fn until(&self, command: &str, so: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Value::Null;
        for _ in 0..600 {
            seen = self.json(command).await;
            if so(&seen) {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("`{command}` still says {seen}");
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path: &Path = &self.folder.path().join(name);
        std::fs::write(path, text).unwrap();
        path.to_str().unwrap().to_owned()
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
        interpreter: None,
    };
    let images = ["web:1", "web:2"].map(|name| (name.to_owned(), image.clone()));
    let registry = Registry::new(images.into_iter().collect());
    Arc::new(SimRuntime::new(&config, Arc::new(Mutex::new(registry))))
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
    cluster.until("get web", |web| ready(web) == 3).await;
    let listed = cluster.ctl("list").await.unwrap();
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
