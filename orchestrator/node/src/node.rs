//! Puts a node together: its disk, its place in the network, its runtime and its process.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc;
use wavetank_core::{
    Agent, AgentConfig, Boot, Client, ClientConfig, Manager, ManagerConfig, Process,
};
use wavetank_model::{NodeId, Resources, Timers};
use wavetank_port::ContainerRuntime;

use crate::calls::Calls;
use crate::driver::{DriveError, Shell, Submission, drive};
use crate::journal::{Journal, JournalError};
use crate::logs::LogSource;
use crate::observer::Observer;
use crate::platform::Platform;
use crate::transport::{Transport, TransportConfig, TransportError};

/// What any node needs.
pub struct Seat<P: Platform> {
    /// The machine.
    pub platform: P,
    /// The orchestrator's timers; every node of a cluster should have the same.
    pub timers: Timers,
    /// Its place in the network: who it is there, and in which of its boots (see
    /// [`Journal::begin_boot`]).
    pub network: TransportConfig,
    /// Who is told what it does.
    pub observer: Arc<dyn Observer>,
}

/// What an agent has besides.
pub struct AgentParts {
    /// What it has to offer.
    pub resources: Resources,
    /// What it is like.
    pub labels: BTreeMap<String, String>,
    /// Where its containers run.
    pub runtime: Arc<dyn ContainerRuntime>,
}

/// Why a node does not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// It cannot talk to others.
    #[error(transparent)]
    Transport(TransportError),
    /// Its records cannot be read.
    #[error("cannot read what this node knew")]
    Journal(#[source] JournalError),
    /// Its records contradict each other: the remedy is an empty disk.
    #[error("the disk cannot be trusted: {0}")]
    Disk(String),
    /// It ran and cannot go on.
    #[error(transparent)]
    Drive(DriveError),
}

/// Runs a manager until `stop` comes back. `boot` counts only if the journal is empty.
pub async fn run_manager<P: Platform>(
    seat: Seat<P>,
    journal: Journal,
    boot: Boot,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let mut rng = seat.platform.rng();
    let stored = journal.read().map_err(NodeError::Journal)?;
    let config = ManagerConfig {
        id: seat.network.identity.node(),
        incarnation: seat.network.incarnation,
        boot,
        timers: seat.timers.clone(),
    };
    let now = seat.platform.now();
    let manager = Manager::start(config, stored, now, &mut rng).map_err(NodeError::Disk)?;
    let parts = Parts {
        journal: Some(journal),
        ..Parts::default()
    };
    run(seat, Box::new(manager), parts, rng, stop).await
}

/// Runs an agent until `stop` comes back. Its containers run on.
pub async fn run_agent<P: Platform>(
    seat: Seat<P>,
    journal: Journal,
    agent: AgentParts,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let mut rng = seat.platform.rng();
    let stored = journal.read().map_err(NodeError::Journal)?;
    seat.observer.recovered(&stored);
    let config = AgentConfig {
        id: seat.network.identity.node(),
        incarnation: seat.network.incarnation,
        managers: managers_of(&seat),
        resources: agent.resources,
        labels: agent.labels,
        timers: seat.timers.clone(),
    };
    let now = seat.platform.now();
    let process = Agent::start(config, stored, now, &mut rng).map_err(NodeError::Disk)?;
    let parts = Parts {
        journal: Some(journal),
        runtime: Some(agent.runtime),
        ..Parts::default()
    };
    run(seat, Box::new(process), parts, rng, stop).await
}

/// Runs a client until `stop` comes back; it asks what comes through `submissions`.
pub async fn run_client<P: Platform>(
    seat: Seat<P>,
    submissions: mpsc::Receiver<Submission>,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let mut rng = seat.platform.rng();
    let config = ClientConfig {
        id: seat.network.identity.node(),
        incarnation: seat.network.incarnation,
        managers: managers_of(&seat),
        timers: seat.timers.clone(),
    };
    let client = Client::start(config, seat.platform.now(), &mut rng);
    let parts = Parts {
        submissions: Some(submissions),
        ..Parts::default()
    };
    run(seat, Box::new(client), parts, rng, stop).await
}

/// What only some nodes have.
#[derive(Default)]
struct Parts {
    journal: Option<Journal>,
    runtime: Option<Arc<dyn ContainerRuntime>>,
    submissions: Option<mpsc::Receiver<Submission>>,
}

async fn run<P: Platform>(
    seat: Seat<P>,
    process: Box<dyn Process>,
    parts: Parts,
    rng: ChaCha8Rng,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let Seat {
        platform,
        timers,
        network,
        observer,
    } = seat;
    let (id, incarnation) = (network.identity.node(), network.incarnation);
    let started = Transport::start(platform.clone(), network).await;
    let (transport, arrivals) = started.map_err(NodeError::Transport)?;
    observer.connected(&transport);
    if let Some(runtime) = &parts.runtime {
        transport.answer_with(Arc::new(LogSource {
            platform: platform.clone(),
            runtime: Arc::clone(runtime),
            within: timers.runtime_timeout,
        }));
    }
    let calls = parts
        .runtime
        .map(|runtime| Calls::start(platform.clone(), runtime, timers, Arc::clone(&observer)));
    let shell = Shell {
        platform,
        id,
        incarnation,
        transport,
        arrivals,
        journal: parts.journal,
        calls,
        submissions: parts.submissions,
        observer,
        rng,
    };
    drive(process, shell, stop).await.map_err(NodeError::Drive)
}

fn managers_of<P: Platform>(seat: &Seat<P>) -> Vec<NodeId> {
    let managers = seat.network.addresses.iter();
    managers.map(|(manager, _)| manager).collect()
}
