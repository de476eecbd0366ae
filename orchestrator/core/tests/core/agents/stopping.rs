//! Stops: grace, repetition, things that are gone already, stops at inconvenient moments.

use std::time::Duration;

use wavetank_model::{Notice, Reason, RestartCondition, TaskState};
use wavetank_port::{ErrorClass, ExitCode};

use super::harness::{World, container, seconds, spec};
use super::runtime::Bend;

fn running() -> World {
    let mut world = World::new();
    world.run_task(1, &spec(RestartCondition::Always));
    world.run_until(1, TaskState::Running);
    world.run(Duration::from_millis(100));
    world
}

fn stops(world: &World) -> u32 {
    world
        .runtime
        .called
        .get("stop")
        .copied()
        .unwrap_or_default()
}

#[test]
fn a_long_grace_is_honoured_and_taken_for_nothing_else() {
    // A11, A12: not a failure, no restart meanwhile, and 137 is no proof of too little memory.
    let mut world = World::new();
    world.runtime.behaviour.obeys_term = false;
    let mut patient = spec(RestartCondition::Always);
    patient.stop_grace = seconds(600);
    world.run_task(1, &patient);
    world.run_until(1, TaskState::Running);
    world.shut_down(1);
    world.run(seconds(599));
    assert_eq!(world.state(1), Some(TaskState::Stopping));
    assert!(
        world.runtime.is_running(&container(1, 1)),
        "not one second is taken away"
    );
    assert_eq!(stops(&world), 1);
    world.run(seconds(2));
    let status = world.reported(1);
    assert_eq!(status.state, TaskState::Shutdown);
    assert_eq!(status.reason, Some(Reason::TerminatedByOperator));
    assert_eq!(
        status.exit.map(|exit| exit.code),
        Some(ExitCode::Known(137))
    );
    assert_eq!(status.attempt, 1);
}

#[test]
fn repeated_orders_make_one_stop() {
    // W9: a graceful stop that took longer than the poll was begun again and again.
    let mut world = running();
    world.runtime.behaviour.obeys_term = false;
    for _ in 0..8 {
        world.shut_down(1);
        world.run(seconds(1));
    }
    assert_eq!(stops(&world), 1);
    assert_eq!(
        world.count(|notice| matches!(notice, Notice::StopRequested { .. })),
        1
    );
}

#[test]
fn stopping_something_that_has_ended_already_succeeds() {
    // W8, R3: the exit was not seen yet when the order came.
    let mut world = running();
    world.runtime.lose_events = true;
    let now = world.now;
    world
        .runtime
        .end(now, &container(1, 1), ExitCode::Known(3), false);
    world.shut_down(1);
    world.run(seconds(1));
    assert_eq!(world.reported(1).state, TaskState::Shutdown);
    assert_eq!(
        world.reported(1).exit.map(|exit| exit.code),
        Some(ExitCode::Known(3))
    );
    assert!(world.runtime.containers.is_empty());
}

#[test]
fn stopping_something_that_is_gone_succeeds() {
    let mut world = running();
    world.runtime.lose_events = true;
    world.runtime.containers.clear();
    world.shut_down(1);
    world.run(seconds(3));
    assert_eq!(world.reported(1).state, TaskState::Shutdown);
    assert_eq!(world.reported(1).exit, None, "nobody knows, so nobody says");
}

#[test]
fn a_stop_that_is_never_answered_ends_in_a_forced_removal_after_the_grace() {
    let mut world = running();
    world.runtime.bends = vec![("stop", Bend::Hang, 9)];
    world.shut_down(1);
    world.run(seconds(19));
    assert!(world.runtime.is_running(&container(1, 1)));
    world.run(seconds(5));
    assert_eq!(world.reported(1).state, TaskState::Shutdown);
    assert!(world.runtime.containers.is_empty());
    assert_eq!(stops(&world), 1, "asked once, then forced");
}

#[test]
fn a_stop_whose_answer_is_lost_is_found_out_by_the_exit() {
    let mut world = running();
    world.runtime.bends = vec![("stop", Bend::LoseReply, 1)];
    world.shut_down(1);
    world.run(seconds(1));
    assert_eq!(world.reported(1).state, TaskState::Shutdown);
}

#[test]
fn a_runtime_that_refuses_to_stop_is_asked_again_and_the_grace_starts_when_it_listens() {
    let mut world = running();
    world.runtime.behaviour.obeys_term = false;
    world.runtime.bends = vec![("stop", Bend::Error(ErrorClass::Unavailable), 12)];
    world.shut_down(1);
    world.run(seconds(40));
    assert_eq!(world.state(1), Some(TaskState::Stopping));
    assert!(
        world.runtime.is_running(&container(1, 1)),
        "force is not the answer to an error"
    );
    world.run(seconds(40));
    assert_eq!(world.reported(1).state, TaskState::Shutdown);
}

#[test]
fn a_runtime_that_says_stopped_while_the_process_lives_is_not_believed() {
    // R12: a kill that timed out was reported as a success.
    let mut world = running();
    world.runtime.bends = vec![("stop", Bend::Error(ErrorClass::DeadlineExceeded), 99)];
    world.shut_down(1);
    world.run(seconds(15));
    assert_eq!(world.state(1), Some(TaskState::Stopping));
    world.run(seconds(20));
    assert_eq!(world.reported(1).state, TaskState::Shutdown);
    assert!(
        world.runtime.containers.is_empty(),
        "removed by force in the end"
    );
}

#[test]
fn an_order_to_stop_is_obeyed_in_every_state() {
    // P4. Each verb hangs in turn, so that the order arrives in each state.
    for verb in ["list", "pull", "create", "start"] {
        let mut world = World::new();
        world.runtime.bends = vec![(verb, Bend::Hang, 1)];
        world.run_task(1, &spec(RestartCondition::Always));
        world.run(seconds(1));
        assert_ne!(world.state(1), Some(TaskState::Running), "{verb}");
        world.shut_down(1);
        world.run(seconds(30));
        assert_eq!(world.reported(1).state, TaskState::Shutdown, "{verb}");
        assert!(world.runtime.containers.is_empty(), "{verb}");
        assert!(
            !world.path(1).contains("running"),
            "{verb}: {}",
            world.path(1)
        );
    }
}

#[test]
fn a_create_that_takes_effect_after_the_stop_leaves_nothing_behind() {
    let mut world = World::new();
    world.runtime.bends = vec![("create", Bend::Late(seconds(25)), 1)];
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(1));
    world.shut_down(1);
    world.run(seconds(15));
    assert_eq!(world.reported(1).state, TaskState::Shutdown);
    world.withdraw(1);
    world.run(seconds(20));
    assert!(world.runtime.containers.is_empty(), "the listing found it");
    let orphan = container(1, 1);
    let removed = |notice: &Notice| match notice {
        Notice::OrphanRemoved { container } => *container == orphan,
        _ => false,
    };
    assert_eq!(world.count(removed), 1);
}

#[test]
fn a_stop_during_the_wait_for_the_next_attempt_is_final() {
    let mut world = World::new();
    world.runtime.behaviour.run_for = Some(Duration::ZERO);
    world.run_task(1, &spec(RestartCondition::Always));
    world.run_until(1, TaskState::Backoff);
    world.shut_down(1);
    world.run(seconds(30));
    assert_eq!(world.reported(1).state, TaskState::Shutdown);
    assert_eq!(world.status(1).attempt, 1);
}

#[test]
fn a_removal_that_fails_is_repeated_until_it_succeeds() {
    // A13: resumable, and not forgotten before.
    let mut world = running();
    world.runtime.bends = vec![
        ("delete", Bend::Error(ErrorClass::Unknown), 2),
        ("delete", Bend::Hang, 1),
        ("delete", Bend::LoseReply, 1),
    ];
    world.withdraw(1);
    world.run(seconds(10));
    assert_eq!(world.reported(1).state, TaskState::Shutdown);
    assert!(world.has_memory_of(1));
    world.run(seconds(40));
    assert!(!world.has_memory_of(1));
    assert!(world.runtime.containers.is_empty());
}

#[test]
fn a_stop_goes_on_where_it_was_after_the_agent_restarts() {
    let mut world = running();
    world.runtime.behaviour.obeys_term = false;
    world.shut_down(1);
    world.run(seconds(3));
    world.restart();
    world.run(seconds(30));
    assert_eq!(world.reported(1).state, TaskState::Shutdown);
    assert_eq!(
        world.count(|notice| matches!(notice, Notice::StopRequested { .. })),
        1
    );
}
