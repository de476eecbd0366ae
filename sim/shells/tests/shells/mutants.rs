//! Shells that were broken on purpose, each caught by a seed in turmoil. What is broken stands
//! between the shipped shell and its machine, where a bug of the shell would show.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redb::StorageBackend;
use wavetank_checkers::Verdict;
use wavetank_model::Instant;
use wavetank_node::{Platform, Task};
use wavetank_port::WallTime;
use wavetank_shells::platter::Platter;
use wavetank_shells::run_variant;
use wavetank_shells::variant::{Shipped, Variant};

use crate::runs::{QUIET, scenario};

/// Seeds that a mutant has to be caught in.
const SEEDS: u64 = 10;

/// Says that a write is durable before it is.
#[derive(Debug)]
struct Unsynced(Platter);

impl StorageBackend for Unsynced {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// Acknowledges before it persists.
#[derive(Clone)]
struct PromisesFirst;

impl Variant for PromisesFirst {
    type Platform<P: Platform> = P;
    type Storage = Unsynced;

    fn platform<P: Platform>(&self, platform: P) -> P {
        platform
    }

    fn storage(&self, disk: Platter) -> Unsynced {
        Unsynced(disk)
    }
}

/// A machine with one habit that is not right.
#[derive(Clone)]
struct Odd<P> {
    inner: P,
    habit: Habit,
}

#[derive(Clone)]
enum Habit {
    /// Dials each address once in its life.
    DialsOnce(Arc<Mutex<BTreeSet<String>>>),
    /// Waits for whichever of two things comes first, and does not say which goes first if both do.
    Races,
}

impl<P: Platform> Platform for Odd<P> {
    type Stream = P::Stream;
    type Listener = P::Listener;

    async fn listen(&self, address: &str) -> io::Result<P::Listener> {
        self.inner.listen(address).await
    }

    fn local_address(&self, listener: &P::Listener) -> io::Result<SocketAddr> {
        self.inner.local_address(listener)
    }

    async fn accept(&self, listener: &mut P::Listener) -> io::Result<(P::Stream, SocketAddr)> {
        self.inner.accept(listener).await
    }

    async fn connect(&self, address: &str) -> io::Result<P::Stream> {
        if let Habit::DialsOnce(dialled) = &self.habit {
            let is_new = dialled
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(address.to_owned());
            if !is_new {
                return std::future::pending().await;
            }
        }
        if let Habit::Races = &self.habit {
            tokio::select! {
                () = std::future::ready(()) => {}
                () = std::future::ready(()) => self.sleep(Duration::from_millis(20)).await,
            }
        }
        self.inner.connect(address).await
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn wall(&self) -> WallTime {
        self.inner.wall()
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send {
        self.inner.sleep_until(at)
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Task {
        self.inner.spawn(future)
    }

    fn entropy(&self, bytes: &mut [u8]) {
        self.inner.entropy(bytes);
    }
}

/// Forgets to reconnect.
#[derive(Clone)]
struct ForgetsToReconnect;

impl Variant for ForgetsToReconnect {
    type Platform<P: Platform> = Odd<P>;
    type Storage = Platter;

    fn platform<P: Platform>(&self, inner: P) -> Odd<P> {
        let habit = Habit::DialsOnce(Arc::default());
        Odd { inner, habit }
    }

    fn storage(&self, disk: Platter) -> Platter {
        disk
    }
}

/// Has a race that nobody seeds.
#[derive(Clone)]
struct Races;

impl Variant for Races {
    type Platform<P: Platform> = Odd<P>;
    type Storage = Platter;

    fn platform<P: Platform>(&self, inner: P) -> Odd<P> {
        let habit = Habit::Races;
        Odd { inner, habit }
    }

    fn storage(&self, disk: Platter) -> Platter {
        disk
    }
}

/// The first seed in which a checker objects to the variant; the shipped shell passes it.
fn caught(name: &str, variant: &impl Variant, file: &str) {
    let scenario = scenario(file);
    for seed in 0..SEEDS {
        let plan = scenario.plan(seed);
        let run = run_variant(variant, &plan, &QUIET, &mut |_| {});
        let judgement = run.expect("certificates can be made").judgement;
        if judgement.verdict != Verdict::Fail {
            continue;
        }
        let by = &judgement.findings[0];
        println!(
            "{name} caught in {file} seed {seed} by {}: {}",
            by.checker, by.cause
        );
        let healthy = run_variant(&Shipped, &plan, &QUIET, &mut |_| {});
        let healthy = healthy.expect("certificates can be made").judgement;
        assert_eq!(healthy.verdict, Verdict::Pass, "{:#?}", healthy.findings);
        return;
    }
    panic!("{name} escaped in {file}");
}

#[test]
fn a_shell_that_acknowledges_before_it_persists_is_caught() {
    let file = "control-plane/power-loss-after-answer.yaml";
    caught("promises-first", &PromisesFirst, file);
}

#[test]
fn a_shell_that_forgets_to_reconnect_is_caught() {
    let file = "control-plane/all-managers-restart.yaml";
    caught("forgets-to-reconnect", &ForgetsToReconnect, file);
}

#[test]
fn a_shell_with_an_unbiased_race_is_caught() {
    let scenario = scenario("node-loss.yaml");
    let digest = |seed| {
        let run = run_variant(&Races, &scenario.plan(seed), &QUIET, &mut |_| {});
        run.expect("certificates can be made").digest
    };
    let seed = (0..SEEDS).find(|seed| digest(*seed) != digest(*seed));
    println!("unbiased-race caught in node-loss.yaml seed {seed:?} by two digests");
    assert!(seed.is_some());
}
