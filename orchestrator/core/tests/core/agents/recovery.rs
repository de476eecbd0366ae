//! Restarts of the agent and of its machine: adopt what runs, report what ended, restart what
//! should run, leave alone what was stopped.

use std::time::Duration;

use wavetank_core::Stored;
use wavetank_model::{DesiredState, Notice, Reason, RestartCondition, TaskState};
use wavetank_port::{ContainerStatus, ExitCode};

use super::harness::{World, checked, container, own_labels, seconds, spec};
use super::runtime::Bend;

fn running(condition: RestartCondition) -> World {
    let mut world = World::new();
    world.run_task(1, &spec(condition));
    world.run_until(1, TaskState::Running);
    world.run(Duration::from_millis(100));
    world
}

fn adoptions(world: &World) -> usize {
    world.count(|notice| matches!(notice, Notice::InstanceAdopted { .. }))
}

#[test]
fn a_restarted_agent_adopts_what_runs() {
    let mut world = running(RestartCondition::Always);
    let before = world.path(1);
    world.restart();
    world.run(seconds(20));
    assert_eq!(world.path(1), before, "nothing happened to the task");
    assert_eq!(adoptions(&world), 1);
    assert_eq!(world.runtime.called["create"], 1);
}

#[test]
fn an_agent_that_lost_its_memory_adopts_by_name() {
    // W7: "already exists" was taken for a failure, and the task ran twice.
    let mut world = running(RestartCondition::Always);
    assert_eq!(world.lose_disk(), 1);
    world.restart();
    world.run(seconds(20));
    assert_eq!(world.state(1), Some(TaskState::Running));
    assert_eq!(adoptions(&world), 1);
    assert_eq!(world.runtime.live().values().sum::<u32>(), 1);
}

#[test]
fn an_agent_that_lost_everything_counts_on_from_what_managers_know() {
    // Managers took the first reports of its second life for repetitions of its first, said so,
    // and went on believing that the task ran.
    let mut world = running(RestartCondition::Never);
    let before = world.reported(1);
    world.kill();
    assert_eq!(world.lose_disk(), 1);
    world.runtime.containers.clear();
    world.start();
    world.run(seconds(30));
    let after = world.reported(1);
    assert_eq!(after, world.status(1), "managers know what the agent knows");
    assert_eq!(after.state, TaskState::Failed);
    assert_eq!(
        after.attempt, before.attempt,
        "what ran is over, not begun again"
    );
    assert!(after.sequence > before.sequence);
}

#[test]
fn an_agent_that_lost_its_memory_clears_other_attempts_away_first() {
    let mut world = World::new();
    world.runtime.behaviour.obeys_term = false;
    world
        .runtime
        .put(&container(1, 3), own_labels(1), ContainerStatus::Running);
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(30));
    assert!(world.runtime.is_running(&container(1, 1)));
    assert!(!world.runtime.containers.contains_key(&container(1, 3)));
}

#[test]
fn an_exit_while_the_agent_is_away_is_reported_once() {
    // R15, P1: also if the agent restarts again before anybody listens.
    let mut world = running(RestartCondition::Never);
    world.kill();
    let now = world.now;
    world
        .runtime
        .end(now, &container(1, 1), ExitCode::Known(6), false);
    world.run(seconds(5));
    world.manager.silent = true;
    for _ in 0..5 {
        world.restart();
        world.run(seconds(5));
    }
    assert_eq!(world.state(1), Some(TaskState::Failed));
    assert_eq!(
        world.reported(1).state,
        TaskState::Running,
        "nobody has heard yet"
    );
    world.manager.silent = false;
    world.run(seconds(10));
    assert_eq!(world.reported(1).state, TaskState::Failed);
    assert_eq!(
        world.reported(1).exit.map(|exit| exit.code),
        Some(ExitCode::Known(6))
    );
}

#[test]
fn after_a_power_loss_everything_runs_again_without_managers() {
    // A9, W15: also what nobody can ask about.
    let mut world = running(RestartCondition::Always);
    world.manager.silent = true;
    world.kill();
    world.runtime.lose_power();
    world.start();
    world.run(seconds(20));
    assert_eq!(world.state(1), Some(TaskState::Running));
    assert_eq!(world.status(1).attempt, 2);
    let unknown = |notice: &Notice| {
        matches!(notice, Notice::TaskMoved { status, .. }
            if status.reason == Some(Reason::ExitUnknown))
    };
    assert_eq!(world.count(unknown), 1);
}

#[test]
fn after_a_power_loss_that_took_the_containers_too_everything_runs_again() {
    let mut world = running(RestartCondition::Always);
    world.manager.silent = true;
    world.kill();
    world.runtime.lose_power();
    world.runtime.containers.clear();
    world.start();
    world.run(seconds(30));
    assert!(world.runtime.is_running(&container(1, 2)));
}

#[test]
fn what_was_stopped_stays_stopped() {
    // A8.
    let mut world = running(RestartCondition::Always);
    world.shut_down(1);
    world.run(seconds(1));
    world.manager.silent = true;
    world.kill();
    world.runtime.lose_power();
    world.start();
    world.run(seconds(120));
    assert_eq!(world.state(1), Some(TaskState::Shutdown));
    assert_eq!(world.runtime.called["start"], 1);
}

#[test]
fn a_crash_within_a_partition_is_repaired_and_reported_when_it_heals() {
    // W15, P1: nothing is lost, and nothing is said twice.
    let mut world = running(RestartCondition::Always);
    world.manager.silent = true;
    world.run(seconds(60));
    let now = world.now;
    world
        .runtime
        .end(now, &container(1, 1), ExitCode::Known(1), false);
    world.run(seconds(60));
    assert!(world.runtime.is_running(&container(1, 2)));
    assert_eq!(world.reported(1).attempt, 1);
    world.manager.silent = false;
    world.run(seconds(20));
    assert_eq!(world.reported(1), world.status(1));
}

#[test]
fn an_agent_that_restarts_in_any_state_goes_on() {
    for verb in ["pull", "create", "start", "inspect"] {
        let mut world = World::new();
        world.runtime.bends = vec![(verb, Bend::LoseReply, 1)];
        world.run_task(1, &spec(RestartCondition::Always));
        world.run(seconds(1));
        world.restart();
        world.run(seconds(10));
        assert_eq!(world.state(1), Some(TaskState::Running), "{verb}");
        assert_eq!(world.status(1).attempt, 1, "{verb}");
    }
}

#[test]
fn readiness_survives_a_restart_of_the_agent() {
    let mut world = World::new();
    world.run_task(1, &checked(2, 2));
    world.run(seconds(10));
    let before = world.path(1);
    world.restart();
    world.run(seconds(10));
    assert_eq!(world.path(1), before);
    assert!(world.status(1).ready);
}

#[test]
fn a_damaged_disk_is_not_believed() {
    let mut world = running(RestartCondition::Always);
    world.disk().insert(1, Stored::Damaged);
    world.manager.silent = true;
    world.restart();
    world.run(seconds(30));
    assert!(
        world.runtime.is_running(&container(1, 1)),
        "and nothing is done because of it"
    );
    let (_, _, message) = world.sent.last().expect("it keeps asking");
    assert_eq!(message.kind(), "register");
}

#[test]
fn stale_orders_stay_refused_after_a_restart() {
    // H12: an old leader's set must not bring back what its successor took away.
    let mut world = running(RestartCondition::Always);
    let stale = world.manager.set.clone();
    let stale_revision = world.manager.revision;
    world.withdraw(1);
    world.run(seconds(5));
    world.restart();
    world.run(seconds(1));
    let current = std::mem::replace(&mut world.manager.set, stale);
    let revision = std::mem::replace(&mut world.manager.revision, stale_revision);
    world.push_assignments();
    world.manager.set = current;
    world.manager.revision = revision;
    world.run(seconds(20));
    assert!(!world.has_memory_of(1));
    assert_eq!(world.runtime.called["create"], 1);
    let refused = world.count(|notice| matches!(notice, Notice::AssignmentsRefused { .. }));
    assert_eq!(refused, 1);
}

#[test]
fn an_order_of_an_older_epoch_is_refused() {
    let mut world = running(RestartCondition::Always);
    world.manager.epoch = wavetank_model::Epoch(5);
    world.push_assignments();
    world.run(seconds(1));
    world.manager.epoch = wavetank_model::Epoch(4);
    world.withdraw(1);
    world.run(seconds(3));
    assert_eq!(world.state(1), Some(TaskState::Running));
    assert!(world.count(|notice| matches!(notice, Notice::AssignmentsRefused { .. })) >= 1);
}

#[test]
fn desired_states_only_grow() {
    let mut world = running(RestartCondition::Always);
    world.shut_down(1);
    world.run(seconds(2));
    let spec = spec(RestartCondition::Always);
    world.assign(1, &spec, DesiredState::Running);
    world.run(seconds(10));
    assert_eq!(world.state(1), Some(TaskState::Shutdown));
}
