//! Lifecycles while the runtime's daemon, monitors and processes are killed at drawn points.
//!
//! What is drawn is drawn from a seed: what each container does, what is killed, in which step and
//! how long into it. What is owed: every container is created, started, ends and can be deleted,
//! however often its caller has to ask; and it ends with its true exit code, or, where nobody can
//! know that, with an explicit unknown. That is so in two cases only:
//!
//! - Its monitor was killed. It alone is told by the kernel how the process ends; and containerd
//!   kills a container that has lost its monitor, Podman forgets it.
//! - It exits with 1, and the daemon was away during its start. A daemon's death cuts off the start
//!   under way, and the runtime's own process, which was to become the container's, ends with 1 as
//!   well. Where it leaves proof of that, the start is repeated. Where it leaves none, it cannot be
//!   told from a container's 1.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join;
use futures_util::{StreamExt as _, stream};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use tokio::sync::Mutex;
use wavetank_conformance::Arm;
use wavetank_fixtures::{Program, TestImage};
use wavetank_port::{
    ContainerId, ContainerSpec, ContainerStatus, ErrorClass, ExitCode, ListFilter, Network,
    PullRequest, RuntimeError, Signal,
};

/// The deadline of one call. A daemon that was killed is back long before.
const CALL: Duration = Duration::from_secs(10);
/// How long a call is repeated that the daemon's end may have met.
const INSIST: Duration = Duration::from_secs(60);
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// Lifecycles at the same time.
const WIDTH: usize = 4;

/// What may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// The daemon; it is started again after so long.
    Daemon(Duration),
    Monitor,
    Process,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Start,
    Wait,
    Delete,
}

/// One lifecycle, drawn.
#[derive(Clone, Debug)]
struct Plan {
    id: ContainerId,
    /// `None` runs until it is killed by the caller.
    exits: Option<(u64, u8)>,
    fault: Option<(Step, Duration, Victim)>,
}

/// How lifecycles went, for the reader of the test's output.
#[derive(Debug, Default)]
pub struct Tally {
    pub known: usize,
    /// After the monitor was killed.
    pub unknown: usize,
    /// Whose monitor was not.
    pub ambiguous: usize,
    pub daemon_kills: usize,
    pub monitor_kills: usize,
    pub process_kills: usize,
    /// What was owed and did not happen.
    pub broken: Vec<String>,
}

fn draw(rng: &mut ChaCha8Rng, below: u32) -> u32 {
    rng.next_u32() % below
}

fn plan(seed: u64, number: u32) -> Plan {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number.into());
    let milliseconds = |rng: &mut ChaCha8Rng, below| Duration::from_millis(draw(rng, below).into());
    // Half of them are 1, with which a runtime's own processes end when they fail.
    let code = match draw(&mut rng, 2) {
        0 => 1,
        _ => u8::try_from(draw(&mut rng, 100)).unwrap_or_default(),
    };
    let exits = (draw(&mut rng, 4) > 0).then(|| (u64::from(draw(&mut rng, 200)), code));
    let step = [Step::Create, Step::Start, Step::Wait, Step::Delete][draw(&mut rng, 4) as usize];
    let after = milliseconds(&mut rng, 60);
    let victim = match draw(&mut rng, 8) {
        0 => Some(Victim::Daemon(milliseconds(&mut rng, 300))),
        1 | 2 => Some(Victim::Monitor),
        3 | 4 => Some(Victim::Process),
        _ => None,
    };
    Plan {
        id: ContainerId(format!("storm-{number}")),
        exits,
        fault: victim.map(|victim| (step, after, victim)),
    }
}

/// What the lives share of the daemon.
#[derive(Default)]
struct Daemon {
    /// Killed by one at a time.
    alone: Mutex<()>,
    /// Counted up when it is killed and when it is back: odd while it is away.
    changes: AtomicUsize,
}

/// One lifecycle under way.
struct Life<'a> {
    arm: &'a dyn Arm,
    plan: Plan,
    daemon: &'a Daemon,
    /// The daemon was away during the start.
    start_disturbed: AtomicBool,
    monitor_killed: AtomicBool,
    process_killed: AtomicBool,
    daemon_killed: AtomicBool,
}

/// What one call should do about an error.
enum Then<T> {
    Done(T),
    Again,
    Fail,
}

impl Life<'_> {
    /// Does a step, and meanwhile what was drawn for it.
    async fn step<T>(&self, step: Step, work: impl Future<Output = T>) -> T {
        join(work, self.strike(step)).await.0
    }

    async fn strike(&self, step: Step) {
        let Some((when, after, victim)) = self.plan.fault else {
            return;
        };
        if when != step {
            return;
        }
        tokio::time::sleep(after).await;
        // A victim that is not there, yet or any more, is no hit.
        match victim {
            Victim::Daemon(down) => {
                let _alone = self.daemon.alone.lock().await;
                self.daemon.changes.fetch_add(1, Ordering::SeqCst);
                self.arm
                    .kill_daemon()
                    .await
                    .expect("the daemon can be killed");
                self.daemon_killed.store(true, Ordering::SeqCst);
                tokio::time::sleep(down).await;
                self.arm
                    .start_daemon()
                    .await
                    .expect("the daemon comes back");
                self.daemon.changes.fetch_add(1, Ordering::SeqCst);
            }
            Victim::Monitor => {
                let hit = self.arm.kill_monitor(&self.plan.id).await.is_ok();
                self.monitor_killed.fetch_or(hit, Ordering::SeqCst);
            }
            Victim::Process => {
                let hit = self.arm.kill_process(&self.plan.id).await.is_ok();
                self.process_killed.fetch_or(hit, Ordering::SeqCst);
            }
        }
    }

    /// Repeats a call until it answers, as any caller of a runtime must.
    async fn insist<T, F: Future<Output = Result<T, RuntimeError>>>(
        &self,
        what: &str,
        mut call: impl FnMut() -> F,
        judge: impl Fn(&RuntimeError) -> Then<T>,
    ) -> Result<T, String> {
        let begun = tokio::time::Instant::now();
        loop {
            let error = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match judge(&error) {
                Then::Done(answer) => return Ok(answer),
                Then::Fail => return Err(format!("{what}: {error}")),
                Then::Again if begun.elapsed() > INSIST => {
                    return Err(format!("{what}: not within {INSIST:?}: {error}"));
                }
                Then::Again => tokio::time::sleep(TRY_AGAIN).await,
            }
        }
    }

    async fn live(&self) -> Result<ExitCode, String> {
        self.create().await?;
        self.start().await?;
        let code = self.step(Step::Wait, self.end()).await?;
        self.check(code)?;
        self.step(Step::Delete, self.delete()).await?;
        Ok(code)
    }

    async fn create(&self) -> Result<(), String> {
        let runtime = self.arm.runtime();
        let program = match self.plan.exits {
            Some((after, code)) => Program::exit_after(after, code),
            None => Program::forever(),
        };
        let spec = ContainerSpec {
            command: program.command(),
            network: Network::None,
            ..ContainerSpec::of(
                self.plan.id.clone(),
                self.arm.images().image(TestImage::Tool),
            )
        };
        let judge = |error: &RuntimeError| match error.class {
            // An earlier try was done although it was not answered.
            ErrorClass::AlreadyExists => Then::Done(()),
            class => transient(class),
        };
        let create = self.insist("create", || runtime.create(&spec, CALL), judge);
        self.step(Step::Create, create).await
    }

    async fn start(&self) -> Result<(), String> {
        let runtime = self.arm.runtime();
        let id = &self.plan.id;
        let before = self.daemon.changes.load(Ordering::SeqCst);
        let judge = |error: &RuntimeError| match error.class {
            // The same: it runs, or has run.
            ErrorClass::FailedPrecondition => Then::Done(()),
            class => transient(class),
        };
        let start = async || runtime.start(id, CALL).await.map(drop);
        let insist = self.insist("start", start, judge);
        let started = self.step(Step::Start, insist).await;
        let after = self.daemon.changes.load(Ordering::SeqCst);
        let disturbed = before % 2 == 1 || before != after;
        self.start_disturbed.store(disturbed, Ordering::SeqCst);
        started
    }

    /// Lets it end, or ends it.
    async fn end(&self) -> Result<ExitCode, String> {
        let runtime = self.arm.runtime();
        let id = &self.plan.id;
        if self.plan.exits.is_none() {
            let judge = |error: &RuntimeError| match error.class {
                ErrorClass::NotFound => Then::Done(()),
                class => transient(class),
            };
            let kill = || runtime.kill(id, Signal::Kill, CALL);
            self.insist("kill", kill, judge).await?;
        }
        let wait = || runtime.wait(id, CALL);
        let exit = self
            .insist("wait", wait, |error| transient(error.class))
            .await?;
        let inspect = || runtime.inspect(id, CALL);
        let state = self
            .insist("inspect", inspect, |error| transient(error.class))
            .await?;
        match state.exit {
            Some(again) if again == exit && state.status == ContainerStatus::Exited => {
                Ok(exit.code)
            }
            _ => Err(format!("wait says {exit:?}, inspect says {state:?}")),
        }
    }

    fn check(&self, code: ExitCode) -> Result<(), String> {
        let own = self.plan.exits.map(|(_, own)| i32::from(own));
        let killed = own.is_none() || self.process_killed.load(Ordering::SeqCst);
        let lost = self.monitor_killed.load(Ordering::SeqCst)
            || own == Some(1) && self.start_disturbed.load(Ordering::SeqCst);
        let fits = match code {
            ExitCode::Unknown => lost,
            ExitCode::Known(code) => Some(code) == own || killed && code == 137,
        };
        if fits {
            return Ok(());
        }
        Err(format!("it ended with {code}, which cannot be"))
    }

    async fn delete(&self) -> Result<(), String> {
        let runtime = self.arm.runtime();
        let judge = |error: &RuntimeError| match error.class {
            ErrorClass::NotFound => Then::Done(()),
            class => transient(class),
        };
        let delete = || runtime.delete(&self.plan.id, true, CALL);
        self.insist("delete", delete, judge).await
    }
}

fn transient<T>(class: ErrorClass) -> Then<T> {
    match class {
        ErrorClass::Unavailable | ErrorClass::DeadlineExceeded => Then::Again,
        _ => Then::Fail,
    }
}

/// Runs `count` lifecycles on `arm`.
pub async fn storm(arm: &dyn Arm, seed: u64, count: u32) -> Tally {
    let request = PullRequest::of(arm.images().image(TestImage::Tool));
    arm.runtime()
        .pull(&request, CALL)
        .await
        .expect("the image can be pulled");
    let daemon = Daemon::default();
    let lives = stream::iter(0..count).map(|number| {
        let life = Life {
            arm,
            plan: plan(seed, number),
            daemon: &daemon,
            start_disturbed: AtomicBool::new(false),
            monitor_killed: AtomicBool::new(false),
            process_killed: AtomicBool::new(false),
            daemon_killed: AtomicBool::new(false),
        };
        async move {
            let result = life.live().await;
            (life, result)
        }
    });
    let lives: Vec<_> = lives.buffer_unordered(WIDTH).collect().await;
    let mut tally = Tally::default();
    for (life, result) in lives {
        tally.daemon_kills += usize::from(life.daemon_killed.into_inner());
        let monitor_killed = life.monitor_killed.into_inner();
        tally.monitor_kills += usize::from(monitor_killed);
        tally.process_kills += usize::from(life.process_killed.into_inner());
        match result {
            Ok(ExitCode::Known(_)) => tally.known += 1,
            Ok(ExitCode::Unknown) if monitor_killed => tally.unknown += 1,
            Ok(ExitCode::Unknown) => tally.ambiguous += 1,
            Err(why) => tally.broken.push(format!("{:?}: {why}", life.plan)),
        }
    }
    let left = arm.runtime().list(&ListFilter::default(), CALL).await;
    let left = left.expect("a listing after the storm");
    tally
        .broken
        .extend(left.iter().map(|it| format!("left over: {it:?}")));
    tally
}
