//! SIGKILL for the service and for monitors, at random points: every container ends known, with
//! its true code where that can be known and an explicit "unknown" where it cannot, and nothing
//! that was left half done stays for ever.
//!
//! Who kills counts answers and not time: however slow the machine is, something is done between
//! two kills. A service that is killed before it can answer anybody proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join;
use futures_util::{StreamExt as _, stream};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use rustix::process::Signal;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};
use wavetank_fixtures::daemon::podman::{MONITOR, PodmanDaemon, PodmanSettings};
use wavetank_fixtures::daemon::process::{self, Process};
use wavetank_fixtures::{Program, Step};
use wavetank_podman::Podman;
use wavetank_port::{
    ContainerId, ContainerRuntime as _, ContainerSpec, ContainerStatus, ErrorClass, ExitCode,
    ExitStatus, RuntimeError,
};

use crate::{CALL, NAMESPACE, Real};

/// Any number; another one is another storm.
const SEED: u64 = 4;
/// Set to a number, it is that storm.
const SEED_VARIABLE: &str = "WAVETANK_STORM_SEED";
const LIVES: u64 = 200;
const AT_ONCE: usize = 4;
/// The longest that a process runs, in milliseconds.
const RUN_MS_MAX: u64 = 300;
/// How long one life may take with all its retries.
const LIFE_WITHIN: Duration = Duration::from_secs(120);
/// How often a start is tried.
const STARTS_MAX: u32 = 10;
/// The most answers between two kills.
const SERVICE_ANSWERS_MAX: u64 = 40;
const MONITOR_ANSWERS_MAX: u64 = 16;
/// The longest pause between an answer and a kill, in milliseconds: about what a call takes.
const PAUSE_MS_MAX: u64 = 100;
/// How many calls are cut short, and how late at most, in milliseconds.
const CUTS: u64 = 40;
const CUT_MS_MAX: u64 = 150;

/// How a life ended, as far as anybody can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// With its own code.
    True,
    /// Exited, with a code that nobody knows.
    Unknown,
}

/// What those who live share with those who kill.
struct Storm {
    podman: Podman,
    directory: PathBuf,
    /// How many calls were answered.
    answers: watch::Sender<u64>,
    /// Whose monitor was killed.
    bereft: Mutex<BTreeSet<String>>,
}

/// A random sequence that nobody else draws from.
fn random(purpose: u64) -> ChaCha8Rng {
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.parse().expect("the seed is a number"),
        Err(_) => SEED,
    };
    eprintln!("{SEED_VARIABLE}={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(purpose);
    random
}

#[tokio::test(flavor = "multi_thread")]
async fn every_container_ends_known_whatever_is_killed() {
    let Some(mut real) = Real::start(&PodmanSettings::default()).await else {
        return;
    };
    let mut drawn = random(0);
    let lives: Vec<(ContainerSpec, u8)> = (0..LIVES)
        .map(|number| {
            let code = u8::try_from(number % 100).unwrap_or_default() + 1;
            let run_ms = drawn.next_u64() % RUN_MS_MAX;
            let steps = [Step::SleepMs(run_ms), Step::Exit(code)];
            (real.spec(&format!("c{number}"), &Program::of(steps)), code)
        })
        .collect();
    let storm = Storm {
        podman: real.podman.clone(),
        directory: real.daemon.directory().to_owned(),
        answers: watch::Sender::new(0),
        bereft: Mutex::default(),
    };
    let living = stream::iter(&lives)
        .map(|(spec, code)| storm.live(spec, *code))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<End>>();
    let ends = tokio::select! {
        ends = living => ends,
        never = storm.kill_the_service(&mut real.daemon) => match never {},
        never = storm.kill_monitors() => match never {},
    };
    let mut counts: BTreeMap<End, usize> = BTreeMap::new();
    for end in ends {
        *counts.entry(end).or_default() += 1;
    }
    let killed = storm.bereft.lock().await.len();
    eprintln!("{counts:?}, monitors killed: {killed}");
    assert_eq!(counts.values().sum::<usize>(), lives.len());
    nothing_lives_on(&real).await;
    // A run in which nothing was hit, or nothing survived, would prove nothing.
    assert!(
        counts.contains_key(&End::True) && counts.contains_key(&End::Unknown),
        "{counts:?}"
    );
}

/// With all containers deleted, no monitor may be left, nor a process in any container's group.
async fn nothing_lives_on(real: &Real) {
    let give_up = Instant::now() + CALL;
    loop {
        let monitors = process::of_directory(real.daemon.directory()).expect("the processes");
        let monitors = monitors.iter().filter(|it| it.name() == MONITOR);
        let groups = real.daemon.cgroups().expect("the control groups");
        let members = groups.iter().filter_map(|it| {
            let members = std::fs::read_to_string(it.join("cgroup.procs")).ok()?;
            (!members.is_empty()).then(|| format!("{}: {members}", it.display()))
        });
        let left: Vec<String> = monitors
            .map(|it| format!("{} {}", it.pid, it.name()))
            .chain(members)
            .collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < give_up, "still alive: {left:#?}");
        sleep(Duration::from_millis(100)).await;
    }
}

impl Storm {
    async fn kill_the_service(&self, daemon: &mut PodmanDaemon) -> Infallible {
        let mut drawn = random(1);
        loop {
            self.pause(&mut drawn, SERVICE_ANSWERS_MAX).await;
            daemon.restart().await.expect("the service again");
        }
    }

    async fn kill_monitors(&self) -> Infallible {
        let mut drawn = random(2);
        loop {
            self.pause(&mut drawn, MONITOR_ANSWERS_MAX).await;
            let monitors = monitors(&self.directory);
            let Ok(count) = u64::try_from(monitors.len()) else {
                continue;
            };
            let Some(chosen) = drawn.next_u64().checked_rem(count) else {
                continue;
            };
            let (id, monitor) = &monitors[usize::try_from(chosen).unwrap_or_default()];
            // Noted first: whoever sees its end must know why.
            self.bereft.lock().await.insert(id.clone());
            monitor.signal(Signal::KILL);
        }
    }

    /// Comes back some answers later, at any point of what follows the last of them.
    async fn pause(&self, drawn: &mut ChaCha8Rng, answers_max: u64) {
        let mut answers = self.answers.subscribe();
        let goal = *answers.borrow() + 1 + drawn.next_u64() % answers_max;
        let reached = answers.wait_for(|it| *it >= goal).await;
        reached.expect("the storm goes on");
        sleep(Duration::from_millis(drawn.next_u64() % PAUSE_MS_MAX)).await;
    }

    /// One life, with the patience of an agent: what is not answered is asked again, and what can
    /// never be started makes room for another one.
    async fn live(&self, spec: &ContainerSpec, code: u8) -> End {
        let give_up = Instant::now() + LIFE_WITHIN;
        let id = &spec.id;
        loop {
            self.create(spec, give_up).await;
            if self.start(id, give_up).await {
                break;
            }
            assert!(Instant::now() < give_up, "{id} was never started");
            self.delete(id, give_up).await;
            self.bereft.lock().await.remove(&id.0);
        }
        let end = self.end(id, code, give_up).await;
        self.delete(id, give_up).await;
        end
    }

    async fn create(&self, spec: &ContainerSpec, give_up: Instant) {
        let created = self.insist(give_up, "create", async || {
            self.podman.create(spec, CALL).await
        });
        match created.await {
            // Taken: an earlier try of ours succeeded, and its answer was lost.
            Err(error) if error.class != ErrorClass::AlreadyExists => panic!("{spec:?}: {error}"),
            _ => {}
        }
    }

    async fn delete(&self, id: &ContainerId, give_up: Instant) {
        let podman = &self.podman;
        let deleted = self.insist(give_up, "delete", async || {
            podman.delete(id, true, CALL).await
        });
        match deleted.await {
            Err(error) if error.class != ErrorClass::NotFound => panic!("{id}: {error}"),
            _ => {}
        }
        let gone = self.insist(give_up, "inspect", async || podman.inspect(id, CALL).await);
        let class = gone.await.expect_err("what was deleted").class;
        assert_eq!(class, ErrorClass::NotFound, "{id}");
    }

    /// True if the process ran. A container on which the service or its monitor died between
    /// runc's create and runc's start can never be started, for which Podman has many words.
    async fn start(&self, id: &ContainerId, give_up: Instant) -> bool {
        let podman = &self.podman;
        for _ in 0..STARTS_MAX {
            // Whatever it answers, the state is the truth.
            let started = podman.start(id, CALL).await;
            let state = self.insist(give_up, "inspect", async || podman.inspect(id, CALL).await);
            if state.await.expect("a state").status != ContainerStatus::Created {
                return true;
            }
            match started {
                Err(error) if error.class == ErrorClass::FailedPrecondition => return false,
                other => eprintln!("{id} is not started: {other:?}"),
            }
        }
        false
    }

    async fn end(&self, id: &ContainerId, code: u8, give_up: Instant) -> End {
        let podman = &self.podman;
        let exit = self.insist(give_up, "wait", async || podman.wait(id, CALL).await);
        let exit: ExitStatus = exit.await.expect("an exit");
        let state = self.insist(give_up, "inspect", async || podman.inspect(id, CALL).await);
        let state = state.await.expect("a state");
        assert_eq!(state.exit, Some(exit), "{id}");
        assert_eq!(state.pid, None, "{id}: a process id after the end");
        match exit.code {
            ExitCode::Known(known) => {
                assert_eq!(known, i32::from(code), "{id}: a wrong code");
                End::True
            }
            ExitCode::Unknown => {
                let bereft = self.bereft.lock().await.contains(&id.0);
                assert!(bereft, "{id}: its monitor was there all the time");
                End::Unknown
            }
        }
    }

    /// Asks until there is an answer about the container and not about the service.
    async fn insist<T>(
        &self,
        give_up: Instant,
        what: &str,
        mut ask: impl AsyncFnMut() -> Result<T, RuntimeError>,
    ) -> Result<T, RuntimeError> {
        let mut tries = 1;
        loop {
            match ask().await {
                Err(error) if is_about_the_service(&error) => {
                    let in_time = Instant::now() < give_up;
                    assert!(in_time, "{what}, try {tries}: {error}");
                    tries += 1;
                    sleep(Duration::from_millis(20)).await;
                }
                answer => {
                    self.answers.send_modify(|it| *it += 1);
                    return answer;
                }
            }
        }
    }
}

fn is_about_the_service(error: &RuntimeError) -> bool {
    matches!(
        error.class,
        ErrorClass::Unavailable | ErrorClass::DeadlineExceeded | ErrorClass::Unknown
    )
}

/// The monitors of containers, each with the id of its container.
fn monitors(directory: &Path) -> Vec<(String, Process)> {
    let all = process::of_directory(directory).expect("the processes");
    let monitors = all
        .into_iter()
        .filter(|it| it.name() == MONITOR && it.mentions(directory));
    let with_id = |monitor: Process| {
        let line = String::from_utf8_lossy(&monitor.command_line);
        let (_, after) = line.split_once("\0-n\0")?;
        let name = after.split('\0').next()?;
        let id = name.strip_prefix(&format!("{NAMESPACE}."))?;
        Some((id.to_owned(), monitor))
    };
    monitors.filter_map(with_id).collect()
}

/// A call of which the service does not see the end. What comes after it meets a service that is
/// left alone, and so has no excuse.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_service_left_half_done_is_deleted_at_once() {
    let Some(mut real) = Real::start(&PodmanSettings::default()).await else {
        return;
    };
    let mut drawn = random(3);
    for number in 0..CUTS {
        let spec = real.spec(&format!("c{number}"), &Program::exit_after(50, 1));
        let (podman, id) = (real.podman.clone(), spec.id.clone());
        let call = ["create", "start", "delete"][usize::try_from(number % 3).unwrap_or_default()];
        if call != "create" {
            podman.create(&spec, CALL).await.expect("create");
        }
        if call == "delete" {
            podman.start(&id, CALL).await.expect("start");
        }
        let cut = async {
            match call {
                "create" => podman.create(&spec, CALL).await,
                "start" => podman.start(&id, CALL).await.map(drop),
                _ => podman.delete(&id, true, CALL).await,
            }
        };
        let after = Duration::from_millis(drawn.next_u64() % CUT_MS_MAX);
        let kill = async {
            sleep(after).await;
            real.daemon.restart().await.expect("the service again");
        };
        let (answer, ()) = join(cut, kill).await;
        let said = format!("{call} cut short after {after:?}: {answer:?}");
        match podman.delete(&id, true, CALL).await {
            Err(error) if error.class != ErrorClass::NotFound => panic!("{said}, then {error}"),
            _ => {}
        }
        let left = podman.inspect(&id, CALL).await.expect_err(&said);
        assert_eq!(left.class, ErrorClass::NotFound, "{said}, then {left}");
    }
    nothing_lives_on(&real).await;
}
