//! Logs of tasks, line by line of JSON, asked of the agent that runs the task. A reader that is
//! slow makes the agent wait, not this manager remember.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use futures_util::stream;
use http::{StatusCode, Uri, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wavetank_model::{InstanceId, NodeId, Operation, Outcome, TaskId, TaskView};
use wavetank_port::{ErrorClass, OutputStream, RuntimeError};

use super::routes::Named;
use super::views::LogLine;
use super::{Api, ApiError};
use crate::logs::{LogQuestion, Part, Written};
use crate::transport::StreamError;

/// After so long without a line an empty one shows that the connection lives.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Whoever can ask agents for logs.
pub trait AskAgents: Send + Sync + 'static {
    /// Asks an agent.
    fn ask(&self, agent: NodeId, question: &LogQuestion) -> Result<Box<dyn Answered>, StreamError>;
}

/// An agent's answer.
#[async_trait]
pub trait Answered: Send {
    /// The next part; nothing at the end. Cancel-safe.
    async fn next(&mut self) -> Result<Option<Part>, StreamError>;
}

/// Reads logs, so many at once.
#[derive(Clone)]
pub struct Logs {
    agents: Arc<dyn AskAgents>,
    free: Arc<Semaphore>,
}

impl Logs {
    /// At most `readers_max` logs are read at once.
    pub fn new(agents: Arc<dyn AskAgents>, readers_max: usize) -> Self {
        Logs {
            agents,
            free: Arc::new(Semaphore::new(readers_max)),
        }
    }

    /// Asks, and waits for the first part of the answer.
    async fn open(
        &self,
        agent: NodeId,
        question: &LogQuestion,
        within: Duration,
    ) -> Result<Reading, ApiError> {
        let free = self.free.clone().try_acquire_owned();
        let permit = free.map_err(|_| ApiError::unavailable("too many logs are read at once"))?;
        let broken = |error| unreachable(agent, &error);
        let mut answer = self.agents.ask(agent, question).map_err(broken)?;
        let first = tokio::time::timeout(within, answer.next()).await;
        match first.map_err(|_| silent(agent))?.map_err(broken)? {
            Some(Part::Open) => Ok(Reading {
                agent,
                answer: Some(answer),
                _permit: permit,
            }),
            Some(Part::Failed(error)) => Err(refused(agent, question.instance, &error)),
            Some(Part::Written(_)) | None => Err(ApiError::nonsense()),
        }
    }
}

/// What a task, or one attempt to run it, has written: one line for each piece of output. Empty
/// lines in between mean nothing.
#[utoipa::path(get, path = "/tasks/{task}/logs",
    params(
        ("task" = String, Path, description = "`task-17`, or `task-17.2` for its second attempt"),
        ("tail" = Option<u32>, Query, description = "only so many last lines of each output"),
        ("follow" = Option<bool>, Query, description = "go on until the process has ended"),
    ),
    responses((status = 200, body = LogLine, content_type = "application/x-ndjson")))]
pub(super) async fn read_logs(
    State(api): State<Api>,
    Named(task): Named<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let (task, attempt) = named(&task)?;
    let asked = Selection::parse(uri.query().unwrap_or_default())?;
    let view = find(&api, task).await?;
    let (agent, instance) = place(&view, attempt)?;
    let question = LogQuestion {
        instance,
        follow: asked.follow,
        tail: asked.tail,
    };
    let reading = api.logs.open(agent, &question, api.timeout / 2).await?;
    let lines = stream::unfold(reading, Reading::lines);
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

/// What of a log is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Selection {
    tail: Option<u32>,
    follow: bool,
}

impl Selection {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut selection = Selection::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong =
                |wanted: &str| ApiError::malformed(format!("{name}: `{value}` is not {wanted}"));
            match &*name {
                "tail" => {
                    let lines = value.parse().map_err(|_| wrong("a number of lines"))?;
                    selection.tail = Some(lines);
                }
                "follow" => {
                    selection.follow = value.parse().map_err(|_| wrong("`true` or `false`"))?;
                }
                _ => {
                    let why = format!("there is no parameter `{name}`, but `tail` and `follow`");
                    return Err(ApiError::malformed(why));
                }
            }
        }
        Ok(selection)
    }
}

/// A task, and which attempt to run it: the last one if nothing is said.
fn named(text: &str) -> Result<(TaskId, Option<u32>), ApiError> {
    if let Ok(task) = text.parse() {
        return Ok((task, None));
    }
    let instance: Result<InstanceId, _> = text.parse();
    instance
        .map(|instance| (instance.task, Some(instance.attempt)))
        .map_err(|_| {
            let wanted = "a task such as `task-17` nor an attempt such as `task-17.2`";
            ApiError::malformed(format!("`{text}` is neither {wanted}"))
        })
}

async fn find(api: &Api, task: TaskId) -> Result<TaskView, ApiError> {
    let Outcome::Services { services } = api.ask(Operation::ListServices).await? else {
        return Err(ApiError::nonsense());
    };
    let mut tasks = services.into_iter().flat_map(|service| service.tasks);
    tasks
        .find(|view| view.task == task)
        .ok_or_else(|| ApiError::not_found(format!("{task} does not exist")))
}

/// Where the log of a task is, and whose it is.
fn place(view: &TaskView, attempt: Option<u32>) -> Result<(NodeId, InstanceId), ApiError> {
    let (task, last) = (view.task, view.status.attempt);
    let early = |why: String| ApiError::new(StatusCode::CONFLICT, "not-started", why);
    let Some(agent) = view.node else {
        return Err(early(format!("{task} is not on any node yet")));
    };
    if last == 0 {
        return Err(early(format!("{agent} has not begun with {task} yet")));
    }
    let attempt = attempt.unwrap_or(last);
    if attempt > last {
        let why = format!("{task} has no attempt {attempt} yet, the last one is {last}");
        return Err(ApiError::not_found(why));
    }
    Ok((agent, InstanceId { task, attempt }))
}

fn unreachable(agent: NodeId, error: &StreamError) -> ApiError {
    let why = match error {
        StreamError::NotConnected => format!(
            "{agent} is not connected to this manager; the one that leads hears of it first"
        ),
        error => format!("{agent}: {error}"),
    };
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "agent-unreachable", why)
}

fn silent(agent: NodeId) -> ApiError {
    let why = format!("{agent} does not answer in time");
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", why)
}

/// What the container runtime says, as a status.
fn refused(agent: NodeId, instance: InstanceId, error: &RuntimeError) -> ApiError {
    let status = match error.class {
        ErrorClass::NotFound => {
            let why = format!("{agent} has no container of {instance} (any more)");
            return ApiError::not_found(why);
        }
        ErrorClass::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    let why = format!("the container runtime of {agent} refuses: {error}");
    ApiError::new(status, "runtime", why)
}

/// A log that is being read.
struct Reading {
    agent: NodeId,
    /// Nothing once it is over.
    answer: Option<Box<dyn Answered>>,
    _permit: OwnedSemaphorePermit,
}

impl Reading {
    /// The next line, or an empty one if there is none for long.
    async fn lines(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let answer = self.answer.as_mut()?;
        let next = tokio::time::timeout(KEEPALIVE, answer.next()).await;
        let line = match next {
            Err(_) | Ok(Ok(Some(Part::Open))) => return Some((Ok("\n".into()), self)),
            Ok(Ok(None)) => return None,
            Ok(Ok(Some(Part::Written(written)))) => LogLine::from(written),
            Ok(Ok(Some(Part::Failed(error)))) => self.broken(&error),
            Ok(Err(error)) => self.broken(&error),
        };
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
        bytes.push(b'\n');
        Some((Ok(bytes.into()), self))
    }

    /// The last line of a log that is not complete.
    fn broken(&mut self, why: &dyn Display) -> LogLine {
        self.answer = None;
        LogLine::Failed {
            error: format!("{}: {why}", self.agent),
        }
    }
}

impl From<Written> for LogLine {
    fn from(written: Written) -> Self {
        let stream = match written.stream {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        };
        let (text, base64) = match std::str::from_utf8(&written.bytes) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(BASE64.encode(&written.bytes))),
        };
        LogLine::Written {
            stream: stream.to_owned(),
            at: written.at.map(|at| at.0),
            text,
            base64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_or_refused() {
        let parsed = |query| Selection::parse(query).ok();
        let (tail, follow) = (Some(3), true);
        assert_eq!(parsed(""), Some(Selection::default()));
        assert_eq!(
            parsed("tail=3&follow=true"),
            Some(Selection { tail, follow })
        );
        for query in [
            "tail=-1",
            "tail=",
            "tail=99999999999",
            "follow=yes",
            "since=1",
            "%ff",
        ] {
            assert_eq!(parsed(query), None, "{query}");
        }
    }
}
