//! The only place that starts runs. A panic in there becomes a report that names the seed, and
//! other runs go on.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use wavetank_engine::{Keep, RunResult};
use wavetank_reports::{RunIdentity, RunReport};
use wavetank_scenario::plan::Plan;
use wavetank_scenario::{Override, Scenario};
use wavetank_trace::Event;

use crate::files;
use crate::world::World;

/// Something that runs plans: a world, or in tests something worse.
pub type Execute = dyn Fn(&Plan, Keep, &mut dyn FnMut(&Event)) -> RunResult + Sync;

/// The commit that this program was built from, if the build knew.
const COMMIT: Option<&str> = option_env!("WAVETANK_COMMIT");

thread_local! {
    /// What the last panic on this thread said, and where.
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Replaces the panic message on stderr, which would interleave with those of other threads, by
/// one that `attempt` puts into the run's report.
pub fn keep_panics_quiet() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let runs = LAST_PANIC.try_with(|last| {
            *last.borrow_mut() = Some(panic.to_string());
        });
        // Worker threads run plans; a panic of the main thread is a bug of the program itself.
        let is_main = std::thread::current().name() == Some("main");
        if is_main || runs.is_err() {
            print(panic);
        }
    }));
}

/// Draws the plan of one seed.
pub fn plan(scenario: &Scenario, seed: u64) -> Result<Plan, String> {
    guarded(|| scenario.plan(seed))
}

/// Runs a plan to its end, or to the panic that ends it. A sink that was interrupted has seen a
/// shorter run.
pub fn attempt(
    execute: &Execute,
    plan: &Plan,
    keep: Keep,
    sink: &mut dyn FnMut(&Event),
) -> Result<RunResult, String> {
    guarded(|| execute(plan, keep, sink))
}

/// What `work` gives, or the text of its panic. Whatever `work` had begun is dropped by the
/// unwinding, so nobody sees its broken state.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let told = LAST_PANIC
            .try_with(|last| last.borrow_mut().take())
            .ok()
            .flatten();
        told.unwrap_or_else(|| panic_text(&*payload))
    })
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without message".to_owned())
}

/// Runs a plan and reports on it. After a panic the run is repeated with its events, to say when
/// and where it happened.
pub fn report(world: World, execute: &Execute, plan: &Plan, overrides: &[Override]) -> RunReport {
    report_with(world, execute, plan, overrides, Keep::Nothing, &mut |_| {})
}

/// As [`report`], with the run's events for whoever wants them.
pub fn report_with(
    world: World,
    execute: &Execute,
    plan: &Plan,
    overrides: &[Override],
    keep: Keep,
    sink: &mut dyn FnMut(&Event),
) -> RunReport {
    let run = identity(world, &plan.name, &plan.file, plan.seed, overrides);
    match attempt(execute, plan, keep, sink) {
        Ok(result) => judged(run, plan, result),
        Err(error) if !world.is_deterministic() => RunReport::failed(run, error),
        Err(panic) => {
            let moment = moment_of_panic(execute, plan);
            RunReport::failed(run, format!("{panic}\n{moment}"))
        }
    }
}

fn judged(run: RunIdentity, plan: &Plan, result: RunResult) -> RunReport {
    let RunResult {
        digest,
        events,
        virtual_time,
        judgement,
    } = result;
    RunReport {
        must_fail: plan.expect.fails.clone(),
        ..RunReport::judged(run, judgement, Some(digest), events, virtual_time)
    }
}

/// Reports that not even a plan came of a seed.
pub fn unplanned(
    world: World,
    scenario: &Scenario,
    seed: u64,
    overrides: &[Override],
    panic: &str,
) -> RunReport {
    let run = identity(world, &scenario.name, &scenario.file, seed, overrides);
    RunReport::failed(run, format!("{panic}\nwhile the plan was drawn"))
}

fn identity(
    world: World,
    scenario: &str,
    file: &str,
    seed: u64,
    overrides: &[Override],
) -> RunIdentity {
    RunIdentity {
        scenario: scenario.to_owned(),
        file: file.to_owned(),
        seed,
        world: world.name().to_owned(),
        overrides: overrides.iter().map(files::assignment).collect(),
        commit: COMMIT.map(str::to_owned),
        live: world.live(),
    }
}

fn moment_of_panic(execute: &Execute, plan: &Plan) -> String {
    let mut last = None;
    let again = attempt(execute, plan, Keep::Full, &mut |event| {
        last = Some(event.clone());
    });
    match (again, last) {
        (Ok(_), _) => "it did not happen again when the run was repeated".to_owned(),
        (Err(_), None) => "before the first event".to_owned(),
        (Err(_), Some(event)) => {
            let host = event
                .host
                .map_or_else(|| "the world".to_owned(), |host| host.to_string());
            format!("after event {} at {} on {host}", event.id.0, event.at)
        }
    }
}

#[cfg(test)]
mod tests {
    use wavetank_reports::RunVerdict;
    use wavetank_scenario::LoadError;

    use super::*;

    const SCENARIO: &str = "scenario: 1\nname: a\nhorizon: 5s\nsettle: 5s\n";

    fn scenario() -> Result<Scenario, LoadError> {
        let no_include = |_: &str| Err("there is nothing to include".to_owned());
        Scenario::parse("a.yaml", SCENARIO, &no_include)
    }

    #[test]
    fn a_panic_becomes_a_report_that_names_the_moment() -> Result<(), LoadError> {
        let plan = plan(&scenario()?, 7).unwrap_or_else(|panic| unreachable!("{panic}"));
        let execute = |plan: &Plan, keep: Keep, sink: &mut dyn FnMut(&Event)| {
            (World::Event.execute())(plan, keep, &mut |event| {
                sink(event);
                assert!(event.id.0 < 3, "third event");
            });
            // Without events there is no third one to fall over.
            unreachable!("the end")
        };
        let report = report(World::Event, &execute, &plan, &[]);
        assert_eq!(report.verdict, RunVerdict::Error);
        let error = report.error.unwrap_or_default();
        assert!(error.contains("the end"), "{error}");
        assert!(error.contains("after event 3 at "), "{error}");
        assert_eq!(report.replay, "cargo run --release -- run a.yaml --seed 7");
        Ok(())
    }

    #[test]
    fn a_seed_without_a_plan_has_a_report() -> Result<(), LoadError> {
        let overrides = [Override {
            path: "seeds".to_owned(),
            value: "3".to_owned(),
        }];
        let report = unplanned(World::Event, &scenario()?, 9, &overrides, "panicked");
        assert_eq!(
            report.error.as_deref(),
            Some("panicked\nwhile the plan was drawn")
        );
        assert_eq!(
            report.replay,
            "cargo run --release -- run a.yaml --seed 9 --set seeds=3"
        );
        Ok(())
    }
}
