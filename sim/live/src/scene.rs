//! Everything that a run has on this machine: the room with its hosts, the nodes on them, their
//! runtimes and who looks at those, the registry and the clients. The stage says what is to become
//! of it; here it is done.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinSet;
use wavetank_engine::roster::Roster;
use wavetank_fixtures::Registry;
use wavetank_fixtures::registry::Authentication;
use wavetank_model::{NodeId, NodeRole, Operation};
use wavetank_node::config::RuntimeKind;
use wavetank_node::{Os, Platform as _};
use wavetank_port::{ContainerId, WallTime};
use wavetank_scenario::plan::{Action, Fault, Plan};
use wavetank_trace::{ExitCause, HostState};

use crate::agent::{Agent, AgentError, Below};
use crate::client::{Client, ClientParts};
use crate::cluster::{Cluster, ClusterError, Home};
use crate::gate::Gate;
use crate::images::{ImageError, LiveImages, RegistryFault};
use crate::log::{Log, Said};
use crate::pace::Pace;
use crate::process::last_words;
use crate::room::{Capabilities, HostConfig, Room, RoomConfig, RoomError, Running};
use crate::teller;
use crate::translation::Translation;
use crate::wall_clock::{self, WallClock};

/// The node's folder on its host's disk.
const NODE_FOLDER: &str = "node";
/// Longest that a node may take to end when it is asked to.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest that a cluster may take to find together on a loaded machine.
const GATHERING: Duration = Duration::from_secs(60);

/// Why a run has no verdict.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    /// The hosts cannot be had, or not be done to what should be.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// The nodes cannot be prepared.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The plan's images cannot be made.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// The registry cannot listen, or hosts cannot reach it.
    #[error("the registry cannot be had")]
    Registry(#[source] io::Error),
    /// A client cannot be started.
    #[error("{node} cannot be started")]
    Client {
        /// Which.
        node: NodeId,
        /// Why not.
        source: io::Error,
    },
    /// A clock cannot be set.
    #[error("the wall clock of {node} cannot be set")]
    Clock {
        /// Whose.
        node: NodeId,
        /// Why not.
        source: io::Error,
    },
    /// A runtime cannot be had.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The cluster has not found together.
    #[error(
        "after {within:?} the cluster has {members} managers and lacks the agents [{}]; \
         their logs are in the run's folder", without.join(", ")
    )]
    Apart {
        /// How long it had.
        within: Duration,
        /// How many managers there are.
        members: usize,
        /// Agents without a session.
        without: Vec<String>,
    },
}

/// What a run is to be made of.
#[derive(Clone, Debug)]
pub struct SceneConfig {
    /// A program that is the node when its first argument is `node`, and the chaos runtime when it
    /// is called by that name.
    pub program: PathBuf,
    /// What agents run containers with.
    pub runtime: RuntimeKind,
    /// How many of the plan's seconds pass in one.
    pub speed: u32,
    /// Where everything of the run is.
    pub directory: PathBuf,
    /// Whether that goes when the run is over.
    pub is_temporary: bool,
}

/// The disk of a host where disks are to fill up: it is in memory, and holds what the images of a
/// run take several times.
const SMALL_DISK_BYTES: u64 = 256 << 20;

struct Node {
    home: Home,
    process: Option<Running>,
}

/// The things of a run.
pub struct Scene {
    /// How long things take.
    pub pace: Pace,
    kind: RuntimeKind,
    program: PathBuf,
    translation: Arc<Translation>,
    cluster: Cluster,
    nodes: BTreeMap<NodeId, Node>,
    pub(crate) agents: BTreeMap<NodeId, Agent>,
    clients: BTreeMap<NodeId, Client>,
    pub(crate) clocks: BTreeMap<NodeId, Arc<WallClock>>,
    pub(crate) images: Arc<LiveImages>,
    pub(crate) registry: Registry,
    pub(crate) registry_faults: BTreeMap<u32, RegistryFault>,
    log: Log,
    // Dropping a set of tasks aborts them; gates and tellers end before their hosts.
    tasks: JoinSet<()>,
    gates: Vec<Gate>,
    plan: Plan,
    // Last: it takes everything with it.
    pub(crate) room: Room,
}

impl Scene {
    /// Makes all of it but the nodes' processes.
    ///
    /// # Errors
    /// If this machine cannot have it.
    pub async fn set(plan: &Plan, config: &SceneConfig, log: Log) -> Result<Self, SceneError> {
        let roster = Roster::of(plan);
        let fills_disks = |it: &Fault| matches!(it.action, Action::DiskFull);
        let small_disk_bytes = plan
            .faults
            .iter()
            .any(fills_disks)
            .then_some(SMALL_DISK_BYTES);
        let host = |id: NodeId| HostConfig {
            small_disk_bytes,
            ..HostConfig::named(&id.to_string())
        };
        let room = Room::open(RoomConfig {
            directory: config.directory.clone(),
            is_temporary: config.is_temporary,
            hosts: roster.nodes().map(host).collect(),
        })
        .await?;
        let pace = Pace {
            speed: config.speed.max(1),
            began: WallTime(u64::MAX),
        };
        let loopback = ([127, 0, 0, 1], 0).into();
        let registry = Registry::start(loopback, Authentication::Bearer).await;
        let registry = registry.map_err(SceneError::Registry)?;
        let images = Arc::new(LiveImages::publish(&plan.images, pace.speed, &registry)?);
        let translation = Arc::new(Translation::new(plan, pace, Arc::clone(&images)));
        let cluster = Cluster::new(plan, pace, config, &room)?;
        let mut scene = Scene {
            pace,
            kind: config.runtime,
            program: config.program.clone(),
            translation,
            cluster,
            nodes: BTreeMap::new(),
            agents: BTreeMap::new(),
            clients: BTreeMap::new(),
            clocks: BTreeMap::new(),
            images,
            registry,
            registry_faults: BTreeMap::new(),
            log,
            tasks: JoinSet::new(),
            gates: Vec::new(),
            plan: plan.clone(),
            room,
        };
        scene.fill(roster).await?;
        Ok(scene)
    }

    async fn fill(&mut self, roster: Roster) -> Result<(), SceneError> {
        for id in roster.nodes() {
            match id.role {
                NodeRole::Manager => {}
                NodeRole::Agent => self.add_agent(id).await?,
                NodeRole::Client => {
                    self.add_client(id)?;
                    continue;
                }
            }
            self.add_node(id)?;
        }
        Ok(())
    }

    fn add_node(&mut self, id: NodeId) -> Result<(), SceneError> {
        let name = id.to_string();
        let home = Home {
            folder: self.room.disk(&name)?.join(NODE_FOLDER),
            events: self.room.folder(&name)?.join("events.jsonl"),
        };
        self.cluster.settle(id, &home, id == NodeId::manager(1))?;
        let attachment = self.agents.get(&id).map(|agent| &agent.attachment);
        self.cluster.configure(id, &self.plan, &home, attachment)?;
        let (events, log) = (home.events.clone(), self.log.clone());
        let translation = Arc::clone(&self.translation);
        let library = wall_clock::library().filter(|_| wall_clock::is_wanted(&self.plan));
        let clock = WallClock::right(&self.room.folder(&name)?.join("clock"), library);
        let clock = Arc::new(clock.map_err(|source| SceneError::Clock { node: id, source })?);
        self.clocks.insert(id, Arc::clone(&clock));
        self.tasks
            .spawn(async move { teller::follow(id, &events, translation, clock, log).await });
        let process = None;
        self.nodes.insert(id, Node { home, process });
        Ok(())
    }

    async fn add_agent(&mut self, id: NodeId) -> Result<(), SceneError> {
        let name = id.to_string();
        let netns = self.room.netns(&name)?;
        let gate = Gate::open(&netns, self.registry.address()).await;
        self.gates.push(gate.map_err(SceneError::Registry)?);
        let home = self.room.disk(&name)?.join(NODE_FOLDER);
        let log = self.log.clone();
        let below = Below::of(&self.plan, self.kind, &self.program);
        let agent = Agent::place(id, self.kind, &self.room, &home, below, log).await?;
        self.agents.insert(id, agent);
        Ok(())
    }

    fn add_client(&mut self, id: NodeId) -> Result<(), SceneError> {
        let parts = ClientParts {
            node: id,
            identity: self.cluster.client(id)?,
            book: self.cluster.book().clone(),
            timers: self.cluster.timers().clone(),
            translation: Arc::clone(&self.translation),
            log: self.log.clone(),
        };
        let namespace = self.room.netns(&id.to_string())?;
        let client = Client::start(parts, &namespace);
        let client = client.map_err(|source| SceneError::Client { node: id, source })?;
        self.clients.insert(id, client);
        Ok(())
    }

    /// How long the cluster may take to find together.
    pub fn patience(&self) -> Duration {
        GATHERING
    }

    /// A node asks its runtime to stop a container.
    pub fn is_stopping(&self, node: NodeId, container: &ContainerId) {
        if let Some(agent) = self.agents.get(&node) {
            agent.observer.mark(container, ExitCause::Terminated);
        }
    }

    /// The plan's time begins.
    pub fn begin(&mut self, now: WallTime) {
        self.pace.began = now;
    }

    /// Has a client ask for something.
    pub fn ask(&self, client: NodeId, operation: &Operation) {
        if let Some(client) = self.clients.get(&client) {
            client.ask(operation.clone());
        }
    }

    /// Starts a node's process; on an emptied disk as who it was, with nothing else.
    pub async fn start(&mut self, id: NodeId, life: u64, emptied: bool) -> Result<(), SceneError> {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        if emptied {
            self.cluster.settle(id, &node.home, false)?;
        }
        let mut command = self.cluster.command(id, &node.home);
        if let Some(clock) = self.clocks.get(&id) {
            command = clock.over(command);
        }
        let running = self.room.spawn(&id.to_string(), "node", command)?;
        let (watched, log) = (running.clone(), self.log.clone());
        self.tasks.spawn(async move {
            let status = watched.wait().await;
            let why = last_words(status, watched.log());
            log.say(Os::new().wall(), Some(id), Said::Ended { life, why });
        });
        node.process = Some(running);
        Ok(())
    }

    /// Asks a node's process to end, and waits until it has.
    pub async fn exit(&mut self, id: NodeId) -> Result<(), SceneError> {
        self.end(id, Signal::TERM).await
    }

    /// Kills a node's process; containers go on.
    pub async fn kill(&mut self, id: NodeId) -> Result<(), SceneError> {
        self.end(id, Signal::KILL).await
    }

    async fn end(&mut self, id: NodeId, signal: Signal) -> Result<(), SceneError> {
        let process = self.nodes.get_mut(&id).and_then(|node| node.process.take());
        if let Some(process) = process {
            process.signal(signal);
            if tokio::time::timeout(EXIT_TIMEOUT, process.wait())
                .await
                .is_err()
            {
                process.signal(Signal::KILL);
                process.wait().await;
            }
        }
        Ok(())
    }

    /// Cuts a host's power; a wipe empties its disk as well.
    pub async fn cut_power(&mut self, id: NodeId, state: HostState) -> Result<(), SceneError> {
        let name = id.to_string();
        // First the node, then its containers: how any of them has ended is then told by the
        // runtime, which a moment later may write down an end that nobody else has seen.
        let process = self.nodes.get_mut(&id).and_then(|node| node.process.take());
        if let Some(process) = process {
            process.signal(Signal::STOP);
        }
        if let Some(agent) = self.agents.get(&id) {
            self.room.pause_containers(&name).await?;
            agent.observer.look_at_ends().await;
            agent.observer.power_lost(state == HostState::Wiped);
        }
        match state {
            HostState::Wiped => self.room.wipe(&name).await?,
            _ => self.room.power_off(&name).await?,
        }
        Ok(())
    }

    /// Gives a host its power back.
    pub async fn restore_power(&mut self, id: NodeId) -> Result<(), SceneError> {
        Ok(self.room.power_on(&id.to_string()).await?)
    }

    /// Freezes a host with everything on it.
    pub async fn pause(&self, id: NodeId) -> Result<(), SceneError> {
        Ok(self.room.pause(&id.to_string()).await?)
    }

    /// Lets a host go on.
    pub async fn resume(&self, id: NodeId) -> Result<(), SceneError> {
        Ok(self.room.resume(&id.to_string()).await?)
    }

    /// What agents run containers with.
    pub fn runtime(&self) -> RuntimeKind {
        self.kind
    }

    /// What can be done to links here.
    pub fn links(&self) -> Capabilities {
        self.room.capabilities()
    }

    /// Ends everything that might still say something.
    pub fn fall_silent(&mut self) {
        self.clients.clear();
        self.agents.clear();
    }

    /// Removes everything.
    pub async fn close(self) -> Result<(), SceneError> {
        let removed = self.room.close().await?;
        if !removed.is_complete() {
            tracing::warn!(%removed, "something is left; `wavetank doctor --sweep` tries again");
        }
        Ok(())
    }
}
