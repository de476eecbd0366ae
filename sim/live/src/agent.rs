//! An agent's host as seen by the run: the runtime that its node uses, what stands between the two,
//! and who looks at the runtime from outside.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wavetank_fixtures::call_proxy::Protocol;
use wavetank_fixtures::{CallProxy, CallRuleId};
use wavetank_model::NodeId;
use wavetank_node::config::RuntimeKind;
use wavetank_port::{ContainerId, RuntimeError, WallTime};
use wavetank_scenario::plan::{Action, Plan};

use crate::calls::{ChaosRules, Means, means};
use crate::log::{Log, Said};
use crate::room::{DaemonKind, OciRuntime, Room, RoomError};
use crate::truth::{self, Observer, Source};

/// The OCI runtime below everything.
const OCI_RUNTIME: &str = "runc";
/// Longest that a daemon that answers may take to show that it is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an agent's host cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its host or daemon fails.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// Nothing can be put between node and runtime.
    #[error("cannot stand between {node} and its runtime")]
    Between {
        /// Whose.
        node: NodeId,
        /// Why not.
        source: io::Error,
    },
    /// Nobody can look at its runtime.
    #[error("cannot look at the runtime of {node}")]
    Observe {
        /// Whose.
        node: NodeId,
        /// Why not.
        source: RuntimeError,
    },
    /// Its name is none that a runtime takes.
    #[error("cannot look at the runtime of {node}")]
    Name {
        /// Whose.
        node: NodeId,
        /// Why not.
        source: wavetank_podman::ConfigError,
    },
}

/// How a node reaches its runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// What it runs containers with.
    pub kind: RuntimeKind,
    /// What stands before the daemon's socket, or the OCI runtime's binary.
    pub socket: PathBuf,
    /// What separates its containers from others'.
    pub namespace: String,
}

/// What can do wrong to a node's calls: a proxy before the daemon, if there is one, and an OCI
/// runtime below the daemon or the adapter.
#[derive(Debug)]
struct Between {
    proxy: Option<CallProxy>,
    chaos: ChaosRules,
}

/// A fault of the runtime that is in force.
#[derive(Debug)]
enum Rule {
    Proxy(CallRuleId),
    Chaos(String),
}

/// What may run containers in runc's place.
#[derive(Clone, Copy, Debug)]
pub struct Below<'a> {
    /// The chaos runtime when it is called by that name.
    pub program: &'a Path,
    /// Whether a fault of the plan is its to do. Without, daemons run runc itself: every call costs
    /// another program's start.
    pub is_needed: bool,
}

impl<'a> Below<'a> {
    /// For the faults of a plan.
    pub fn of(plan: &Plan, kind: RuntimeKind, program: &'a Path) -> Self {
        let is_its = |action: &Action| matches!(means(action, kind, 1), Ok(Means::Chaos(_)));
        Below {
            program,
            is_needed: plan.faults.iter().any(|fault| is_its(&fault.action)),
        }
    }
}

/// An agent's side that is not the node.
pub struct Agent {
    /// How the node is to reach its runtime.
    pub attachment: Attachment,
    /// Who looks at it.
    pub observer: Observer,
    between: Between,
    rules: BTreeMap<u32, Rule>,
}

impl Agent {
    /// Gives a host its runtime. `home` is the node's folder there; `below` is the chaos runtime.
    ///
    /// # Errors
    /// If the machine fails us.
    pub async fn place(
        node: NodeId,
        kind: RuntimeKind,
        room: &Room,
        home: &Path,
        below: Below<'_>,
        log: Log,
    ) -> Result<Self, AgentError> {
        let name = node.to_string();
        let namespace = room.runtime_namespace(&name)?;
        let folder = room.folder(&name)?;
        // It finds its rules by the path by which it is called: each host has its own.
        let link = folder.join(wavetank_oci::chaos::PROGRAM);
        let linked = std::os::unix::fs::symlink(below.program, &link);
        linked.map_err(|source| AgentError::Between { node, source })?;
        let chaos = ChaosRules::beside(&link, Path::new(OCI_RUNTIME));
        let (socket, proxy, source): (PathBuf, _, Arc<dyn Source>) = match kind {
            RuntimeKind::Oci => {
                room.claim_cgroup(
                    &wavetank_node::serve::oci_config(home, PathBuf::new()).cgroup(),
                )?;
                (link, None, truth::oci(home))
            }
            RuntimeKind::Containerd | RuntimeKind::Podman => {
                let oci_runtime = match below.is_needed {
                    true => OciRuntime::At(link),
                    false => OciRuntime::Runc,
                };
                let (own, proxy) = daemon(node, kind, oci_runtime, room, &folder).await?;
                let source = look(node, kind, &own, &namespace, home).await?;
                (proxy.path().to_owned(), Some(proxy), source)
            }
        };
        let sink = move |told: truth::Told| {
            log.say(WallTime(told.at), Some(node), Said::Event(told.payload));
        };
        let no_volumes = Box::new(|_: &_| Vec::new());
        Ok(Agent {
            attachment: Attachment {
                kind,
                socket,
                namespace,
            },
            observer: Observer::start(source, no_volumes, Box::new(sink)),
            between: Between { proxy, chaos },
            rules: BTreeMap::new(),
        })
    }

    /// What the runtime calls a container's monitor.
    pub fn monitor_of(&self, container: &ContainerId) -> String {
        match self.attachment.kind {
            RuntimeKind::Podman => format!("{}.{container}", self.attachment.namespace),
            RuntimeKind::Containerd | RuntimeKind::Oci => container.to_string(),
        }
    }

    /// Puts a fault of the runtime into force. One that cannot be is never asked for (`unable`).
    pub fn strike(&mut self, fault: u32, action: &Action, speed: u32) -> Result<(), String> {
        let Between { proxy, chaos } = &mut self.between;
        let means = means(action, self.attachment.kind, speed).map_err(|it| it.to_string())?;
        let rule = match (means, proxy) {
            (Means::Proxy(rule), Some(proxy)) => Rule::Proxy(proxy.add_rule(rule)),
            (Means::Proxy(_), None) => return Err("no proxy stands before it".to_owned()),
            (Means::Chaos(rules), _) => {
                let added = chaos.add(&rules);
                Rule::Chaos(added.map_err(|it| format!("rules of the chaos runtime: {it}"))?)
            }
        };
        self.rules.insert(fault, rule);
        Ok(())
    }

    /// Takes it back; true if it had met any call.
    pub fn relieve(&mut self, fault: u32) -> bool {
        let Between { proxy, chaos } = &mut self.between;
        match self.rules.remove(&fault) {
            Some(Rule::Proxy(rule)) => {
                let hits = proxy.as_mut().and_then(|proxy| proxy.remove_rule(rule));
                hits.is_some_and(|hits| hits > 0)
            }
            Some(Rule::Chaos(name)) => {
                if let Err(error) = chaos.remove(&name) {
                    tracing::warn!(%error, "the rules of the chaos runtime cannot be written");
                }
                chaos.hits(&name).is_ok_and(|hits| hits > 0)
            }
            None => false,
        }
    }

    /// The faults that have met calls.
    pub fn hits(&self) -> impl Iterator<Item = u32> + '_ {
        let Between { proxy, chaos } = &self.between;
        let met = |rule: &Rule| match rule {
            Rule::Proxy(rule) => proxy.as_ref().and_then(|it| it.hits(*rule)).unwrap_or(0) > 0,
            Rule::Chaos(name) => chaos.hits(name).unwrap_or(0) > 0,
        };
        let rules = self.rules.iter();
        rules
            .filter(move |(_, rule)| met(rule))
            .map(|(fault, _)| *fault)
    }
}

/// Starts the daemon and what stands before it.
async fn daemon(
    node: NodeId,
    kind: RuntimeKind,
    oci_runtime: OciRuntime,
    room: &Room,
    folder: &Path,
) -> Result<(PathBuf, CallProxy), AgentError> {
    let (daemon, protocol) = match kind {
        RuntimeKind::Podman => (DaemonKind::Podman, Protocol::Podman),
        _ => (DaemonKind::Containerd, Protocol::Containerd),
    };
    let name = node.to_string();
    room.start_daemon(&name, daemon, oci_runtime).await?;
    let own = room.daemon_socket(&name).await?;
    let proxy = CallProxy::start(&folder.join("calls.sock"), &own, protocol).await;
    let proxy = proxy.map_err(|source| AgentError::Between { node, source })?;
    Ok((own, proxy))
}

/// Somebody who looks at a daemon without anything in between.
async fn look(
    node: NodeId,
    kind: RuntimeKind,
    socket: &Path,
    namespace: &str,
    home: &Path,
) -> Result<Arc<dyn Source>, AgentError> {
    match kind {
        RuntimeKind::Podman => {
            truth::podman(socket, namespace).map_err(|source| AgentError::Name { node, source })
        }
        _ => {
            let source = truth::containerd(socket, namespace, home, CONNECT_TIMEOUT).await;
            source.map_err(|source| AgentError::Observe { node, source })
        }
    }
}
