//! Virtual time to the nanosecond, for measurements: tokio's paused clock counts in milliseconds,
//! which is longer than some steps of a life take.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use wavetank_conformance::ArmError;
use wavetank_conformance::latency::{Calibration, Clock, calibrate};
use wavetank_port::WallTime;
use wavetank_scenario::plan::Cluster;
use wavetank_sim_runtime::{Pace, SharedClock, SimRuntime, Stepper};
use wavetank_trace::VirtualTime;
use wavetank_world::LocalClock;

use crate::arm::SimArm;

/// Takes `lives` containers through their lives on a simulated runtime that takes as long as
/// `cluster` says. All draws are the seed's.
pub fn calibrate_simulated(
    cluster: &Cluster,
    seed: u64,
    lives: u32,
) -> Result<Calibration, ArmError> {
    let pace = ExactPace::default();
    let clock = Arc::new(Mutex::new(LocalClock::new(0)));
    let stepper = Stepper {
        clock: Arc::clone(&clock),
        pace: Arc::new(pace.clone()),
        truths: None,
        rearm: Arc::new(Notify::new()),
    };
    let arm = SimArm::stepped(cluster, seed, stepper);
    let clock = SimClock {
        pace: pace.clone(),
        clock,
    };
    let calibrated = run(arm.machine(), &pace, calibrate(&arm, lives, &clock));
    calibrated.unwrap_or_else(|| {
        let why = "the simulated runtime has nothing to do, and its caller waits";
        Err(ArmError::Harness(why.to_owned()))
    })
}

/// Runs `work`: whenever it waits, it is as late as the machine or a sleeper needs it to be. `None`
/// if it waits for what never comes.
fn run<T>(machine: &SimRuntime, pace: &ExactPace, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    loop {
        woken.0.store(false, Ordering::Relaxed);
        if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
            return Some(done);
        }
        if woken.0.load(Ordering::Relaxed) {
            continue;
        }
        let deadlines = [machine.next_deadline(), pace.next_deadline()];
        let next = deadlines.into_iter().flatten().min()?;
        pace.advance(next);
        machine.step(next);
    }
}

/// Set when there is something to do at the present time.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Time that is advanced by hand.
#[derive(Clone, Default)]
struct ExactPace(Arc<Mutex<Sleepers>>);

#[derive(Default)]
struct Sleepers {
    now: VirtualTime,
    count: u64,
    /// By when they are due, and in which order they came.
    waiting: BTreeMap<(VirtualTime, u64), Option<Waker>>,
}

impl ExactPace {
    fn lock(&self) -> MutexGuard<'_, Sleepers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_deadline(&self) -> Option<VirtualTime> {
        self.lock().waiting.keys().next().map(|(due, _)| *due)
    }

    fn advance(&self, to: VirtualTime) {
        let mut sleepers = self.lock();
        sleepers.now = sleepers.now.max(to);
        let late = sleepers
            .waiting
            .split_off(&(VirtualTime(to.0.saturating_add(1)), 0));
        let due = std::mem::replace(&mut sleepers.waiting, late);
        drop(sleepers);
        due.into_values().flatten().for_each(Waker::wake);
    }
}

impl Pace for ExactPace {
    fn now(&self) -> VirtualTime {
        self.lock().now
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut sleepers = self.lock();
        sleepers.count += 1;
        let key = (sleepers.now + duration, sleepers.count);
        sleepers.waiting.insert(key, None);
        drop(sleepers);
        let sleeper = Sleeper {
            pace: self.clone(),
            key,
        };
        Box::pin(poll_fn(move |context| sleeper.poll(context)))
    }
}

/// Somebody who sleeps; dropped, nobody needs to wake them.
struct Sleeper {
    pace: ExactPace,
    key: (VirtualTime, u64),
}

impl Sleeper {
    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        match self.pace.lock().waiting.get_mut(&self.key) {
            Some(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.pace.lock().waiting.remove(&self.key);
    }
}

/// The clocks of a simulated machine.
struct SimClock {
    pace: ExactPace,
    clock: SharedClock,
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.pace.now().0)
    }

    fn wall(&self) -> WallTime {
        let clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.wall(self.pace.now())
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Pace::sleep(&self.pace, time)
    }
}

#[cfg(test)]
mod tests {
    use wavetank_conformance::latency::{Step, quantile};
    use wavetank_scenario::Scenario;

    use super::*;
    use crate::steps_of;

    /// A cluster whose runtimes take this long.
    fn cluster(runtime: &str) -> Cluster {
        let text = format!("scenario: 1\nname: a\ncluster: {{ runtime: {runtime} }}\n");
        let nothing = |_: &str| Err("nothing is included".to_owned());
        let scenario = Scenario::parse("a.yaml", &text, &nothing);
        scenario.expect("it is a scenario").plan(1).cluster
    }

    fn lived(runtime: &str, lives: u32) -> Calibration {
        calibrate_simulated(&cluster(runtime), 1, lives).expect("the simulated runtime works")
    }

    fn micros(calibration: &Calibration, step: Step) -> [u128; 2] {
        let samples = &calibration.samples[&step];
        [50, 95].map(|percent| quantile(samples, percent).map_or(0, |it| it.as_micros()))
    }

    #[test]
    fn a_life_is_measured_to_the_nanosecond() {
        let calibration = lived(
            "{ steps: { pull: 1.25ms, create: 900us, start: 5ms, begin: 3ms, exit_seen: 333us, \
             event: 1.5ms, delete: 2.001ms, call: 10us } }",
            2,
        );
        assert_eq!(calibration.lives, 2);
        let expected = [
            (Step::Pull, 1_250_000),
            (Step::Create, 900_000),
            (Step::Start, 5_000_000),
            (Step::StartToEnd, 3_000_000),
            (Step::ExitSeen, 333_000),
            (Step::StartToExit, 5_333_000),
            (Step::ExitEvent, 1_500_000),
            (Step::Inspect, 10_000),
            (Step::Delete, 2_001_000),
        ];
        for (step, nanos) in expected {
            let times = vec![Duration::from_nanos(nanos); 2];
            assert_eq!(calibration.samples[&step], times, "{step:?}");
        }
        // The event comes 4.5 ms after the request, the answer after 5 ms.
        assert_eq!(
            (calibration.exits_before_answer, calibration.exits_lost),
            (2, 0)
        );
        assert_eq!(
            (calibration.exits_before_start, calibration.starts_lost),
            (0, 0)
        );
    }

    #[test]
    fn a_runtime_that_takes_what_was_measured_is_measured_alike() {
        let real = lived("{ latency: 2ms..31ms, event_delay: 1ms..90ms }", 400);
        let calibrated = Cluster {
            runtime_steps: steps_of(&real),
            ..cluster("{}")
        };
        let again = calibrate_simulated(&calibrated, 2, 4_000).expect("it works");
        for step in Step::ALL {
            let (real, again) = (micros(&real, step), micros(&again, step));
            for (real, again) in real.into_iter().zip(again) {
                assert!(
                    again.abs_diff(real) * 10 <= real,
                    "{step:?}: {real}, then {again}"
                );
            }
        }
        // Unmeasured, events overtake each other; a stream that was measured keeps its order.
        assert!(real.exits_before_start > 0);
        assert_eq!(again.exits_before_start, 0);
    }

    #[test]
    fn the_same_seed_is_the_same_measurement() {
        let samples = || lived("{}", 20).samples;
        assert_eq!(samples(), samples());
    }

    #[test]
    fn an_event_that_never_comes_is_lost() {
        let calibration = lived("{ steps: { event: 6s } }", 2);
        assert_eq!((calibration.exits_lost, calibration.starts_lost), (2, 2));
        assert_eq!(calibration.samples.get(&Step::ExitEvent), None);
    }
}
