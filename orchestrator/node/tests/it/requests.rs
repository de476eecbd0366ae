//! Requests to the API that were right once: method, path, query and body with a few bytes changed,
//! cut out, repeated or replaced by what JSON and URLs make trouble with. They are answered by
//! managers that apply what is asked as real ones do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::BodyExt as _;
use rand_chacha::ChaCha8Rng;
use tower::ServiceExt as _;
use wavetank_core::manager::command::Command;
use wavetank_core::manager::store::Store;
use wavetank_model::{
    Incarnation, NodeId, Operation, OperationError, Outcome, RequestId, Resources, Revision,
};
use wavetank_node::Os;
use wavetank_node::api::logs::{Answered, AskAgents, Logs};
use wavetank_node::api::views::Refusal;
use wavetank_node::api::{Api, Caller, Mint, Submit};
use wavetank_node::driver::Gone;
use wavetank_node::identity::Token;
use wavetank_node::logs::LogQuestion;
use wavetank_node::transport::StreamError;
use wavetank_port::WallTime;

use crate::mutation::{below, mutate};

/// A service with everything that can be said of one.
const SERVICE: &str = r#"{"name": "web", "image": "web:1", "command": ["serve", "--port", "80"],
    "environment": {"KEY": "value"}, "replicas": 3, "resources": {"cpus": 0.5, "memory": "64MiB"},
    "constraints": {"zone": "a"}, "spread": "zone", "ports": [80], "volume": "data",
    "restart": {"condition": "any"}, "health": {"interval": "5s"}, "stop_grace": "10s",
    "update": {}}"#;

/// What is asked, method and path first. Bodies that are refused are changed as well.
const SEEDS: [(&str, &str); 22] = [
    ("PUT /v1/services/web", SERVICE),
    (
        "PUT /v1/services/web",
        r#"{"name": "web", "image": "web:1", "global": true}"#,
    ),
    (
        "PUT /v1/services/job",
        r#"{"name": "job", "image": "j@sha256:00", "completions": 3}"#,
    ),
    (
        "PUT /v1/services/web",
        r#"{"name": "web", "image": "w", "election": {"backend": "lease"}}"#,
    ),
    ("GET /v1/services", ""),
    ("GET /v1/services/web", ""),
    ("DELETE /v1/services/web", ""),
    ("POST /v1/services/web/scale", r#"{"replicas": 4294967295}"#),
    ("POST /v1/services/web/stop", ""),
    ("POST /v1/services/web/start", ""),
    ("POST /v1/services/web/rollback", ""),
    ("GET /v1/nodes", ""),
    (
        "PUT /v1/nodes/agent-1/availability",
        r#"{"availability": "drain"}"#,
    ),
    ("DELETE /v1/nodes/manager-2", ""),
    ("GET /v1/keys/some/key", ""),
    ("PUT /v1/keys/some%20key", r#"{"value": "\ud83d\ude00"}"#),
    ("POST /v1/tokens", r#"{"role": "agent", "lifetime": "1h"}"#),
    ("GET /v1/tasks/task-1/logs?tail=10&follow=false", ""),
    ("GET /v1/tasks/task-1.2/logs?follow=true", ""),
    ("GET /openapi.json", ""),
    ("PATCH /v1/services/web?a=b;c#d", "[]"),
    ("GET /v1/nothing/at/all", "null"),
];

/// What JSON and URLs make trouble with.
const TROUBLE: [&[u8]; 14] = [
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":",
    b"1e999",
    b"-0",
    b"18446744073709551616",
    b"\"\\u0000\"",
    b"\\ud800",
    b"\"name\": \"web\", ",
    b"%00",
    b"%2F%2e%2e%2F",
    b"//",
    b"?tail=",
    b"99999999999y",
    b"\xff\xfe",
];

/// A request as bytes: nothing here says that it can be one.
pub struct Asked {
    method: Vec<u8>,
    path: Vec<u8>,
    body: Vec<u8>,
}

/// One of the seeds, changed in one to eight ways.
pub fn mutated(rng: &mut ChaCha8Rng) -> Asked {
    let (line, body) = SEEDS[below(rng, SEEDS.len())];
    let (method, path) = line.split_once(' ').expect("a method and a path");
    let mut asked = Asked {
        method: method.into(),
        path: path.into(),
        body: body.into(),
    };
    for _ in 0..=below(rng, 8) {
        let part = match below(rng, 8) {
            0 => &mut asked.method,
            1..=3 => &mut asked.path,
            _ => &mut asked.body,
        };
        mutate(part, &TROUBLE, rng);
    }
    asked
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is no request: whoever reads HTTP refuses it before the API sees it.
    NotHttp,
    /// The API did it.
    Done,
    /// The API refused it, in its own words.
    Refused,
}

/// The API and managers to ask, anew after so many requests: what they were told adds up.
pub struct Service {
    router: Router,
    asked: u32,
}

const ANEW_AFTER: u32 = 2000;

impl Service {
    pub fn new() -> Self {
        Service {
            router: router(OneStore::new()),
            asked: 0,
        }
    }

    /// Asks; the error says what should not have been answered.
    pub async fn ask(&mut self, asked: Asked) -> Result<Fate, String> {
        self.asked += 1;
        if self.asked.is_multiple_of(ANEW_AFTER) {
            self.router = router(OneStore::new());
        }
        let Some(request) = request(&asked) else {
            return Ok(Fate::NotHttp);
        };
        let what = format!("{} {}", request.method(), request.uri());
        let response = self.router.clone().oneshot(request).await;
        let response = response.map_err(|never| never.to_string())?;
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        judge(status, &body).map_err(|why| {
            let said = String::from_utf8_lossy(&asked.body).into_owned();
            format!("{what} {said:?}: {status}: {why}")
        })
    }
}

/// Every refusal is one of the caller's fault, or of managers that could not be asked, and says so
/// in the one shape. HEAD has no body.
fn judge(status: StatusCode, body: &Bytes) -> Result<Fate, String> {
    match status {
        StatusCode::OK => Ok(Fate::Done),
        StatusCode::BAD_REQUEST
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::CONFLICT
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY
        | StatusCode::SERVICE_UNAVAILABLE => {
            let refusal = serde_json::from_slice::<Refusal>(body);
            match refusal {
                Ok(refusal) if !refusal.message.is_empty() => Ok(Fate::Refused),
                Ok(_) => Err("no reason".to_owned()),
                Err(_) if body.is_empty() => Ok(Fate::Refused),
                Err(error) => Err(format!("another shape: {error}")),
            }
        }
        _ => Err("no such status was meant".to_owned()),
    }
}

fn request(asked: &Asked) -> Option<Request<Body>> {
    let uri = Uri::try_from(asked.path.as_slice()).ok()?;
    let mut request = Request::builder()
        .method(asked.method.as_slice())
        .uri(uri)
        .header("content-type", "application/json")
        .body(Body::from(asked.body.clone()))
        .ok()?;
    request.extensions_mut().insert(Caller(NodeId::client(1)));
    Some(request)
}

/// Managers that agree with themselves.
struct OneStore(Mutex<(Store, u64)>);

impl OneStore {
    fn new() -> Self {
        let members = [(1, NodeId::manager(1)), (2, NodeId::manager(2))];
        let mut store = Store::bootstrap(&members.into());
        let agent = Command::NodeUp {
            node: NodeId::agent(1),
            resources: Resources::default(),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
        };
        store.apply(Revision(1), &agent);
        OneStore(Mutex::new((store, 1)))
    }
}

#[async_trait]
impl Submit for OneStore {
    async fn submit(&self, operation: Operation) -> Result<Result<Outcome, OperationError>, Gone> {
        let mut inner = self.0.lock().expect("nobody panics with it");
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

struct FixedMint;

impl Mint for FixedMint {
    fn token(&self) -> Token {
        Token::generate([7; 32], &Os::new())
    }

    fn now(&self) -> WallTime {
        WallTime(u64::MAX - 1)
    }
}

/// Nobody is there.
struct NoAgents;

impl AskAgents for NoAgents {
    fn ask(&self, _: NodeId, _: &LogQuestion) -> Result<Box<dyn Answered>, StreamError> {
        Err(StreamError::NotConnected)
    }
}

/// The API over these managers, bounded as a real one is.
pub fn router(managers: impl Submit) -> Router {
    router_with(managers, Arc::new(NoAgents))
}

/// The same with agents of one's own.
pub fn router_with(managers: impl Submit, agents: Arc<dyn AskAgents>) -> Router {
    let api = Api {
        managers: Arc::new(managers),
        mint: Arc::new(FixedMint),
        logs: Logs::new(agents, 8),
        timeout: Duration::from_millis(500),
        body_bytes_max: 64 << 10,
        requests_max: 8,
        watch_every: Duration::from_millis(500),
    };
    api.router()
}

/// Asks so many mutated requests; how many met which fate: not HTTP, done, refused.
pub async fn ask_many(inputs: u64, rng: &mut ChaCha8Rng) -> Result<[u64; 3], String> {
    let mut service = Service::new();
    let mut fates = [0; 3];
    for _ in 0..inputs {
        let fate = service.ask(mutated(rng)).await?;
        fates[match fate {
            Fate::NotHttp => 0,
            Fate::Done => 1,
            Fate::Refused => 2,
        }] += 1;
    }
    Ok(fates)
}
