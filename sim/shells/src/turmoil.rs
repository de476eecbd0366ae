//! The shells' machines in turmoil: one simulated host each, stepped tick by tick.
//!
//! Within a tick turmoil runs its hosts one after the other; what happens between machines happens
//! between ticks. What turmoil has no word for is made of what it has:
//! - a cut in both directions *holds* segments, and delivers them when it heals, as TCP sends again
//!   what was lost (turmoil itself never does);
//! - a cut in one direction drops them; a stream that missed one stands still for good, and the
//!   shell has to notice;
//! - a connection across a cut waits instead of being refused at once;
//! - a power loss is a cut that holds the end of all connections, and then a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::FutureExt as _;
use turmoil::net::{TcpListener, TcpStream};
use turmoil::{Builder, Sim};
use wavetank_engine::{RunOptions, RunResult};
use wavetank_model::Instant;
use wavetank_node::{Platform, Task};
use wavetank_port::WallTime;
use wavetank_scenario::plan::{Action, Plan};
use wavetank_sim_runtime::Pace;
use wavetank_trace::{Event, VirtualTime};

use crate::life::live;
use crate::links::Links;
use crate::log::Said;
use crate::machine::Machine;
use crate::simulator::Simulator;
use crate::stage::Stage;
use crate::variant::Variant;
use crate::{RunError, peer_of, port_of};

/// How much time one step of turmoil takes. It scans all links for each host in each step, so
/// shorter ticks cost in proportion; timers of the shell are no shorter than this.
const TICK: Duration = Duration::from_millis(5);

/// Segments that a connection may have under way, and connections that may wait to be accepted:
/// turmoil panics when the latter are more.
const TCP_CAPACITY: usize = 4096;

/// Runs a plan.
///
/// # Errors
/// If the machines' certificates cannot be made.
///
/// # Panics
/// If the shell or turmoil does, with the seed.
pub fn run<V: Variant>(
    variant: &V,
    plan: &Plan,
    options: &RunOptions,
    sink: &mut dyn FnMut(&Event),
) -> Result<RunResult, RunError> {
    let pace = Arc::new(TurmoilPace::default());
    let mut stage = Stage::new(plan, options.keep, sink, pace.clone())?;
    let mut turmoil = Turmoil {
        variant: variant.clone(),
        sim: builder(plan).build(),
        machines: stage.machines().to_vec(),
        known: BTreeSet::new(),
        paths: BTreeMap::new(),
        links: Links::default(),
        latency: plan.cluster.latency.max,
    };
    stage.begin(&mut turmoil);
    let end = stage.end();
    loop {
        let now = VirtualTime::from_duration(turmoil.sim.elapsed()).min(end);
        pace.between_ticks.store(now.0, Ordering::Relaxed);
        stage.turn(now, &mut turmoil);
        if now >= end {
            return Ok(stage.finish());
        }
        if let Err(error) = turmoil.sim.step() {
            panic!("turmoil gave up at {now} (seed {}): {error}", plan.seed);
        }
    }
}

fn builder(plan: &Plan) -> Builder {
    let mut builder = Builder::new();
    builder
        .rng_seed(plan.seed)
        .epoch(UNIX_EPOCH)
        .tick_duration(TICK)
        .simulation_duration(Duration::MAX)
        .min_message_latency(plan.cluster.latency.min)
        .max_message_latency(plan.cluster.latency.max)
        .tcp_capacity(TCP_CAPACITY)
        .enable_random_order();
    builder
}

/// turmoil's clock, within ticks and between them.
#[derive(Default)]
struct TurmoilPace {
    between_ticks: AtomicU64,
}

impl Pace for TurmoilPace {
    fn now(&self) -> VirtualTime {
        match turmoil::sim_elapsed() {
            Some(elapsed) => VirtualTime::from_duration(elapsed),
            None => VirtualTime(self.between_ticks.load(Ordering::Relaxed)),
        }
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// One machine of turmoil, as the shell sees it.
#[derive(Clone)]
struct TurmoilPlatform {
    machine: Arc<Machine>,
}

impl Platform for TurmoilPlatform {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn listen(&self, address: &str) -> io::Result<TcpListener> {
        TcpListener::bind(("0.0.0.0", port_of(address)?)).await
    }

    fn local_address(&self, listener: &TcpListener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    async fn accept(&self, listener: &mut TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        listener.accept().await
    }

    async fn connect(&self, address: &str) -> io::Result<TcpStream> {
        let common = &self.machine.common;
        let peer = peer_of(address, common.roster)?;
        common.cuts.passable(self.machine.place, peer).await;
        TcpStream::connect(address).await
    }

    fn now(&self) -> Instant {
        self.machine.now()
    }

    fn wall(&self) -> WallTime {
        self.machine.wall()
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send {
        self.machine.sleep_until(at)
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Task {
        let task = tokio::spawn(confess(Arc::clone(&self.machine), future));
        Task::new(move || task.abort())
    }

    fn entropy(&self, bytes: &mut [u8]) {
        self.machine.entropy(bytes);
    }
}

/// Runs a future and says if it panics, which the executor would keep to itself.
async fn confess(machine: Arc<Machine>, future: impl Future<Output = ()>) {
    let Err(panic) = AssertUnwindSafe(future).catch_unwind().await else {
        return;
    };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let words = text.unwrap_or("a panic without message").to_owned();
    machine.say(Said::Panicked(words));
}

/// What turmoil does on a link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    Open,
    Held,
    /// Nothing gets from the first to the second.
    OneWay(u32, u32),
}

struct Turmoil<'a, V> {
    variant: V,
    sim: Sim<'a>,
    machines: Vec<Arc<Machine>>,
    /// Machines that turmoil has been told of.
    known: BTreeSet<u32>,
    /// What is not as usual, by pairs of which the first is the smaller.
    paths: BTreeMap<(u32, u32), Path>,
    links: Links,
    latency: Duration,
}

impl<V> Turmoil<'_, V> {
    fn name(&self, place: u32) -> String {
        self.machines[place as usize].id.to_string()
    }

    fn set_path(&mut self, pair: (u32, u32), wanted: Path) {
        let (a, b) = (self.name(pair.0), self.name(pair.1));
        let present = self.paths.get(&pair).copied().unwrap_or(Path::Open);
        if present == wanted {
            return;
        }
        match present {
            Path::Open => {}
            Path::Held => self.sim.release(a.as_str(), b.as_str()),
            Path::OneWay(from, to) => {
                let (from, to) = (self.name(from), self.name(to));
                self.sim.repair_oneway(from, to);
            }
        }
        match wanted {
            Path::Open => {}
            Path::Held => self.sim.hold(a, b),
            Path::OneWay(from, to) => {
                let (from, to) = (self.name(from), self.name(to));
                self.sim.partition_oneway(from, to);
            }
        }
        self.paths.insert(pair, wanted);
    }

    fn set_delay(&mut self, pair: (u32, u32), links: &Links) {
        let slow = |links: &Links| {
            let there = links.slow.get(&pair).copied().unwrap_or_default();
            let back = links.slow.get(&(pair.1, pair.0)).copied();
            there.max(back.unwrap_or_default())
        };
        let wanted = slow(links);
        if wanted != slow(&self.links) {
            let (a, b) = (self.name(pair.0), self.name(pair.1));
            self.sim.set_link_latency(a, b, self.latency + wanted);
        }
    }
}

impl<V: Variant> Simulator for Turmoil<'_, V> {
    fn unable(&self, action: &Action) -> Option<&'static str> {
        Some(match action {
            Action::Pause => "turmoil runs every host in every tick",
            Action::LinkLoss { .. } => "turmoil never sends a lost segment again",
            Action::LinkBandwidth { .. } => "turmoil has no bandwidth",
            _ => return None,
        })
    }

    fn start(&mut self, place: u32) {
        let name = self.name(place);
        if !self.known.insert(place) {
            self.sim.bounce(name);
            return;
        }
        let machine = Arc::clone(&self.machines[place as usize]);
        let variant = self.variant.clone();
        self.sim.host(name, move || {
            let (variant, machine) = (variant.clone(), Arc::clone(&machine));
            async move {
                let platform = TurmoilPlatform {
                    machine: Arc::clone(&machine),
                };
                live(variant, platform, machine).await;
                // The stage ends this host when it has read why.
                std::future::pending().await
            }
        });
        let links = self.links.clone();
        self.set_links(&links);
    }

    fn stop(&mut self, place: u32) {
        let name = self.name(place);
        self.sim.crash(name);
    }

    fn pause(&mut self, _place: u32) {}

    fn resume(&mut self, _place: u32) {}

    fn set_links(&mut self, links: &Links) {
        let known: Vec<u32> = self.known.iter().copied().collect();
        for (index, first) in known.iter().enumerate() {
            for second in &known[index + 1..] {
                let pair = (*first, *second);
                let there = links.cut.contains(&pair);
                let back = links.cut.contains(&(pair.1, pair.0));
                let path = match (there, back) {
                    (false, false) => Path::Open,
                    (true, true) => Path::Held,
                    (true, false) => Path::OneWay(pair.0, pair.1),
                    (false, true) => Path::OneWay(pair.1, pair.0),
                };
                self.set_path(pair, path);
                self.set_delay(pair, links);
            }
        }
        self.links = links.clone();
    }
}
