//! No acknowledged write is lost when managers are killed: real processes, SIGKILL, and the checker
//! that judges scenarios.
//!
//! Clients in this process write and read keys over the nodes' own transport while managers are
//! killed at drawn moments and started again. In the end all managers are killed at once, and what
//! they know from their disks is read back, key by key. SIGKILL takes nothing back that the kernel
//! was given: lost power is the business of the simulated disks.
//!
//! `WAVETANK_STORM_SEED=7 cargo test -p wavetank storm -- --nocapture` is another storm. The seed
//! brings back what is done, not how processes and disks take it.
//!
//! Map: `managers` (processes that are killed and started), `history` (what clients saw, and its
//! judge), `clients`, this file (the storm).

mod clients;
mod history;
mod managers;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use wavetank_checkers::Verdict;
use wavetank_model::{NodeId, Operation};
use wavetank_trace::{Event, HostState, Payload, Phase};
use wavetank_world::Stream;

use clients::{Client, Load};
use history::{History, judge};
use managers::Managers;

const CLIENTS: u32 = 12;
const WRITES: u64 = 10_000;
const KILLS: usize = 50;
/// Of a hundred strikes so many hit two managers at once: the rest is no majority.
const DOUBLE_PERCENT: u32 = 20;
/// Between the write that a strike waits for and the strike.
const AIM_MS_MAX: u64 = 10;
/// How long a manager stays dead.
const DEAD_MS_MAX: u64 = 1_000;
/// For all of it. Far more than it takes: what hangs must not hang for ever.
const TIMEOUT: Duration = Duration::from_secs(600);
const SEED: &str = "WAVETANK_STORM_SEED";

/// When something is killed, and how many at once.
struct Strike {
    /// So many writes are acknowledged.
    writes: u64,
    /// And so much time has passed since.
    aim: Duration,
    victims: usize,
}

/// As many kills as are asked for, spread over all writes.
fn strikes(draws: &mut Stream) -> Vec<Strike> {
    let mut kills = 0;
    let mut strikes = Vec::new();
    while kills < KILLS {
        let is_double = KILLS - kills > 1 && draws.chance(DOUBLE_PERCENT);
        let victims = if is_double { 2 } else { 1 };
        kills += victims;
        strikes.push(Strike {
            writes: draws.below(WRITES),
            aim: Duration::from_millis(draws.below(AIM_MS_MAX + 1)),
            victims,
        });
    }
    strikes.sort_by_key(|strike| strike.writes);
    strikes
}

/// Kills as planned; comes back when all writes are acknowledged as well.
async fn rage(managers: Arc<Managers>, history: Arc<History>, mut draws: Stream) {
    let mut writes = history.writes();
    let mut reviving = JoinSet::new();
    for strike in strikes(&mut draws) {
        let reached = writes.wait_for(|writes| *writes >= strike.writes).await;
        reached.expect("the history outlives the storm");
        tokio::time::sleep(strike.aim).await;
        for victim in managers.draw_running(strike.victims, &mut draws).await {
            managers.kill(victim, &history);
            let dead = Duration::from_millis(draws.below(DEAD_MS_MAX + 1));
            let (managers, history) = (managers.clone(), history.clone());
            reviving.spawn(async move {
                tokio::time::sleep(dead).await;
                managers.start_again(victim, &history);
            });
        }
    }
    reviving.join_all().await;
    let reached = writes.wait_for(|writes| *writes >= WRITES).await;
    reached.expect("the history outlives the storm");
}

/// Lets clients write and read until the storm is over.
async fn storm(
    managers: &Arc<Managers>,
    clients: &[Arc<Client>],
    history: &Arc<History>,
    seed: u64,
) {
    let over = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    for client in clients {
        let load = Load::new(client.node(), seed);
        tasks.spawn(client.clone().work(load, over.subscribe()));
    }
    let draws = Stream::new(seed, "managers", "strikes");
    let raging = rage(managers.clone(), history.clone(), draws);
    tasks.spawn(async move {
        raging.await;
        over.send_replace(true);
    });
    while let Some(ended) = tasks.join_next().await {
        // One that breaks down takes the others with it.
        ended.expect("clients and the storm come to their end");
    }
}

/// Reads every key that was ever written, once.
async fn read_all(clients: &[Arc<Client>], keys: &BTreeSet<String>) {
    let keys: Vec<&String> = keys.iter().collect();
    let mut readers = JoinSet::new();
    for (client, share) in clients
        .iter()
        .zip(keys.chunks(keys.len() / clients.len() + 1))
    {
        let share: Vec<String> = share.iter().copied().cloned().collect();
        let client = client.clone();
        readers.spawn(async move {
            for key in share {
                client.ask(Operation::Get { key }).await;
            }
        });
    }
    readers.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_when_managers_are_killed() {
    let seed = std::env::var(SEED).map_or(1, |seed| seed.parse().expect("a number"));
    eprintln!("storm of kills, {SEED}={seed}");
    let history = Arc::new(History::new());
    let whole = weather(&history, seed);
    let ended = tokio::time::timeout(TIMEOUT, whole).await;
    let events = history.events();
    let kept = history::keep(&events, seed);
    assert!(ended.is_ok(), "still at it after {TIMEOUT:?}; {kept}");
    eprintln!("{}", history::figures(&events));
    assert_eq!(killed(&events), KILLS + 3);
    let judgement = judge(&events);
    let findings = &judgement.findings;
    assert_eq!(judgement.verdict, Verdict::Pass, "{findings:#?}; {kept}");
    // The same history with one acknowledged write missing in the end.
    for prefix in ["own/", "hot/"] {
        let judgement = judge(&history::without_a_write(&events, prefix));
        let found: Vec<&str> = judgement
            .findings
            .iter()
            .map(|finding| finding.fingerprint.as_str())
            .collect();
        assert_eq!(found, ["linearizable/register"], "{prefix}; {kept}");
    }
}

fn killed(events: &[Event]) -> usize {
    let is_kill = |event: &&Event| {
        matches!(
            event.payload,
            Payload::Host {
                state: HostState::Killed,
                ..
            }
        )
    };
    events.iter().filter(is_kill).count()
}

async fn weather(history: &Arc<History>, seed: u64) {
    let managers = Arc::new(Managers::start(history));
    let mut clients = Vec::new();
    for number in 1..=CLIENTS {
        clients.push(Arc::new(managers.join(number, history).await));
    }
    history.say(
        None,
        Payload::Phase {
            phase: Phase::Faults,
        },
    );
    let began = Instant::now();
    storm(&managers, &clients, history, seed).await;
    eprintln!("the storm took {:?}", began.elapsed());
    history.say(
        None,
        Payload::Phase {
            phase: Phase::Settle,
        },
    );
    // What is read from now on comes from disks.
    let all = [1, 2, 3].map(NodeId::manager);
    for manager in all {
        managers.kill(manager, history);
    }
    for manager in all {
        managers.start_again(manager, history);
    }
    read_all(&clients, &history.keys_written()).await;
    managers.must_run();
    history.say(None, Payload::Phase { phase: Phase::End });
}
