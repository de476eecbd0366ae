//! The state machine with its clock, and the task that wakes it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wavetank_model::NodeId;
use wavetank_port::{ErrorClass, RuntimeCommand, RuntimeError, RuntimeEvent, RuntimeReply};
use wavetank_scenario::plan::Range;
use wavetank_trace::VirtualTime;
use wavetank_world::{
    Interpreter, LocalClock, Output, PortCommand, Registry, Runtime, RuntimeConfig, Stream,
};

/// The registry that several machines pull from.
pub type SharedRegistry = Arc<Mutex<Registry>>;

/// Events kept for those who resume.
const EVENTS_KEPT: usize = 65_536;

/// What a simulated runtime is made with.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Its machine.
    pub node: NodeId,
    /// Of all its draws.
    pub seed: u64,
    /// Time a call takes.
    pub latency: Range,
    /// Delay of events. A real stream keeps the order of what it carries: so does this one if the
    /// range is a single value.
    pub event_delay: Range,
    /// What containers' commands mean; `None`: nothing, the image alone decides.
    pub interpreter: Option<Interpreter>,
}

/// A simulated container runtime. Dropping it ends its driver; streams that it gave end then.
pub struct SimRuntime {
    pub(crate) shared: Arc<Shared>,
    driver: JoinHandle<()>,
}

/// What the runtime's face, its streams and its driver share.
pub(crate) struct Shared {
    state: Mutex<State>,
    registry: SharedRegistry,
    /// Virtual time zero.
    origin: Instant,
    /// The driver's alarm may have to be set anew.
    rearm: Arc<Notify>,
    /// Something happened that a stream may wait for.
    pub news: Notify,
    pub interpreter: Option<Interpreter>,
}

pub(crate) struct State {
    pub world: Runtime,
    pub clock: LocalClock,
    next_call: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
    pub events: VecDeque<RuntimeEvent>,
    /// Events before the first of `events`.
    pub events_dropped: u64,
}

pub(crate) type Answer = Result<RuntimeReply, RuntimeError>;

/// A call of either kind.
pub(crate) enum Call {
    Command(RuntimeCommand),
    Port(PortCommand),
}

impl SimRuntime {
    /// A runtime without containers or images. Must be called within a tokio runtime, whose clock
    /// it lives by.
    pub fn new(config: &SimConfig, registry: SharedRegistry) -> Self {
        let stream = Stream::new(config.seed, &config.node.to_string(), "runtime");
        let mut world = Runtime::new(
            RuntimeConfig {
                node: config.node,
                latency: config.latency,
                event_delay: config.event_delay,
            },
            stream,
        );
        if let Some(interpreter) = config.interpreter {
            world.set_interpreter(interpreter);
        }
        let rearm = Arc::new(Notify::new());
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                world,
                clock: LocalClock::new(0),
                next_call: 0,
                waiting: BTreeMap::new(),
                events: VecDeque::new(),
                events_dropped: 0,
            }),
            registry,
            origin: Instant::now(),
            rearm: Arc::clone(&rearm),
            news: Notify::new(),
            interpreter: config.interpreter,
        });
        let driver = tokio::spawn(drive(Arc::downgrade(&shared), rearm));
        SimRuntime { shared, driver }
    }

    /// Does something to the simulated machine, such as a fault, at the present time.
    pub fn strike<T>(&self, blow: impl FnOnce(&mut Runtime, VirtualTime, &LocalClock) -> T) -> T {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        let State { world, clock, .. } = &mut *state;
        let result = blow(world, now, clock);
        state.pump();
        drop(state);
        self.shared.stir();
        result
    }

    /// Everybody who waits for an answer loses the connection.
    pub fn hang_up(&self) {
        self.shared.lock().waiting.clear();
    }
}

impl Drop for SimRuntime {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Wakes the state machine whenever it has something to do, as long as it is there.
async fn drive(shared: Weak<Shared>, rearm: Arc<Notify>) {
    loop {
        let armed_anew = rearm.notified();
        let due = match shared.upgrade() {
            Some(shared) => shared.turn(),
            None => return,
        };
        match due {
            Some(due) => tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = armed_anew => {}
            },
            None => armed_anew.await,
        }
    }
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> VirtualTime {
        VirtualTime::from_duration(self.origin.elapsed())
    }

    /// Does what is due, and says when there is more to do.
    fn turn(&self) -> Option<Instant> {
        let now = self.now();
        let mut state = self.lock();
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let State { world, clock, .. } = &mut *state;
        world.wake(now, clock, &mut registry);
        drop(registry);
        let said = state.pump();
        let due = state.world.next_deadline();
        drop(state);
        if said {
            self.news.notify_waiters();
        }
        due.map(|due| self.origin + Duration::from_nanos(due.0))
    }

    /// Something was changed from outside: the driver and the streams look again.
    fn stir(&self) {
        self.rearm.notify_one();
        self.news.notify_waiters();
    }

    /// Sends a call and waits for its answer.
    pub async fn call(&self, call: Call, within: Duration) -> Answer {
        self.numbered_call(call, within).await.1
    }

    /// As [`Shared::call`], with the call's number.
    pub async fn numbered_call(&self, call: Call, within: Duration) -> (u64, Answer) {
        let (sender, receiver) = oneshot::channel();
        let number = {
            let now = self.now();
            let mut state = self.lock();
            state.next_call += 1;
            let number = state.next_call;
            state.waiting.insert(number, sender);
            match call {
                Call::Command(command) => state.world.submit(now, number, command),
                Call::Port(command) => state.world.submit_port(now, number, command),
            }
            state.pump();
            number
        };
        self.rearm.notify_one();
        let caller = Caller {
            shared: self,
            number,
        };
        let answer = match tokio::time::timeout(within, receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(RuntimeError::new(
                ErrorClass::Unavailable,
                "the connection was lost",
            )),
            Err(_) => Err(RuntimeError::new(
                ErrorClass::DeadlineExceeded,
                format!("no answer within {within:?}"),
            )),
        };
        drop(caller);
        (number, answer)
    }
}

/// Somebody who waits for an answer; dropped before it came, the call is given up.
struct Caller<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.waiting.remove(&self.number).is_some() {
            state.world.cancel(self.number);
        }
    }
}

impl State {
    /// Hands over what the state machine said. True if there was anything.
    fn pump(&mut self) -> bool {
        let said = self.world.has_output();
        for output in self.world.drain_output() {
            match output {
                Output::Reply { call, result } => {
                    if let Some(caller) = self.waiting.remove(&call) {
                        // A caller that has just gone needs no answer.
                        let _ = caller.send(result);
                    }
                }
                Output::Event(event) => {
                    self.events.push_back(event);
                    if self.events.len() > EVENTS_KEPT {
                        self.events.pop_front();
                        self.events_dropped += 1;
                    }
                }
                // Truth and hits are for traces of runs, which are written by whoever steps them.
                Output::Truth(_) | Output::Hit(_) => {}
            }
        }
        said
    }
}
