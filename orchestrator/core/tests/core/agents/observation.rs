//! What the agent sees, and what it makes of seeing nothing: unknown is never absent.

use std::time::Duration;

use wavetank_model::{Notice, Reason, RestartCondition, TaskState};
use wavetank_port::{ContainerStatus, ErrorClass, ExitCode, RuntimeEvent};

use super::harness::{World, container, own_labels, seconds, spec};
use super::runtime::Bend;

fn running(condition: RestartCondition) -> World {
    let mut world = World::new();
    world.run_task(1, &spec(condition));
    world.run_until(1, TaskState::Running);
    world.run(Duration::from_millis(100));
    world
}

fn destructive_calls(world: &World) -> u32 {
    ["stop", "kill", "delete"]
        .iter()
        .filter_map(|verb| world.runtime.called.get(verb))
        .sum()
}

#[test]
fn failed_hung_and_empty_listings_change_nothing() {
    // A10: a socket that hung made all containers look absent.
    let mut world = running(RestartCondition::Always);
    let before = world.path(1);
    world.runtime.bends = vec![
        ("list", Bend::Error(ErrorClass::Unavailable), 3),
        ("list", Bend::Hang, 3),
        ("inspect", Bend::Error(ErrorClass::DeadlineExceeded), 2),
    ];
    world.runtime.empty_listings = 20;
    world.run(seconds(120));
    assert_eq!(world.path(1), before);
    assert_eq!(destructive_calls(&world), 0);
    let blind = world.count(|notice| matches!(notice, Notice::ObservationFailed { .. }));
    assert!(blind >= 6, "it says that it could not see");
}

#[test]
fn a_lost_container_is_noticed_after_two_looks_and_replaced() {
    // W16: "no task" was ignored for ever.
    let mut world = running(RestartCondition::Always);
    world.runtime.lose_events = true;
    world.runtime.containers.clear();
    world.run(seconds(5));
    assert_eq!(
        world.state(1),
        Some(TaskState::Running),
        "one look is not enough"
    );
    world.run(seconds(20));
    assert_eq!(world.state(1), Some(TaskState::Running));
    assert_eq!(world.status(1).attempt, 2);
    assert!(world.path(1).contains("backoff.1"));
    let lost = |notice: &Notice| {
        matches!(notice, Notice::TaskMoved { status, .. }
            if status.reason == Some(Reason::ContainerLost) && status.exit.is_none())
    };
    assert!(world.count(lost) >= 1);
}

#[test]
fn one_wrong_answer_does_not_lose_a_container() {
    let mut world = running(RestartCondition::Always);
    world.runtime.bends = vec![("inspect", Bend::Error(ErrorClass::NotFound), 1)];
    world.runtime.empty_listings = 1;
    world.run(seconds(60));
    assert_eq!(world.status(1).attempt, 1);
    assert_eq!(destructive_calls(&world), 0);
}

#[test]
fn a_container_that_fell_back_to_created_is_seen_and_replaced() {
    // A6: invisible to a monitor that only looks for what has exited.
    let mut world = running(RestartCondition::Always);
    let state = world
        .runtime
        .containers
        .get_mut(&container(1, 1))
        .expect("it runs");
    state.status = ContainerStatus::Created;
    world.run(seconds(30));
    assert_eq!(world.status(1).attempt, 2);
    assert_eq!(world.state(1), Some(TaskState::Running));
    assert!(!world.runtime.containers.contains_key(&container(1, 1)));
}

#[test]
fn a_lost_exit_event_is_made_up_for_by_the_listing() {
    let mut world = running(RestartCondition::Never);
    world.runtime.lose_events = true;
    let now = world.now;
    world
        .runtime
        .end(now, &container(1, 1), ExitCode::Known(5), false);
    world.run(seconds(6));
    assert_eq!(world.reported(1).state, TaskState::Failed);
    assert_eq!(
        world.reported(1).exit.map(|exit| exit.code),
        Some(ExitCode::Known(5))
    );
}

#[test]
fn repeated_and_late_events_say_nothing_new() {
    // R15: each wait published the exit again.
    let mut world = World::new();
    world.runtime.repeat_events = true;
    world.runtime.delay_events = seconds(7);
    world.runtime.behaviour.run_for = Some(seconds(2));
    world.runtime.behaviour.code = 1;
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(90));
    let attempts = world.status(1).attempt as usize;
    assert_eq!(attempts, 4);
    assert_eq!(
        world.count(|notice| matches!(notice, Notice::ExitObserved { .. })),
        attempts
    );
}

#[test]
fn an_exit_event_settles_what_the_runtime_has_already_removed() {
    let mut world = running(RestartCondition::Never);
    let now = world.now;
    world
        .runtime
        .end(now, &container(1, 1), ExitCode::Known(4), false);
    world.runtime.containers.clear();
    world.run(seconds(1));
    assert_eq!(world.reported(1).state, TaskState::Failed);
    assert_eq!(world.reported(1).reason, Some(Reason::ExitedNonZero));
}

#[test]
fn an_event_alone_ends_nothing() {
    // The runtime says that it exited, and when asked that it runs.
    let mut world = running(RestartCondition::Always);
    let exit = wavetank_port::ExitStatus {
        code: ExitCode::Known(0),
        exited_at: None,
        oom_killed: false,
    };
    world.handle(wavetank_core::Input::RuntimeEvent(RuntimeEvent::Exited {
        id: container(1, 1),
        exit,
    }));
    world.handle(wavetank_core::Input::RuntimeEvent(RuntimeEvent::Deleted {
        id: container(1, 1),
    }));
    world.run(seconds(10));
    assert_eq!(world.state(1), Some(TaskState::Running));
    assert_eq!(world.status(1).attempt, 1);
}

#[test]
fn lost_answers_are_found_out() {
    for verb in ["create", "start", "inspect", "list", "delete"] {
        let mut world = World::new();
        world.runtime.bends = vec![(verb, Bend::LoseReply, 1)];
        world.runtime.behaviour.run_for = Some(seconds(1));
        world.run_task(1, &spec(RestartCondition::Never));
        world.run(seconds(60));
        assert_eq!(world.reported(1).state, TaskState::Complete, "{verb}");
        assert_eq!(world.reported(1).attempt, 1, "{verb}");
        assert!(world.runtime.containers.is_empty(), "{verb}");
    }
}

#[test]
fn a_start_that_takes_effect_after_it_was_given_up_starts_nothing_twice() {
    let mut world = World::new();
    world.runtime.bends = vec![("start", Bend::Late(seconds(12)), 1)];
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(60));
    assert_eq!(world.state(1), Some(TaskState::Running));
    assert_eq!(world.status(1).attempt, 1);
}

#[test]
fn a_daemon_that_restarts_is_listed_at_once() {
    let mut world = running(RestartCondition::Never);
    let now = world.now;
    world.runtime.go_down(now, true);
    world
        .runtime
        .end(now, &container(1, 1), ExitCode::Known(9), false);
    world.run(seconds(1));
    let now = world.now;
    world.runtime.come_up(now);
    world.run(Duration::from_millis(100));
    assert_eq!(
        world.reported(1).exit.map(|exit| exit.code),
        Some(ExitCode::Known(9))
    );
}

#[test]
fn a_daemon_that_forgot_its_containers_gets_new_ones() {
    let mut world = running(RestartCondition::Always);
    let now = world.now;
    world.runtime.go_down(now, false);
    world.run(seconds(2));
    let now = world.now;
    world.runtime.come_up(now);
    world.run(seconds(30));
    assert_eq!(world.state(1), Some(TaskState::Running));
    assert!(world.runtime.is_running(&container(1, 2)));
}

#[test]
fn orphans_are_stopped_with_grace_and_removed() {
    let mut world = running(RestartCondition::Always);
    world.runtime.behaviour.obeys_term = false;
    let (stranger, unnamed) = (
        container(99, 3),
        wavetank_port::ContainerId("left-over".into()),
    );
    let mut labels = own_labels(99);
    labels.insert("wavetank.stop-grace-ms".into(), "30000".into());
    world
        .runtime
        .put(&stranger, labels, ContainerStatus::Running);
    world
        .runtime
        .put(&unnamed, own_labels(98), ContainerStatus::Exited);
    world.run(seconds(25));
    assert!(
        world.runtime.is_running(&stranger),
        "its own grace, as its label says"
    );
    assert!(!world.runtime.containers.contains_key(&unnamed));
    world.run(seconds(20));
    assert!(!world.runtime.containers.contains_key(&stranger));
    assert_eq!(
        world.count(|notice| matches!(notice, Notice::OrphanRemoved { .. })),
        2
    );
    assert_eq!(
        world.status(1).attempt,
        1,
        "its own containers are left alone"
    );
}

#[test]
fn nothing_is_an_orphan_before_the_agent_knows_what_it_should_have() {
    let mut world = World::new();
    world.manager.silent = true;
    world
        .runtime
        .put(&container(5, 1), own_labels(5), ContainerStatus::Running);
    world.run(seconds(60));
    assert!(world.runtime.is_running(&container(5, 1)));
    world.manager.silent = false;
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(60));
    assert!(!world.runtime.containers.contains_key(&container(5, 1)));
}

#[test]
fn containers_of_other_nodes_are_none_of_its_business() {
    let mut world = running(RestartCondition::Always);
    let other = container(77, 1);
    let mut labels = own_labels(77);
    labels.insert("wavetank.node".into(), "agent-9".into());
    world
        .runtime
        .put(&other, labels.clone(), ContainerStatus::Running);
    // Not even if one of them has the id that a task of this node is about to take.
    world
        .runtime
        .put(&container(2, 1), labels, ContainerStatus::Running);
    world.run_task(2, &spec(RestartCondition::Always));
    world.run(seconds(60));
    assert!(world.runtime.is_running(&other) && world.runtime.is_running(&container(2, 1)));
    assert!(
        world.runtime.is_running(&container(2, 2)),
        "the task runs under its next name"
    );
}

#[test]
fn an_answer_that_is_older_than_an_event_does_not_hide_it() {
    let mut world = running(RestartCondition::Never);
    let id = container(1, 1);
    // Something makes the agent look, and while the answer is on its way the process ends.
    world.handle(wavetank_core::Input::RuntimeEvent(RuntimeEvent::Deleted {
        id: id.clone(),
    }));
    world.run(Duration::from_millis(1));
    world.runtime.lose_events = true;
    let now = world.now;
    world.runtime.end(now, &id, ExitCode::Known(2), false);
    let exit = world.runtime.containers[&id].exit.expect("it has ended");
    world.handle(wavetank_core::Input::RuntimeEvent(RuntimeEvent::Exited {
        id,
        exit,
    }));
    world.run(Duration::from_millis(10));
    assert_eq!(
        world.state(1),
        Some(TaskState::Failed),
        "not only after the next listing"
    );
}
