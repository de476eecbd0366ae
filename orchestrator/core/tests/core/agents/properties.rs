//! One agent under random faults of its runtime, its managers and its machine. The harness checks
//! after every step what must never happen; here is what must have happened once all is well.

use std::time::Duration;

use proptest::prelude::*;
use wavetank_model::{DesiredState, RestartCondition, TaskState};
use wavetank_port::{ErrorClass, ExitCode};

use super::harness::{World, checked, seconds, spec, timers};
use super::runtime::{Behaviour, Bend};

const TASKS: u64 = 3;

/// Something that a test does to the agent's world.
#[derive(Clone, Debug)]
enum Disturbance {
    Bend(&'static str, Bend, u32),
    Behave(Behaviour),
    LoseEvents(bool),
    RepeatEvents(bool),
    DelayEvents(u64),
    EmptyListings(u32),
    DaemonDown(bool),
    DaemonUp,
    EndOne(u64, i32),
    ForgetOne(u64),
    RestartAgent,
    LosePower,
    Silence(bool),
    Repeat,
    ShutDown(u64),
}

fn bends() -> impl Strategy<Value = Bend> {
    prop_oneof![
        proptest::sample::select(ErrorClass::ALL.to_vec()).prop_map(Bend::Error),
        Just(Bend::Hang),
        Just(Bend::LoseReply),
        (0u64..15_000).prop_map(|late| Bend::Late(Duration::from_millis(late))),
    ]
}

fn behaviours() -> impl Strategy<Value = Behaviour> {
    let run_for = proptest::option::of((0u64..20_000).prop_map(Duration::from_millis));
    (
        run_for,
        0..3i32,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(run_for, code, oom, obeys_term, healthy)| Behaviour {
            run_for,
            code,
            oom: oom && code != 0,
            obeys_term,
            healthy,
        })
}

fn disturbances() -> impl Strategy<Value = Disturbance> {
    let verbs = vec![
        "pull", "create", "start", "stop", "delete", "inspect", "list", "probe",
    ];
    let tasks = 1..=TASKS;
    prop_oneof![
        6 => (proptest::sample::select(verbs), bends(), 1..4u32)
            .prop_filter("nobody survives a runtime that denies everything", believable)
            .prop_map(|(verb, bend, count)| Disturbance::Bend(verb, bend, count)),
        2 => behaviours().prop_map(Disturbance::Behave),
        1 => any::<bool>().prop_map(Disturbance::LoseEvents),
        1 => any::<bool>().prop_map(Disturbance::RepeatEvents),
        1 => (0..20_000u64).prop_map(Disturbance::DelayEvents),
        1 => (1..4u32).prop_map(Disturbance::EmptyListings),
        1 => any::<bool>().prop_map(Disturbance::DaemonDown),
        1 => Just(Disturbance::DaemonUp),
        2 => (tasks.clone(), 0..2i32).prop_map(|(task, code)| Disturbance::EndOne(task, code)),
        1 => tasks.clone().prop_map(Disturbance::ForgetOne),
        2 => Just(Disturbance::RestartAgent),
        1 => Just(Disturbance::LosePower),
        2 => any::<bool>().prop_map(Disturbance::Silence),
        1 => Just(Disturbance::Repeat),
        1 => tasks.prop_map(Disturbance::ShutDown),
    ]
}

/// A runtime may be wrong when it is asked what is, but it knows what it has removed.
fn believable((verb, bend, _): &(&'static str, Bend, u32)) -> bool {
    *verb != "delete" || *bend != Bend::Error(ErrorClass::NotFound)
}

fn disturb(world: &mut World, disturbance: &Disturbance) {
    let now = world.now;
    world.say(&format!("-- {disturbance:?}"));
    match disturbance {
        Disturbance::Bend(verb, bend, count) => world.runtime.bends.push((verb, *bend, *count)),
        Disturbance::Behave(behaviour) => world.runtime.behaviour = *behaviour,
        Disturbance::LoseEvents(lose) => world.runtime.lose_events = *lose,
        Disturbance::RepeatEvents(repeat) => world.runtime.repeat_events = *repeat,
        Disturbance::DelayEvents(by) => world.runtime.delay_events = Duration::from_millis(*by),
        Disturbance::EmptyListings(count) => world.runtime.empty_listings = *count,
        Disturbance::DaemonDown(keeps_state) => world.runtime.go_down(now, *keeps_state),
        Disturbance::DaemonUp => world.runtime.come_up(now),
        Disturbance::EndOne(task, code) => {
            for id in containers(world, *task) {
                world.runtime.end(now, &id, ExitCode::Known(*code), false);
            }
        }
        Disturbance::ForgetOne(task) => {
            for id in containers(world, *task) {
                world.runtime.containers.remove(&id);
            }
        }
        Disturbance::RestartAgent => world.restart(),
        Disturbance::LosePower => {
            world.kill();
            world.runtime.lose_power();
            world.start();
        }
        Disturbance::Silence(silent) => world.manager.silent = *silent,
        Disturbance::Repeat => {
            world.push_assignments();
            world.push_assignments();
        }
        Disturbance::ShutDown(task) => world.shut_down(*task),
    }
}

fn containers(world: &World, task: u64) -> Vec<wavetank_port::ContainerId> {
    let prefix = format!("wt-task-{task}.");
    world
        .runtime
        .containers
        .keys()
        .filter(|id| id.0.starts_with(&prefix))
        .cloned()
        .collect()
}

fn heal(world: &mut World) {
    world.say("-- all is well");
    world.runtime.bends.clear();
    world.runtime.empty_listings = 0;
    world.runtime.lose_events = false;
    world.runtime.delay_events = Duration::ZERO;
    world.runtime.behaviour = Behaviour::default();
    let now = world.now;
    world.runtime.come_up(now);
    world.manager.silent = false;
}

fn play(seed: u64, script: &[(u64, Disturbance)]) -> World {
    let mut world = World::with(timers(), seed);
    world.run_task(1, &spec(RestartCondition::Never));
    world.run_task(2, &spec(RestartCondition::Always));
    world.run_task(3, &checked(2, 2));
    for (wait, disturbance) in script {
        world.run(Duration::from_millis(*wait));
        disturb(&mut world, disturbance);
    }
    heal(&mut world);
    world
}

fn scripts() -> impl Strategy<Value = Vec<(u64, Disturbance)>> {
    proptest::collection::vec((0..4_000u64, disturbances()), 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn a_task_ends_where_it_should_once_all_is_well(seed in any::<u64>(), script in scripts()) {
        let mut world = play(seed, &script);
        world.run(seconds(180));
        for task in 1..=TASKS {
            let desired = world.manager.set[&wavetank_model::TaskId(task)].desired;
            let status = world.status(task);
            let is_settled = status.state == TaskState::Running || status.state.is_terminal();
            prop_assert!(is_settled, "{task} is {}\n{}", status.state, world.transcript);
            prop_assert_eq!(&world.reported(task), &status, "{}", &world.transcript);
            if desired != DesiredState::Running {
                prop_assert!(status.state.is_terminal(), "{task}\n{}", world.transcript);
            }
            let live = world.runtime.live().get(&wavetank_model::TaskId(task)).copied();
            let wanted = (status.state == TaskState::Running).then_some(1);
            prop_assert_eq!(live, wanted, "{}\n{}", task, &world.transcript);
        }
        let left = world.runtime.containers.len();
        let running = world.runtime.live().len();
        prop_assert_eq!(left, running, "{}", &world.transcript);
    }

    #[test]
    fn what_is_withdrawn_ends_in_nothing(seed in any::<u64>(), script in scripts()) {
        let mut world = play(seed, &script);
        for task in 1..=TASKS {
            world.shut_down(task);
        }
        world.run(seconds(90));
        for task in 1..=TASKS {
            prop_assert!(world.status(task).state.is_terminal(), "{}", &world.transcript);
            prop_assert!(world.has_memory_of(task), "{}", &world.transcript);
            world.withdraw(task);
        }
        world.run(seconds(60));
        for task in 1..=TASKS {
            prop_assert!(!world.has_memory_of(task), "{}", &world.transcript);
        }
        prop_assert!(world.runtime.containers.is_empty(), "{}", &world.transcript);
    }

    #[test]
    fn the_same_seed_gives_the_same_history(seed in any::<u64>(), script in scripts()) {
        let (mut one, mut two) = (play(seed, &script), play(seed, &script));
        one.run(seconds(30));
        two.run(seconds(30));
        prop_assert_eq!(&one.transcript, &two.transcript);
        prop_assert_eq!(&one.sent, &two.sent);
    }
}
