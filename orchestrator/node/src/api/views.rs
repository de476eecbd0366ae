//! What the API answers: the cluster as clients are shown it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wavetank_model::{AgentView, ServiceView, TaskView};
use wavetank_port::ExitCode;

use super::manifest::{Cpus, ServiceManifest, Size};

/// A change was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// Where in the replicated log it is.
    pub revision: u64,
}

/// All services, in the order of their names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Services {
    /// The services.
    pub services: Vec<Service>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// What was asked for.
    pub spec: ServiceManifest,
    /// Its version.
    pub generation: u64,
    /// Where its rollout is.
    pub rollout: String,
    /// Stopped by an operator.
    pub stopped: bool,
    /// Goes away with its last task.
    pub deleting: bool,
    /// Its tasks, in id order.
    pub tasks: Vec<Task>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Its id.
    pub task: String,
    /// Which of the service's places it fills.
    pub slot: u32,
    /// The service's version that it runs.
    pub generation: u64,
    /// Where.
    pub node: Option<String>,
    /// What managers want of it.
    pub desired: String,
    /// What it is.
    pub state: String,
    /// Running and, where there is a health check, healthy.
    pub ready: bool,
    /// Which attempt to run it.
    pub attempt: u32,
    /// Why, for failures and waits.
    pub reason: Option<String>,
    /// For people.
    pub message: String,
    /// How the last attempt's process ended, if it did and somebody saw it.
    pub exit_code: Option<i32>,
}

/// All managers and agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Nodes {
    /// Members of the consensus group.
    pub managers: Vec<String>,
    /// The one of them that leads, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Those of them that have no vote yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joining: Vec<String>,
    /// All agents that ever registered.
    pub agents: Vec<Agent>,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// Its id.
    pub node: String,
    /// Whether it is heard of.
    pub status: String,
    /// What may run there.
    pub availability: Mode,
    /// Cores that it offers.
    pub cpus: Cpus,
    /// Cores that its tasks take.
    pub cpus_used: Cpus,
    /// Memory that it offers.
    pub memory: Size,
    /// Memory that its tasks take.
    pub memory_used: Size,
    /// What it is like.
    pub labels: BTreeMap<String, String>,
    /// Tasks there that have not ended.
    pub tasks: u32,
}

/// What may run on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It may be given tasks.
    Active,
    /// It keeps what it has and is given nothing.
    Pause,
    /// Its tasks move away.
    Drain,
}

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyValue {
    /// `null` if it was never written.
    pub value: Option<String>,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// For programs: `not-found`, `invalid`, `fenced`, `malformed`, `too-large`, `forbidden`,
    /// `method`, `unavailable`, `timeout`, `not-started`, `agent-unreachable` or `runtime`.
    pub error: String,
    /// For people.
    pub message: String,
}

/// One line of `GET /v1/watch`: how something is from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "changed", rename_all = "kebab-case")]
pub enum Change {
    /// A service; `null` if it is gone.
    Service {
        /// Which service.
        name: String,
        /// How it is.
        service: Option<Box<Service>>,
    },
    /// An agent.
    Agent {
        /// How it is.
        agent: Agent,
    },
    /// The members of the consensus group.
    Managers {
        /// Who they are.
        managers: Vec<String>,
        /// The one that leads, if it says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leader: Option<String>,
    },
}

/// One line of `GET /v1/tasks/TASK/logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum LogLine {
    /// Bytes that the process wrote, cut anywhere: a line of the log may come in several.
    Written {
        /// `stdout` or `stderr`.
        stream: String,
        /// When, in nanoseconds since 1970, if the container runtime keeps times.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<u64>,
        /// What, if it is UTF-8.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// What, if it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
    },
    /// The log breaks off; nothing comes after this.
    Failed {
        /// Why, for people.
        error: String,
    },
}

/// The word by which a value of the model is spelt.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => unreachable!("spelt as {other:?}"),
    }
}

impl From<ServiceView> for Service {
    fn from(view: ServiceView) -> Self {
        Service {
            spec: view.spec.into(),
            generation: view.generation.0,
            rollout: word(&view.rollout),
            stopped: view.stopped,
            deleting: view.deleting,
            tasks: view.tasks.into_iter().map(Task::from).collect(),
        }
    }
}

impl From<TaskView> for Task {
    fn from(view: TaskView) -> Self {
        let status = view.status;
        Task {
            task: view.task.to_string(),
            slot: view.slot,
            generation: view.generation.0,
            node: view.node.map(|node| node.to_string()),
            desired: word(&view.desired),
            state: word(&status.state),
            ready: status.ready,
            attempt: status.attempt,
            reason: status.reason.as_ref().map(word),
            message: status.message,
            exit_code: match status.exit.map(|exit| exit.code) {
                Some(ExitCode::Known(code)) => Some(code),
                Some(ExitCode::Unknown) | None => None,
            },
        }
    }
}

impl From<AgentView> for Agent {
    fn from(view: AgentView) -> Self {
        use wavetank_model::Availability;
        Agent {
            node: view.node.to_string(),
            status: word(&view.status),
            availability: match view.availability {
                Availability::Active => Mode::Active,
                Availability::Pause => Mode::Pause,
                Availability::Drain => Mode::Drain,
            },
            cpus: Cpus(view.resources.cpu_millis),
            cpus_used: Cpus(view.used.cpu_millis),
            memory: Size(view.resources.memory_bytes),
            memory_used: Size(view.used.memory_bytes),
            labels: view.labels,
            tasks: view.tasks,
        }
    }
}
