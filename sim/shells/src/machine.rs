//! One machine of a run: what is on it whether its process runs or not. Disk, clocks, containers
//! and identity outlive every boot; the simulator runs the boots.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rand_chacha::ChaCha8Rng;
use rand_core::Rng as _;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use wavetank_engine::build::build_clock;
use wavetank_engine::roster::Roster;
use wavetank_model::{Incarnation, Instant, NodeId, NodeRole, Operation};
use wavetank_node::identity::{Ca, Identity, IdentityError, LIFETIME, PrivateKey};
use wavetank_node::transport::AddressBook;
use wavetank_port::WallTime;
use wavetank_scenario::plan::Plan;
use wavetank_sim_runtime::{
    Pace, SharedClock, SharedRegistry, SimConfig, SimRuntime, Stepper, Truth,
};
use wavetank_trace::VirtualTime;
use wavetank_world::{LocalClock, Stream, random};

use crate::links::Cuts;
use crate::log::{Log, Said};
use crate::platter::Platter;

/// The port on which managers listen.
pub const PORT: u16 = 7000;

/// What all machines of a run share.
pub struct Common {
    /// The experiment.
    pub plan: Arc<Plan>,
    /// Who takes part.
    pub roster: Roster,
    /// The world's clock.
    pub pace: Arc<dyn Pace>,
    /// What is said.
    pub log: Arc<Log>,
    /// Who cannot reach whom.
    pub cuts: Cuts,
    /// Where the managers are.
    pub addresses: AddressBook,
}

impl Common {
    /// What a plan's machines share, by this clock.
    pub fn new(plan: &Plan, pace: Arc<dyn Pace>) -> Self {
        let roster = Roster::of(plan);
        let address = |id: NodeId| (id, format!("{id}:{PORT}"));
        Common {
            plan: Arc::new(plan.clone()),
            roster,
            log: Arc::new(Log::new(Arc::clone(&pace))),
            pace,
            cuts: Cuts::default(),
            addresses: roster.managers().map(address).collect(),
        }
    }
}

/// One machine.
pub struct Machine {
    /// Its node.
    pub id: NodeId,
    /// Its place in the roster.
    pub place: u32,
    /// What it shares with all others.
    pub common: Arc<Common>,
    /// Its disk.
    pub disk: Platter,
    /// Its containers, if it is an agent's.
    pub runtime: Option<Arc<SimRuntime>>,
    /// Who it is to the others.
    pub identity: Arc<Identity>,
    /// What its client is to ask, if it is a client's.
    pub questions: tokio::sync::Mutex<UnboundedReceiver<Operation>>,
    asker: UnboundedSender<Operation>,
    clock: SharedClock,
    retimed: Notify,
    entropy: Mutex<ChaCha8Rng>,
    incarnation: AtomicU64,
    seasoned: AtomicBool,
}

impl Machine {
    /// The id of its process's present or last boot.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.load(Ordering::Relaxed))
    }

    /// Another boot begins.
    pub fn begin_boot(&self, incarnation: Incarnation) {
        self.incarnation.store(incarnation.0, Ordering::Relaxed);
    }

    /// False once, for its first boot ever: an empty disk later on means that it was wiped.
    pub fn season(&self) -> bool {
        self.seasoned.swap(true, Ordering::Relaxed)
    }

    /// Says something, now.
    pub fn say(&self, said: Said) {
        self.common.log.say(self.place, said);
    }

    /// Asks its client for something.
    pub fn ask(&self, operation: Operation) {
        // The receiver is a field of this machine.
        let _ = self.asker.send(operation);
    }

    fn clock(&self) -> std::sync::MutexGuard<'_, LocalClock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its monotonic clock.
    pub fn now(&self) -> Instant {
        let now = self.common.pace.now();
        self.clock().monotonic(now)
    }

    /// Its wall clock.
    pub fn wall(&self) -> WallTime {
        let now = self.common.pace.now();
        self.clock().wall(now)
    }

    /// Comes back when its monotonic clock shows `at`, however that clock runs.
    pub async fn sleep_until(&self, at: Instant) {
        if at == Instant::NEVER {
            return std::future::pending().await;
        }
        loop {
            let retimed = self.retimed.notified();
            let now = self.common.pace.now();
            let due = self.clock().when(at);
            if due <= now {
                return;
            }
            tokio::select! {
                biased;
                () = retimed => {}
                () = self.common.pace.sleep(due.since(now)) => {}
            }
        }
    }

    /// Random bytes of its own.
    pub fn entropy(&self, bytes: &mut [u8]) {
        let mut entropy = self.entropy.lock().unwrap_or_else(PoisonError::into_inner);
        entropy.fill_bytes(bytes);
    }

    /// Does something to its clocks.
    pub fn set_clock(&self, change: impl FnOnce(&mut LocalClock, VirtualTime)) {
        let now = self.common.pace.now();
        change(&mut self.clock(), now);
        self.retimed.notify_waiters();
    }
}

/// All machines of a plan, in the order of their places.
pub fn build_machines(
    common: &Arc<Common>,
    registry: &SharedRegistry,
) -> Result<Vec<Arc<Machine>>, IdentityError> {
    let seed = common.plan.seed;
    let born = LocalClock::new(0).wall(VirtualTime::ZERO);
    let authority = Ca::create(key(seed, "authority"), born)?;
    (0..)
        .zip(common.roster.nodes())
        .map(|(place, id)| {
            let name = id.to_string();
            let identity = authority.mint(id, key(seed, &name), born, LIFETIME)?;
            Ok(Arc::new(build_machine(
                common, registry, place, id, identity,
            )))
        })
        .collect()
}

fn build_machine(
    common: &Arc<Common>,
    registry: &SharedRegistry,
    place: u32,
    id: NodeId,
    identity: Identity,
) -> Machine {
    let (seed, name) = (common.plan.seed, id.to_string());
    let clock = Arc::new(Mutex::new(build_clock(seed, id)));
    let log = Arc::clone(&common.log);
    let hit = Arc::new(move |fault| log.say(place, Said::Hit(fault)));
    let is_agent = id.role == NodeRole::Agent;
    let runtime = is_agent.then(|| build_runtime(common, registry, place, id, &clock));
    let (asker, questions) = mpsc::unbounded_channel();
    Machine {
        id,
        place,
        common: Arc::clone(common),
        disk: Platter::new(Stream::new(seed, &name, "disk"), hit),
        runtime,
        identity: Arc::new(identity),
        questions: tokio::sync::Mutex::new(questions),
        asker,
        clock,
        retimed: Notify::new(),
        entropy: Mutex::new(random::generator(seed, &name, "process")),
        incarnation: AtomicU64::new(0),
        seasoned: AtomicBool::new(false),
    }
}

fn build_runtime(
    common: &Arc<Common>,
    registry: &SharedRegistry,
    place: u32,
    id: NodeId,
    clock: &SharedClock,
) -> Arc<SimRuntime> {
    let config = SimConfig {
        node: id,
        seed: common.plan.seed,
        latency: common.plan.cluster.runtime_latency,
        event_delay: common.plan.cluster.event_delay,
        steps: common.plan.cluster.runtime_steps.clone(),
        interpreter: None,
    };
    let log = Arc::clone(&common.log);
    let truths = Arc::new(move |at: VirtualTime, truth| {
        let said = match truth {
            Truth::Happened(payload) => Said::Event(payload),
            Truth::Hit(fault) => Said::Hit(fault),
        };
        log.say_at(at, place, said);
    });
    let stepper = Stepper {
        clock: Arc::clone(clock),
        pace: Arc::clone(&common.pace),
        truths: Some(truths),
        rearm: common.log.bell(),
    };
    Arc::new(SimRuntime::stepped(&config, Arc::clone(registry), stepper))
}

fn key(seed: u64, entity: &str) -> PrivateKey {
    let mut bytes = [0; 32];
    random::generator(seed, entity, "identity").fill_bytes(&mut bytes);
    PrivateKey::from_seed(bytes)
}
