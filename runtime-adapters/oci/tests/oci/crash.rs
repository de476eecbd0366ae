//! Callers and monitors are killed at random points of 200 lifecycles: every container ends known,
//! with its true exit code where somebody can still know it and an explicit unknown elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use tokio::sync::Mutex;
use wavetank_oci::OciRuntime;
use wavetank_oci::journal::Journal;
use wavetank_oci::record::ContainerFolder;
use wavetank_port::{
    ContainerId, ContainerRuntime as _, ContainerStatus, ErrorClass, ExitCode, RuntimeEvent,
};

use crate::support::{Bed, LONG, config, delete_all, leftovers, spec};

/// What the issue asks for.
const LIFECYCLES: u32 = 200;

/// How many lifecycles at the same time.
const WIDTH: usize = 4;

/// Kills come up to this long after a create has begun: a lifecycle takes about as long.
const KILL_WITHIN_MILLIS: u64 = 400;

/// Tells this program that it is a caller, and for which root.
const CALLER: &str = "WAVETANK_TEST_CALLER";

/// One lifecycle, drawn from the seed.
#[derive(Clone, Debug)]
struct Plan {
    id: ContainerId,
    code: u8,
    run_millis: u64,
    kill_after: Duration,
    kill_caller: bool,
    kill_monitor: bool,
}

impl Plan {
    fn draw(number: u32, rng: &mut ChaCha8Rng) -> Self {
        let victims = rng.next_u32() % 3;
        Plan {
            id: ContainerId(format!("c{number}")),
            code: u8::try_from(rng.next_u32() % 100).unwrap_or_default(),
            run_millis: u64::from(rng.next_u32() % 100),
            kill_after: Duration::from_millis(rng.next_u64() % KILL_WITHIN_MILLIS),
            kill_caller: victims != 1,
            kill_monitor: victims != 0,
        }
    }

    fn script(&self) -> String {
        let (millis, code) = (self.run_millis, self.code);
        format!("sleep 0.{millis:03}; exit {code}")
    }
}

/// Not a test: what the test below runs as processes of their own, to kill them.
#[tokio::test(flavor = "multi_thread")]
async fn caller_process() {
    let Ok(folder) = std::env::var(CALLER) else {
        return;
    };
    let variable = |name: &str| std::env::var(name).expect("set by the test");
    let config = config(Path::new(&folder), Path::new("runc"));
    let runtime = OciRuntime::open(config, LONG).await.expect("open");
    let spec = spec(&variable("ID"), &["/bin/sh", "-c", &variable("SCRIPT")]);
    // Any step may fail when the monitor is killed over it; the test looks at what is left.
    if runtime.create(&spec, LONG).await.is_err() {
        return;
    }
    if runtime.start(&spec.id, LONG).await.is_err() {
        return;
    }
    if runtime.wait(&spec.id, LONG).await.is_ok() {
        let _ = runtime.delete(&spec.id, false, LONG).await;
    }
}

fn start_caller(folder: &Path, plan: &Plan) -> Child {
    Command::new(std::env::current_exe().expect("our own path"))
        .args(["--exact", "crash::caller_process"])
        .env(CALLER, folder)
        .env("ID", &plan.id.0)
        .env("SCRIPT", plan.script())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a caller")
}

/// Kills the container's monitor if it has one now.
fn kill_monitor(root: &Path, id: &ContainerId) -> bool {
    let folder = ContainerFolder::new(&root.join("root/containers"), id);
    let monitor = folder.facts().ok().and_then(|facts| facts.monitor.valid());
    let Some(monitor) = monitor else { return false };
    let alive = monitor.is_alive().expect("asked");
    monitor.kill().expect("kill");
    alive
}

/// Lives one plan; true if a monitor was hit.
async fn live(root: PathBuf, plan: Plan) -> bool {
    let mut caller = start_caller(&root, &plan);
    let container = root.join("root/containers").join(&plan.id.0);
    while !container.exists() && caller.try_wait().expect("asked").is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(plan.kill_after).await;
    let hit = plan.kill_monitor && kill_monitor(&root, &plan.id);
    if plan.kill_caller {
        caller.kill().expect("kill");
    }
    tokio::task::spawn_blocking(move || caller.wait().expect("reaped"))
        .await
        .expect("joined");
    // A new caller takes over, as after a restart of the agent.
    let config = config(&root, Path::new("runc"));
    let runtime = OciRuntime::open(config, LONG).await.expect("open");
    finish(&runtime, &plan, hit).await;
    hit
}

/// Brings what is left to its end, and removes it.
async fn finish(runtime: &OciRuntime, plan: &Plan, hit: bool) {
    match runtime.inspect(&plan.id, LONG).await {
        // Never made, or removed already.
        Err(error) if error.class == ErrorClass::NotFound => return,
        Err(error) => panic!("{plan:?}: {error}"),
        Ok(state) if state.status == ContainerStatus::Created => {
            // It is known exactly: made, and never started.
            match runtime.start(&plan.id, LONG).await {
                Ok(_) => {}
                // The start of a caller that was killed goes on without it, and came first.
                Err(error) if plan.kill_caller && error.class == ErrorClass::FailedPrecondition => {
                }
                Err(error) => panic!("{plan:?}: {error}"),
            }
        }
        Ok(_) => {}
    }
    let exit = runtime.wait(&plan.id, LONG).await.expect("wait");
    let again = runtime.inspect(&plan.id, LONG).await.expect("inspect");
    assert_eq!(again.exit, Some(exit), "{plan:?}");
    check_code(plan, exit.code, hit);
    runtime.delete(&plan.id, false, LONG).await.expect("delete");
}

fn check_code(plan: &Plan, code: ExitCode, hit: bool) {
    match code {
        ExitCode::Known(code) => assert_eq!(code, i32::from(plan.code), "{plan:?}"),
        ExitCode::Unknown => assert!(hit, "{plan:?}: its monitor lived and must know"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_container_ends_known_whoever_is_killed() {
    let Some(bed) = Bed::new().await else { return };
    let root = bed.folder.path().to_owned();
    let seed = std::env::var("WAVETANK_TEST_SEED").map_or(3, |it| it.parse().expect("a number"));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let plans: Vec<Plan> = (0..LIFECYCLES)
        .map(|number| Plan::draw(number, &mut rng))
        .collect();
    let queue = Arc::new(Mutex::new(plans.clone().into_iter()));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..WIDTH {
        let (queue, root) = (queue.clone(), root.clone());
        workers.spawn(async move {
            let mut hits = BTreeMap::new();
            loop {
                let Some(plan) = queue.lock().await.next() else {
                    return hits;
                };
                hits.insert(plan.id.clone(), live(root.clone(), plan).await);
            }
        });
    }
    let mut hits = BTreeMap::new();
    while let Some(worker) = workers.join_next().await {
        hits.extend(worker.expect("no worker fails"));
    }
    let told = told(&root, &plans, &hits);
    let struck = hits.values().filter(|hit| **hit).count();
    println!("seed {seed}: {struck} monitors killed, {told:?}");
    assert!(struck > 0 && told.known > 0, "nothing was put to the test");
    // A create whose caller died may have come to its end after we looked. A monitor whose caller
    // died before its first command leaves by itself, and whoever opens the root afterwards
    // removes what was half made.
    let deadline = tokio::time::Instant::now() + LONG;
    while !leftovers(&root).is_empty() && tokio::time::Instant::now() < deadline {
        delete_all(&bed.reopened().await).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(leftovers(&root), Vec::<String>::new());
}

/// What the journal says of all containers.
#[derive(Debug, Default)]
struct Told {
    known: u32,
    unknown: u32,
    never_started: u32,
}

/// Each start has one exit, of the true code or of none, and one deletion, in this order.
fn told(root: &Path, plans: &[Plan], hits: &BTreeMap<ContainerId, bool>) -> Told {
    let journal = Journal::open(&root.join("root/events")).expect("journal");
    let mut place = journal.first().expect("first");
    let mut lives: BTreeMap<ContainerId, Vec<RuntimeEvent>> = BTreeMap::new();
    while let Some((entry, next)) = journal.read(place).expect("read") {
        place = next;
        let id = entry.event.container().expect("a container's").clone();
        lives.entry(id).or_default().push(entry.event);
    }
    let mut told = Told::default();
    for plan in plans {
        let events = lives.remove(&plan.id).unwrap_or_default();
        let names: Vec<&str> = events.iter().map(RuntimeEvent::name).collect();
        match events.as_slice() {
            [_, RuntimeEvent::Exited { exit, .. }, _] => {
                assert_eq!(names, ["start", "exit", "delete"], "{plan:?}");
                check_code(plan, exit.code, hits[&plan.id]);
                match exit.code {
                    ExitCode::Known(_) => told.known += 1,
                    ExitCode::Unknown => told.unknown += 1,
                }
            }
            _ => {
                assert!(
                    names.is_empty() || names == ["delete"],
                    "{plan:?}: {names:?}"
                );
                told.never_started += 1;
            }
        }
    }
    assert!(lives.is_empty(), "{lives:?}");
    told
}
