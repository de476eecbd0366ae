//! Every id is a newtype; ids that a person reads have a textual form that parses back.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use wavetank_port::ContainerId;

/// What a node is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// Replicates state and decides.
    Manager,
    /// Runs containers.
    Agent,
    /// Asks the managers for something: an operator's tool.
    Client,
}

impl NodeRole {
    /// The name that prefixes node ids.
    pub fn name(self) -> &'static str {
        match self {
            NodeRole::Manager => "manager",
            NodeRole::Agent => "agent",
            NodeRole::Client => "client",
        }
    }
}

/// A node's identity, given at join and kept for life. Reads `manager-1`, `agent-12`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// What it is.
    pub role: NodeRole,
    /// Counted from 1 within the role.
    pub number: u32,
}

impl NodeId {
    /// The `number`-th manager.
    pub const fn manager(number: u32) -> Self {
        NodeId {
            role: NodeRole::Manager,
            number,
        }
    }
    /// The `number`-th agent.
    pub const fn agent(number: u32) -> Self {
        NodeId {
            role: NodeRole::Agent,
            number,
        }
    }
    /// The `number`-th client.
    pub const fn client(number: u32) -> Self {
        NodeId {
            role: NodeRole::Client,
            number,
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.role.name(), self.number)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not an id of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct ParseIdError {
    /// What was given.
    pub text: String,
    /// What was wanted, with an example.
    pub wanted: &'static str,
}

impl FromStr for NodeId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = || ParseIdError {
            text: text.to_owned(),
            wanted: "a node name such as `agent-2`",
        };
        let (role, number) = text.rsplit_once('-').ok_or_else(error)?;
        let role = match role {
            "manager" => NodeRole::Manager,
            "agent" => NodeRole::Agent,
            "client" => NodeRole::Client,
            _ => return Err(error()),
        };
        let number = parse_number(number).filter(|n| *n > 0).ok_or_else(error)?;
        Ok(NodeId { role, number })
    }
}

/// Digits only, without sign or leading zero, so that each id has one spelling.
fn parse_number<N: FromStr>(text: &str) -> Option<N> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
        && !text.is_empty();
    canonical.then(|| text.parse().ok()).flatten()
}

/// One unit of a service's work, bound to one node for life. Reads `task-17`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task-{}", self.0)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TaskId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.strip_prefix("task-")
            .and_then(parse_number)
            .map(TaskId)
            .ok_or_else(|| ParseIdError {
                text: text.to_owned(),
                wanted: "a task id such as `task-17`",
            })
    }
}

/// One attempt to run a task: one container. Reads `task-17.2`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// The task it runs.
    pub task: TaskId,
    /// Counted from 1; grows by one with every restart.
    pub attempt: u32,
}

impl InstanceId {
    /// The id of the instance's container: `task-17.2` runs in `wt-task-17.2`, so that an agent
    /// that lost its memory recognises its own containers.
    pub fn container_id(self) -> ContainerId {
        ContainerId(format!("wt-{self}"))
    }

    /// The instance that runs in a container, if the container is one of ours.
    pub fn of_container(container: &ContainerId) -> Option<Self> {
        container.0.strip_prefix("wt-")?.parse().ok()
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.task, self.attempt)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InstanceId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.rsplit_once('.')
            .and_then(|(task, attempt)| {
                Some(InstanceId {
                    task: task.parse().ok()?,
                    attempt: parse_number(attempt)?,
                })
            })
            .ok_or_else(|| ParseIdError {
                text: text.to_owned(),
                wanted: "an instance id such as `task-17.2`",
            })
    }
}

macro_rules! textual_serde {
    ($($id:ty),*) => {$(
        // A person reads the text; a binary log keeps it too, so that both stay one format.
        impl Serialize for $id {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
textual_serde!(NodeId, TaskId, InstanceId);

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                $name(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}

counters! {
    /// A leadership term of the managers. Commands of an older epoch are refused.
    Epoch,
    /// A position in the replicated log; the store's state after applying it.
    Revision,
    /// A version of a service's spec; grows with every update and rollback.
    Generation,
    /// One registration of one agent with one leader. Drawn by the leader; never reused.
    SessionId,
    /// Orders the holders of a lease; grows with every grant. A write with an older one is refused.
    FencingToken,
    /// One boot of a process: a restarted process has a larger one.
    Incarnation,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub std::sync::Arc<str>);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                $name(text.into())
            }
        }
    )*};
}

names! {
    /// A service's name, unique in the cluster while the service exists.
    ServiceName,
    /// What replicated workloads elect one of themselves for.
    LeaseName,
}

/// Identifies a client's request across retries, so that it takes effect once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Who asks.
    pub client: NodeId,
    /// Which boot of the asker.
    pub incarnation: Incarnation,
    /// Counted from 1 within the boot.
    pub sequence: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse_back() {
        for text in ["manager-1", "agent-5000", "client-3"] {
            assert_eq!(
                text.parse::<NodeId>().map(|id| id.to_string()).as_deref(),
                Ok(text)
            );
        }
        assert_eq!(
            "task-17.2".parse(),
            Ok(InstanceId {
                task: TaskId(17),
                attempt: 2
            })
        );
    }

    #[test]
    fn each_id_has_one_spelling() {
        for text in [
            "agent-01", "agent-+1", "agent-0", "agent-", "Agent-1", "agent-1 ", "task-1",
        ] {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
        for text in ["task-", "task--1", "task-017", "17"] {
            assert!(text.parse::<TaskId>().is_err(), "{text}");
        }
    }
}
