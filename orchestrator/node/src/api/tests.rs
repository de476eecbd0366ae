//! The API over a store without consensus: what it asks is applied as managers apply it.

use std::sync::Mutex;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use wavetank_core::manager::command::Command;
use wavetank_core::manager::store::Store;
use wavetank_model::{
    DesiredState, Generation, Incarnation, RequestId, Resources, Revision, RolloutState,
    ServiceView, TaskId, TaskStatus, TaskView,
};
use wavetank_port::{ErrorClass, OutputStream, RuntimeError, WallTime};

use super::logs::{Answered, AskAgents, Logs};
use super::*;
use crate::logs::{LogQuestion, Part, Written};
use crate::os::Os;
use crate::transport::StreamError;

/// Managers that agree with themselves.
struct OneStore(Mutex<(Store, u64)>);

impl OneStore {
    fn new() -> Self {
        let members = [(1, NodeId::manager(1)), (2, NodeId::manager(2))];
        let mut store = Store::bootstrap(&members.into());
        let agent = Command::NodeUp {
            node: NodeId::agent(1),
            resources: Resources {
                cpu_millis: 1500,
                memory_bytes: 1 << 30,
            },
            labels: [("zone".to_owned(), "a".to_owned())].into(),
        };
        store.apply(Revision(1), &agent);
        OneStore(Mutex::new((store, 1)))
    }
}

#[async_trait]
impl Submit for OneStore {
    async fn submit(&self, operation: Operation) -> Result<Result<Outcome, OperationError>, Gone> {
        let mut inner = self.0.lock().unwrap();
        let (store, revision) = &mut *inner;
        if operation.is_read() {
            return Ok(store.read(&operation));
        }
        *revision += 1;
        let id = RequestId {
            client: NodeId::client(1),
            incarnation: Incarnation(1),
            sequence: *revision,
        };
        let applied = store.apply(Revision(*revision), &Command::Client { id, operation });
        Ok(applied.result.expect("a fresh request is answered"))
    }
}

/// Managers that never answer, or are gone.
struct Silent;
struct Ended;

#[async_trait]
impl Submit for Silent {
    async fn submit(&self, _: Operation) -> Result<Result<Outcome, OperationError>, Gone> {
        std::future::pending().await
    }
}

#[async_trait]
impl Submit for Ended {
    async fn submit(&self, _: Operation) -> Result<Result<Outcome, OperationError>, Gone> {
        Err(Gone)
    }
}

struct FixedMint;

impl Mint for FixedMint {
    fn token(&self) -> Token {
        Token::generate([7; 32], &Os::new())
    }
    fn now(&self) -> WallTime {
        WallTime(1)
    }
}

/// What agents have to say: agent-1 has a log, agent-2 is not there, agent-3 says nothing, and the
/// runtimes of all others refuse.
struct Agents;

struct Script(Vec<Result<Part, StreamError>>);

#[async_trait]
impl Answered for Script {
    async fn next(&mut self) -> Result<Option<Part>, StreamError> {
        match self.0.is_empty() {
            true => Ok(None),
            false => self.0.remove(0).map(Some),
        }
    }
}

struct Never;

#[async_trait]
impl Answered for Never {
    async fn next(&mut self) -> Result<Option<Part>, StreamError> {
        std::future::pending().await
    }
}

impl AskAgents for Agents {
    fn ask(&self, agent: NodeId, question: &LogQuestion) -> Result<Box<dyn Answered>, StreamError> {
        let written = |stream, bytes: &[u8]| {
            Ok(Part::Written(Written {
                stream,
                at: None,
                bytes: bytes.to_vec().into(),
            }))
        };
        let failed = |class| Ok(Part::Failed(RuntimeError::new(class, "so it is")));
        Ok(Box::new(Script(match agent.number {
            1 => vec![
                Ok(Part::Open),
                written(OutputStream::Stdout, format!("{question:?}\n").as_bytes()),
                written(OutputStream::Stderr, &[0xff, 0]),
                Err(StreamError::Broken),
                written(OutputStream::Stdout, b"never read"),
            ],
            2 => return Err(StreamError::NotConnected),
            3 => return Ok(Box::new(Never)),
            4 => vec![failed(ErrorClass::NotFound)],
            5 => vec![failed(ErrorClass::DeadlineExceeded)],
            _ => vec![failed(ErrorClass::Unavailable)],
        })))
    }
}

/// Managers who know one service: each of its tasks is on the agent of the same number, but task 7
/// on none, and task 8 has not begun.
struct Tasks;

#[async_trait]
impl Submit for Tasks {
    async fn submit(&self, _: Operation) -> Result<Result<Outcome, OperationError>, Gone> {
        let service = r#"{"name": "web", "image": "web:1"}"#;
        let manifest: manifest::ServiceManifest = serde_json::from_str(service).unwrap();
        let task = |number: u32| TaskView {
            task: TaskId(u64::from(number)),
            slot: number,
            generation: Generation(1),
            node: (number != 7).then_some(NodeId::agent(number)),
            desired: DesiredState::Running,
            status: TaskStatus {
                attempt: if number == 8 { 0 } else { 2 },
                ..TaskStatus::pending()
            },
        };
        let view = ServiceView {
            spec: manifest.try_into().unwrap(),
            generation: Generation(1),
            rollout: RolloutState::Completed,
            stopped: false,
            deleting: false,
            tasks: (1..=8).map(task).collect(),
        };
        let services = vec![view];
        Ok(Ok(Outcome::Services { services }))
    }
}

fn api(managers: impl Submit) -> Api {
    Api {
        managers: Arc::new(managers),
        mint: Arc::new(FixedMint),
        logs: Logs::new(Arc::new(Agents), 1),
        timeout: Duration::from_millis(50),
        body_bytes_max: 1024,
        requests_max: 2,
        watch_every: Duration::from_millis(5),
    }
}

/// A request line with a body, from somebody.
async fn send(router: &Router, caller: Option<NodeId>, line: &str, body: &str) -> Response {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(axum::body::Body::from(body.to_owned()))
        .unwrap();
    if let Some(node) = caller {
        request.extensions_mut().insert(Caller(node));
    }
    router.clone().oneshot(request).await.unwrap()
}

async fn ask(router: &Router, line: &str, body: &str) -> (u16, Value) {
    let response = send(router, Some(NodeId::client(1)), line, body).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// What is asked and answered, one after the other.
async fn transcript(router: &Router, requests: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (line, body) in requests {
        let (status, answer) = ask(router, line, body).await;
        text.push_str(&format!("> {line} {body}\n< {status} {answer}\n"));
    }
    text
}

#[tokio::test]
async fn every_operation_reaches_the_managers() {
    let router = api(OneStore::new()).router();
    let text = transcript(
        &router,
        &[
            (
                "PUT /v1/services/web",
                r#"{"name": "web", "image": "web:1", "replicas": 2}"#,
            ),
            ("GET /v1/services", ""),
            ("POST /v1/services/web/scale", r#"{"replicas": 3}"#),
            ("GET /v1/services/web", ""),
            ("POST /v1/services/web/stop", ""),
            ("POST /v1/services/web/start", ""),
            ("POST /v1/services/web/rollback", ""),
            ("DELETE /v1/services/web", ""),
            ("GET /v1/services/web", ""),
            ("GET /v1/nodes", ""),
            (
                "PUT /v1/nodes/agent-1/availability",
                r#"{"availability": "drain"}"#,
            ),
            (
                "PUT /v1/nodes/agent-9/availability",
                r#"{"availability": "drain"}"#,
            ),
            ("DELETE /v1/nodes/manager-2", ""),
            ("DELETE /v1/nodes/manager-1", ""),
            ("GET /v1/nodes", ""),
            ("GET /v1/keys/a/b", ""),
            ("PUT /v1/keys/a/b", r#"{"value": "c"}"#),
            ("GET /v1/keys/a/b", ""),
        ],
    )
    .await;
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_in_one_shape() {
    let router = api(OneStore::new()).router();
    let long = format!(r#"{{"name": "web", "image": "{}"}}"#, "x".repeat(2000));
    let mut text = transcript(
        &router,
        &[
            ("PUT /v1/services/web", r#"{"name": "web""#),
            (
                "PUT /v1/services/web",
                r#"{"name": "web", "image": "i", "replica": 2}"#,
            ),
            ("PUT /v1/services/web", r#"{"name": "api", "image": "i"}"#),
            ("PUT /v1/services/web", r#"{"name": "web", "image": ""}"#),
            (
                "PUT /v1/services/web",
                r#"{"name": "web", "image": "i", "replicas": 1, "global": true}"#,
            ),
            ("PUT /v1/services/-", r#"{"name": "-", "image": "i"}"#),
            (
                "POST /v1/services/web/scale",
                r#"{"replicas": 1, "now": true}"#,
            ),
            ("POST /v1/services/web/scale", r#"{"replicas": -1}"#),
            ("POST /v1/services/none/stop", ""),
            ("GET /v1/services/%ff", ""),
            ("PATCH /v1/services/web", "{}"),
            ("GET /v1/nothing", ""),
            (
                "PUT /v1/nodes/agent-x/availability",
                r#"{"availability": "drain"}"#,
            ),
            (
                "PUT /v1/nodes/agent-1/availability",
                r#"{"availability": "gone"}"#,
            ),
            ("PUT /v1/keys/a", r#"{"value": null}"#),
            ("POST /v1/tokens", r#"{"role": "agent", "lifetime": "0s"}"#),
            (
                "POST /v1/tokens",
                r#"{"role": "agent", "lifetime": "90days"}"#,
            ),
            ("POST /v1/tokens", r#"{"role": "king", "lifetime": "1h"}"#),
        ],
    )
    .await;
    let (status, answer) = ask(&router, "PUT /v1/services/web", &long).await;
    text.push_str(&format!("> a body that is too long\n< {status} {answer}\n"));
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn a_token_is_shown_once_and_works_once() {
    let router = api(OneStore::new()).router();
    let body = r#"{"role": "agent", "lifetime": "1h"}"#;
    let (status, answer) = ask(&router, "POST /v1/tokens", body).await;
    assert_eq!(status, 200);
    let token: Token = answer["token"].as_str().unwrap().parse().unwrap();
    assert_eq!(token.authority(), [7; 32]);
}

#[tokio::test]
async fn only_members_ask_and_agents_only_look() {
    let router = api(OneStore::new()).router();
    let status = async |caller, line| send(&router, caller, line, "").await.status().as_u16();
    let stop = "POST /v1/services/web/stop";
    assert_eq!(status(None, "GET /v1/nodes").await, 403);
    assert_eq!(status(Some(NodeId::agent(1)), "GET /v1/nodes").await, 200);
    assert_eq!(status(Some(NodeId::agent(1)), stop).await, 403);
    assert_eq!(status(Some(NodeId::agent(1)), "GET /v1/keys/a").await, 403);
    assert_ne!(
        status(Some(NodeId::manager(1)), "GET /v1/keys/a").await,
        403
    );
    assert_eq!(status(Some(NodeId::manager(1)), stop).await, 404);
}

#[tokio::test]
async fn managers_that_do_not_answer_are_not_waited_for_for_ever() {
    let (status, answer) = ask(&api(Silent).router(), "GET /v1/services", "").await;
    assert_eq!((status, &answer["error"]), (504, &json!("timeout")));
    let (status, answer) = ask(&api(Ended).router(), "GET /v1/services", "").await;
    assert_eq!((status, &answer["error"]), (503, &json!("unavailable")));
}

#[tokio::test]
async fn too_many_requests_at_once_are_turned_away() {
    let router = api(Silent).router();
    let one = || ask(&router, "GET /v1/services", "");
    let (a, b, c) = tokio::join!(one(), one(), one());
    let mut statuses = [a.0, b.0, c.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [503, 504, 504]);
}

#[tokio::test]
async fn a_watch_tells_how_things_are_and_what_changes() {
    let router = api(OneStore::new()).router();
    let response = send(&router, Some(NodeId::client(1)), "GET /v1/watch", "").await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let lines: Vec<Value> = first
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let kinds: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["changed"].as_str())
        .collect();
    assert_eq!(kinds, ["managers", "agent"]);
    let body_of = r#"{"name": "web", "image": "web:1"}"#;
    ask(&router, "PUT /v1/services/web", body_of).await;
    let next = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let next: Value = serde_json::from_slice(&next).unwrap();
    assert_eq!(
        (&next["changed"], &next["name"]),
        (&json!("service"), &json!("web"))
    );
}

#[tokio::test]
async fn a_log_is_asked_of_the_agent_that_runs_the_task() {
    let router = api(Tasks).router();
    let mut text = String::new();
    for line in [
        "GET /v1/tasks/task-1/logs",
        "GET /v1/tasks/task-1.1/logs?tail=5&follow=true",
        "GET /v1/tasks/task-1.3/logs",
        "GET /v1/tasks/task-2/logs",
        "GET /v1/tasks/task-3/logs",
        "GET /v1/tasks/task-4/logs",
        "GET /v1/tasks/task-5/logs",
        "GET /v1/tasks/task-6/logs",
        "GET /v1/tasks/task-7/logs",
        "GET /v1/tasks/task-8/logs",
        "GET /v1/tasks/task-9/logs",
        "GET /v1/tasks/web/logs",
        "GET /v1/tasks/task-1/logs?tail=all",
        "GET /v1/tasks/task-1/logs?lines=7",
        "POST /v1/tasks/task-1/logs",
    ] {
        let response = send(&router, Some(NodeId::client(1)), line, "").await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body);
        text.push_str(&format!("> {line}\n< {status} {}\n", body.trim_end()));
    }
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn too_many_logs_at_once_are_turned_away() {
    let router = api(Tasks).router();
    let line = "GET /v1/tasks/task-1/logs";
    let reading = send(&router, Some(NodeId::client(1)), line, "").await;
    assert_eq!(ask(&router, line, "").await.0, 503);
    drop(reading);
    assert_eq!(ask(&router, line, "").await.0, 200);
}

#[tokio::test]
async fn the_document_describes_every_path() {
    let router = api(OneStore::new()).router();
    let (status, document) = ask(&router, "GET /openapi.json", "").await;
    assert_eq!(status, 200);
    let mut text = String::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            text.push_str(&format!("{method} {path}\n"));
        }
    }
    insta::assert_snapshot!(text);
}
