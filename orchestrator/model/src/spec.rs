//! What a user asks for. Written by operators only; the orchestrator never changes a spec.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wavetank_port::ImageReference;

use crate::ids::{LeaseName, ServiceName};
use crate::timers::Backoff;

/// Compute resources, asked for or available.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// Bytes of memory; a hard cap when placing.
    pub memory_bytes: u64,
}

/// How many tasks a service wants, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceMode {
    /// This many tasks, kept running.
    Replicated {
        /// How many.
        replicas: u32,
    },
    /// One task on every eligible agent.
    Global,
    /// This many tasks, each run to completion.
    Job {
        /// How many.
        completions: u32,
    },
}

/// When an agent starts a task's next instance after one has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Never: the first end is final.
    Never,
    /// After a failure only.
    OnFailure,
    /// After any end that the operator did not ask for.
    Always,
}

/// Restart rules, applied by the agent that runs the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// When to restart.
    pub condition: RestartCondition,
    /// Restarts allowed without a stable run in between; then the task fails for good with
    /// `crash_loop_backoff`.
    pub restarts_max: u32,
    /// Wait before each restart.
    pub backoff: Backoff,
    /// A run this long resets the count.
    pub stable_after: Duration,
}

/// How an agent finds out whether an instance works.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Run in the container; exit code 0 is healthy. Empty: an instance is healthy while its
    /// process lives.
    #[serde(default)]
    pub command: Vec<String>,
    /// Between probes.
    pub interval: Duration,
    /// Longest a probe may take; an overdue probe is an error, not an unhealthy verdict.
    pub timeout: Duration,
    /// After the start, failures do not count for this long.
    pub start_period: Duration,
    /// Unhealthy verdicts in a row that fail the instance.
    pub failures_max: u32,
}

/// What a rollout does when the new generation does not become ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnRolloutFailure {
    /// Go back to the last generation that completed.
    Rollback,
    /// Stop where it is until an operator acts.
    Pause,
    /// Go on.
    Continue,
}

/// How a new generation replaces the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UpdatePolicy {
    /// Tasks allowed above the wanted number.
    pub surge_max: u32,
    /// Tasks allowed to be missing from the wanted number. Zero with a surge of zero is invalid.
    pub unavailable_max: u32,
    /// A new task counts as available once it has been ready for this long.
    pub monitor: Duration,
    /// New tasks that may fail before `on_failure` is taken.
    pub failures_max: u32,
    /// What to do then.
    pub on_failure: OnRolloutFailure,
}

/// Where replicated workloads keep the lock that elects one of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ElectionBackend {
    /// A lease of the managers, with fencing tokens.
    Managers,
    /// A lock file on a volume. Safe only if all replicas see the same volume, which the agent
    /// cannot know: there are no fencing tokens (StreamSpace H3).
    LockFile {
        /// The volume that holds the file.
        volume: String,
    },
}

/// Election of one acting instance among a service's instances.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElectionSpec {
    /// What they compete for.
    pub lease: LeaseName,
    /// Where the lock lives.
    pub backend: ElectionBackend,
    /// How long a grant lasts without renewal.
    pub ttl: Duration,
    /// Between renewals, and between the acts (guarded writes) of the holder.
    pub renew: Duration,
}

/// Everything a user says about one service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// What to run.
    pub image: ImageReference,
    /// Arguments; empty means the image's own.
    pub command: Vec<String>,
    /// Added to the image's environment.
    pub environment: BTreeMap<String, String>,
    /// How many tasks.
    pub mode: ServiceMode,
    /// What each task needs; memory is a hard limit.
    pub resources: Resources,
    /// Labels a node must have, exactly.
    pub constraints: BTreeMap<String, String>,
    /// Node label over whose values the tasks are spread before they are spread over nodes.
    pub spread: Option<String>,
    /// Host ports, each taken exclusively on the task's node.
    pub ports: Vec<u16>,
    /// A node-local volume with one writer: it is bound to the node that first ran the task,
    /// and the task follows it.
    pub volume: Option<String>,
    /// Restart rules.
    pub restart: RestartPolicy,
    /// Health probe; without one an instance is ready when it runs.
    pub health: Option<HealthCheck>,
    /// From SIGTERM to SIGKILL.
    pub stop_grace: Duration,
    /// Rollout rules.
    pub update: UpdatePolicy,
    /// Leader election among the instances.
    pub election: Option<ElectionSpec>,
}

impl ServiceSpec {
    /// Wanted number of tasks, where the mode fixes one.
    pub fn replicas(&self) -> Option<u32> {
        match self.mode {
            ServiceMode::Replicated { replicas } => Some(replicas),
            ServiceMode::Job { completions } => Some(completions),
            ServiceMode::Global => None,
        }
    }
}
