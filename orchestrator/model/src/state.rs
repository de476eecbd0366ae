//! What is: states of tasks, nodes and rollouts, and the reasons for failures.

use serde::{Deserialize, Serialize};
use wavetank_port::ExitStatus;

/// Where a task is. Per attempt the order below only grows; `Backoff` leads to the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// Wanted; no node yet. Written by managers.
    Pending,
    /// Bound to a node. Written by managers.
    Assigned,
    /// The agent knows of it. From here on written by the agent.
    Accepted,
    /// Its image is being fetched.
    Pulling,
    /// Its container is being created.
    Creating,
    /// Its process is being started.
    Starting,
    /// Its process runs.
    Running,
    /// It was told to stop and has not ended.
    Stopping,
    /// An attempt ended; the next one starts after a wait.
    Backoff,
    /// Ended with exit code zero, finally.
    Complete,
    /// Ended otherwise, finally; carries a reason.
    Failed,
    /// Stopped because it was told to, finally.
    Shutdown,
    /// The agent cannot run it at all, finally; carries a reason.
    Rejected,
    /// Its node was declared down; what became of it is unknown. Written by managers, finally.
    Lost,
}

impl TaskState {
    /// All states in order.
    pub const ALL: [TaskState; 14] = [
        TaskState::Pending,
        TaskState::Assigned,
        TaskState::Accepted,
        TaskState::Pulling,
        TaskState::Creating,
        TaskState::Starting,
        TaskState::Running,
        TaskState::Stopping,
        TaskState::Backoff,
        TaskState::Complete,
        TaskState::Failed,
        TaskState::Shutdown,
        TaskState::Rejected,
        TaskState::Lost,
    ];

    /// True if nothing may follow.
    pub fn is_terminal(self) -> bool {
        self >= TaskState::Complete
    }

    /// The kebab-case name.
    pub fn name(self) -> &'static str {
        match self {
            TaskState::Pending => "pending",
            TaskState::Assigned => "assigned",
            TaskState::Accepted => "accepted",
            TaskState::Pulling => "pulling",
            TaskState::Creating => "creating",
            TaskState::Starting => "starting",
            TaskState::Running => "running",
            TaskState::Stopping => "stopping",
            TaskState::Backoff => "backoff",
            TaskState::Complete => "complete",
            TaskState::Failed => "failed",
            TaskState::Shutdown => "shutdown",
            TaskState::Rejected => "rejected",
            TaskState::Lost => "lost",
        }
    }

    /// May `to` (in attempt `to_attempt`) follow `self` (in attempt `from_attempt`)? An attempt
    /// runs before it is seen to end by itself; a task may be stopped, fail or get lost anywhere.
    pub fn may_become(self, from_attempt: u32, to: TaskState, to_attempt: u32) -> bool {
        use TaskState::{
            Accepted, Assigned, Backoff, Complete, Creating, Failed, Lost, Pending, Pulling,
            Rejected, Running, Shutdown, Starting, Stopping,
        };
        if self.is_terminal() {
            return false;
        }
        if to_attempt != from_attempt {
            let first = self == Assigned && from_attempt == 0 && to == Accepted;
            let next = self == Backoff && matches!(to, Pulling | Creating);
            return to_attempt == from_attempt + 1 && (first || next);
        }
        match to {
            Pending => false,
            Assigned => self == Pending,
            Accepted => self == Assigned,
            Pulling => self == Accepted,
            Creating => matches!(self, Accepted | Pulling),
            Starting => self == Creating,
            Running => self == Starting,
            Stopping => matches!(self, Accepted | Pulling | Creating | Starting | Running),
            Backoff => matches!(self, Pulling | Creating | Starting | Running),
            Complete => self == Running,
            Failed | Shutdown | Lost => true,
            Rejected => matches!(self, Assigned | Accepted | Pulling | Creating | Starting),
        }
    }

    /// May a report of `to` follow one of `self`, each in its attempt? Besides the moves of
    /// [`Self::may_become`], a running task changes its readiness, and one that waits for its
    /// image says why.
    pub fn may_report(self, from_attempt: u32, to: TaskState, to_attempt: u32) -> bool {
        let says_more = matches!(self, TaskState::Pulling | TaskState::Running)
            && (self, from_attempt) == (to, to_attempt);
        says_more || self.may_become(from_attempt, to, to_attempt)
    }
}

impl std::fmt::Display for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a task failed, was rejected or waits. The first twelve are plfm's reason codes as they
/// apply to containers; the rest belong to states of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The image could not be fetched.
    ImagePullFailed,
    /// The container could not be created from its image.
    RootfsBuildFailed,
    /// The runtime could not start the process.
    RuntimeStartFailed,
    /// The network or a port could not be set up.
    NetworkSetupFailed,
    /// A volume could not be attached.
    VolumeAttachFailed,
    /// A required secret does not exist.
    SecretsMissing,
    /// A secret could not be handed over.
    SecretsInjectionFailed,
    /// Too many unhealthy verdicts in a row.
    HealthcheckFailed,
    /// The kernel killed it for memory.
    OomKilled,
    /// The restart budget is spent.
    CrashLoopBackoff,
    /// An operator stopped, scaled down or deleted it.
    TerminatedByOperator,
    /// Its node is being emptied.
    NodeDraining,
    /// It exited with a code other than zero.
    ExitedNonZero,
    /// It exited with zero where it should go on running.
    ExitedEarly,
    /// It ended and nobody can know how.
    ExitUnknown,
    /// The runtime no longer has its container.
    ContainerLost,
    /// Its node was declared down.
    NodeDown,
    /// No node satisfies its requirements now.
    Unschedulable,
    /// A newer generation replaced it.
    Superseded,
}

impl Reason {
    /// The snake_case name, as the twelve codes are spelt.
    pub fn name(self) -> &'static str {
        match self {
            Reason::ImagePullFailed => "image_pull_failed",
            Reason::RootfsBuildFailed => "rootfs_build_failed",
            Reason::RuntimeStartFailed => "runtime_start_failed",
            Reason::NetworkSetupFailed => "network_setup_failed",
            Reason::VolumeAttachFailed => "volume_attach_failed",
            Reason::SecretsMissing => "secrets_missing",
            Reason::SecretsInjectionFailed => "secrets_injection_failed",
            Reason::HealthcheckFailed => "healthcheck_failed",
            Reason::OomKilled => "oom_killed",
            Reason::CrashLoopBackoff => "crash_loop_backoff",
            Reason::TerminatedByOperator => "terminated_by_operator",
            Reason::NodeDraining => "node_draining",
            Reason::ExitedNonZero => "exited_non_zero",
            Reason::ExitedEarly => "exited_early",
            Reason::ExitUnknown => "exit_unknown",
            Reason::ContainerLost => "container_lost",
            Reason::NodeDown => "node_down",
            Reason::Unschedulable => "unschedulable",
            Reason::Superseded => "superseded",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Observed state of a task. One writer at a time: managers until `Assigned` and for `Lost`, the
/// task's agent in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Where it is.
    pub state: TaskState,
    /// Which attempt; 0 before the agent has accepted it.
    pub attempt: u32,
    /// Counts the agent's transitions of this task from 1; a manager applies each once, in order.
    pub sequence: u64,
    /// Running and, where there is a health check, healthy.
    pub ready: bool,
    /// Why, for failures and waits.
    pub reason: Option<Reason>,
    /// For a person.
    pub message: String,
    /// How the last attempt's process ended, written once per attempt.
    pub exit: Option<ExitStatus>,
}

impl TaskStatus {
    /// The status of a task that was just written down.
    pub fn pending() -> Self {
        TaskStatus {
            state: TaskState::Pending,
            attempt: 0,
            sequence: 0,
            ready: false,
            reason: None,
            message: String::new(),
            exit: None,
        }
    }
}

/// What managers want of a task. Only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DesiredState {
    /// Run.
    Running,
    /// Stop, keep the record.
    Shutdown,
    /// Stop and forget.
    Removed,
}

/// What an operator wants of a node. Written by operators only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Availability {
    /// May be given tasks.
    Active,
    /// Keep what it has, give it nothing.
    Pause,
    /// Move its tasks away.
    Drain,
}

/// What the leader observed of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeStatus {
    /// Registered and heard of in time.
    Ready,
    /// Not heard of for `node_down_after`.
    Down,
}

/// Where a service's rollout is. Replicated, so that it survives a leader change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutState {
    /// Tasks of the newest generation replace older ones.
    Updating,
    /// All wanted tasks are of the newest generation and ready.
    Completed,
    /// Stopped half-way until an operator acts.
    Paused,
    /// Going back to the last completed generation.
    RollingBack,
    /// Back at the last completed generation.
    RolledBack,
}

#[cfg(test)]
mod tests {
    use super::TaskState::{
        Accepted, Assigned, Backoff, Complete, Failed, Pulling, Running, Starting,
    };

    #[test]
    fn an_attempt_runs_before_it_completes() {
        assert!(Running.may_become(1, Complete, 1));
        assert!(!Starting.may_become(1, Complete, 1));
    }

    #[test]
    fn only_backoff_leads_to_the_next_attempt() {
        assert!(Backoff.may_become(1, Pulling, 2));
        assert!(!Backoff.may_become(1, Pulling, 3));
        assert!(!Running.may_become(1, Pulling, 2));
        assert!(Assigned.may_become(0, Accepted, 1));
    }

    #[test]
    fn only_what_pulls_or_runs_says_more_without_moving() {
        assert!(Pulling.may_report(1, Pulling, 1) && Running.may_report(2, Running, 2));
        assert!(!Pulling.may_report(1, Pulling, 2) && !Starting.may_report(1, Starting, 1));
        assert!(Starting.may_report(1, Running, 1) && !Failed.may_report(1, Failed, 1));
    }

    #[test]
    fn nothing_follows_a_final_state() {
        for to in super::TaskState::ALL {
            assert!(!Failed.may_become(1, to, 1) && !Failed.may_become(1, to, 2));
        }
    }
}
