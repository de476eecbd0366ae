//! The state machine with its clock, and the task that wakes it.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use wavetank_model::NodeId;
use wavetank_port::{ErrorClass, RuntimeCommand, RuntimeError, RuntimeEvent, RuntimeReply};
use wavetank_scenario::plan::{Range, RuntimeSteps};
use wavetank_trace::{Payload, VirtualTime};
use wavetank_world::{
    Interpreter, LocalClock, Output, PortCommand, Registry, Runtime, RuntimeConfig, Stream,
};

use crate::pace::{Pace, TokioPace};

/// The registry that several machines pull from.
pub type SharedRegistry = Arc<Mutex<Registry>>;

/// A machine's clocks, which it shares with whatever else runs on it.
pub type SharedClock = Arc<Mutex<LocalClock>>;

/// What only the world knows.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "taken up at once, never kept; a box would be in everyone's way"
)]
pub enum Truth {
    /// Something happened to a container.
    Happened(Payload),
    /// A fault had a part in something.
    Hit(u32),
}

/// Told the truth, in the order in which it happens.
pub type TruthSink = Arc<dyn Fn(VirtualTime, Truth) + Send + Sync>;

/// How time passes for a runtime, and who is told what happens meanwhile.
pub struct Stepper {
    /// The clocks of its machine.
    pub clock: SharedClock,
    /// The world's clock.
    pub pace: Arc<dyn Pace>,
    /// Who is told the truth.
    pub truths: Option<TruthSink>,
    /// Told when there may be something to do earlier than before.
    pub rearm: Arc<Notify>,
}

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
    /// Steps that take what was measured instead; measured events keep their order.
    pub steps: RuntimeSteps,
    /// What containers' commands mean; `None`: nothing, the image alone decides.
    pub interpreter: Option<Interpreter>,
}

/// A simulated container runtime. Dropping it ends its driver; streams that it gave end then.
pub struct SimRuntime {
    pub(crate) shared: Arc<Shared>,
    driver: Option<JoinHandle<()>>,
}

/// What the runtime's face, its streams and its driver share.
pub(crate) struct Shared {
    state: Mutex<State>,
    registry: SharedRegistry,
    stepper: Stepper,
    /// Something happened that a stream may wait for.
    pub news: Notify,
    pub interpreter: Option<Interpreter>,
}

pub(crate) struct State {
    pub world: Runtime,
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
        let stepper = Stepper {
            clock: Arc::new(Mutex::new(LocalClock::new(0))),
            pace: Arc::new(TokioPace::new()),
            truths: None,
            rearm: Arc::new(Notify::new()),
        };
        let mut runtime = SimRuntime::stepped(config, registry, stepper);
        let shared = &runtime.shared;
        let driver = drive(Arc::downgrade(shared), Arc::clone(&shared.stepper.rearm));
        runtime.driver = Some(tokio::spawn(driver));
        runtime
    }

    /// A runtime that does only what is due when it is stepped: whoever steps it decides how time
    /// passes, and it outlives whatever asks it.
    pub fn stepped(config: &SimConfig, registry: SharedRegistry, stepper: Stepper) -> Self {
        let stream = Stream::new(config.seed, &config.node.to_string(), "runtime");
        let mut world = Runtime::new(
            RuntimeConfig {
                node: config.node,
                latency: config.latency,
                event_delay: config.event_delay,
                steps: config.steps.clone(),
            },
            stream,
        );
        if let Some(interpreter) = config.interpreter {
            world.set_interpreter(interpreter);
        }
        let state = State {
            world,
            next_call: 0,
            waiting: BTreeMap::new(),
            events: VecDeque::new(),
            events_dropped: 0,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            registry,
            stepper,
            news: Notify::new(),
            interpreter: config.interpreter,
        });
        SimRuntime {
            shared,
            driver: None,
        }
    }

    /// Does everything that is due by `until`, each at its own time.
    pub fn step(&self, until: VirtualTime) {
        while self.next_deadline().is_some_and(|due| due <= until) {
            self.shared.turn(self.next_deadline().unwrap_or(until));
        }
    }

    /// When [`SimRuntime::step`] has something to do.
    pub fn next_deadline(&self) -> Option<VirtualTime> {
        self.shared.lock().world.next_deadline()
    }

    /// Does something to the simulated machine, such as a fault, at the present time.
    pub fn strike<T>(&self, blow: impl FnOnce(&mut Runtime, VirtualTime, &LocalClock) -> T) -> T {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        let clock = self.shared.clock();
        let result = blow(&mut state.world, now, &clock);
        drop(clock);
        self.shared.pump(now, &mut state);
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
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

/// Wakes the state machine whenever it has something to do, as long as it is there.
async fn drive(shared: Weak<Shared>, rearm: Arc<Notify>) {
    loop {
        let armed_anew = rearm.notified();
        let wait = match shared.upgrade() {
            Some(shared) => shared.turn(shared.now()).map(|due| shared.until(due)),
            None => return,
        };
        match wait {
            Some(due) => tokio::select! {
                biased;
                () = due => {}
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

    fn clock(&self) -> MutexGuard<'_, LocalClock> {
        self.stepper
            .clock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> VirtualTime {
        self.stepper.pace.now()
    }

    fn until(&self, due: VirtualTime) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.stepper.pace.sleep(due.since(self.now()))
    }

    /// Does what is due, and says when there is more to do.
    fn turn(&self, now: VirtualTime) -> Option<VirtualTime> {
        let mut state = self.lock();
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        state.world.wake(now, &self.clock(), &mut registry);
        drop(registry);
        let said = self.pump(now, &mut state);
        let due = state.world.next_deadline();
        drop(state);
        if said {
            self.news.notify_waiters();
        }
        due
    }

    /// Hands over what the state machine said. True if there was anything.
    fn pump(&self, now: VirtualTime, state: &mut State) -> bool {
        let said = state.world.has_output();
        for output in state.world.drain_output() {
            let truth = match output {
                Output::Reply { call, result } => {
                    state.answer(call, result);
                    continue;
                }
                Output::Event(event) => {
                    state.keep(event);
                    continue;
                }
                Output::Truth(payload) => Truth::Happened(payload),
                Output::Hit(fault) => Truth::Hit(fault),
            };
            if let Some(sink) = &self.stepper.truths {
                sink(now, truth);
            }
        }
        said
    }

    /// Something was changed from outside: the driver and the streams look again.
    fn stir(&self) {
        self.stepper.rearm.notify_one();
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
            self.pump(now, &mut state);
            number
        };
        self.stepper.rearm.notify_one();
        let caller = Caller {
            shared: self,
            number,
        };
        let lost = |_| {
            let words = "the connection was lost";
            Err(RuntimeError::new(ErrorClass::Unavailable, words))
        };
        let answer = tokio::select! {
            biased;
            answer = receiver => answer.unwrap_or_else(lost),
            () = self.stepper.pace.sleep(within) => Err(RuntimeError::new(
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
    fn answer(&mut self, call: u64, result: Answer) {
        if let Some(caller) = self.waiting.remove(&call) {
            // A caller that has just gone needs no answer.
            let _ = caller.send(result);
        }
    }

    fn keep(&mut self, event: RuntimeEvent) {
        self.events.push_back(event);
        if self.events.len() > EVENTS_KEPT {
            self.events.pop_front();
            self.events_dropped += 1;
        }
    }
}
