//! Pulling images: retries, waits, limits, one pull for many tasks.

use wavetank_model::{Instant, Notice, Reason, RestartCondition, TaskState};
use wavetank_port::ErrorClass;

use super::harness::{World, seconds, spec, timers};
use super::runtime::Bend;

fn delays(world: &World) -> Vec<(u32, u64)> {
    let delays = world.notices.iter().filter_map(|notice| match notice {
        Notice::PullDelayed {
            failures, delay, ..
        } => Some((
            *failures,
            u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        )),
        _ => None,
    });
    delays.collect()
}

#[test]
fn a_registry_that_comes_back_is_found_with_growing_jittered_waits() {
    // A1, P3: the pull that finally succeeds leads to a start.
    let mut world = World::new();
    world.runtime.bends = vec![("pull", Bend::Error(ErrorClass::Unavailable), 5)];
    world.run_task(1, &spec(RestartCondition::Always));
    world.run_until(1, TaskState::Running);
    let delays = delays(&world);
    let bases = [1000, 2000, 4000, 8000, 8000];
    assert_eq!(delays.len(), bases.len());
    for ((failures, delay), (at, base)) in delays.iter().zip(bases.iter().enumerate()) {
        assert_eq!(*failures as usize, at + 1);
        assert!(
            (*base..=base + base / 4).contains(delay),
            "{delay} after {failures} failures"
        );
    }
    assert!(
        delays.iter().any(|(_, delay)| delay % 1000 != 0),
        "waits are jittered"
    );
    assert_eq!(
        world.path(1),
        "accepted.1 pulling.1 pulling.1 creating.1 starting.1 running.1"
    );
}

#[test]
fn a_task_that_waits_for_its_image_says_why_once_and_forgets_it_when_the_image_is_there() {
    let mut world = World::new();
    world.runtime.bends = vec![
        ("pull", Bend::Error(ErrorClass::NotFound), 3),
        ("pull", Bend::Error(ErrorClass::Unauthenticated), 1),
    ];
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(5));
    let waiting = world.reported(1);
    assert_eq!(waiting.state, TaskState::Pulling);
    assert_eq!(waiting.reason, Some(Reason::ImagePullFailed));
    assert!(waiting.message.contains("not-found"), "{}", waiting.message);
    world.run_until(1, TaskState::Running);
    let status = world.reported(1);
    assert_eq!((status.reason, status.message), (None, String::new()));
    // Three failures alike are one piece of news, the fourth is another.
    assert_eq!(
        world.path(1),
        "accepted.1 pulling.1 pulling.1 pulling.1 creating.1 starting.1 running.1"
    );
}

#[test]
fn the_last_allowed_attempt_fails_the_task_and_says_why() {
    // A1, W1: an error must not look like a success, and it ends.
    let mut timers = timers();
    timers.pull_attempts_max = Some(3);
    let mut world = World::with(timers, 1);
    world.runtime.bends = vec![("pull", Bend::Error(ErrorClass::NotFound), 9)];
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(60));
    let status = world.reported(1);
    assert_eq!(status.state, TaskState::Failed);
    assert_eq!(status.reason, Some(Reason::ImagePullFailed));
    assert!(status.message.contains("not-found"), "{}", status.message);
    assert_eq!(world.runtime.called["pull"], 3);
    assert_eq!(
        delays(&world).len(),
        2,
        "the last failure is not followed by a wait"
    );
}

#[test]
fn an_invalid_reference_is_rejected_at_once() {
    let mut world = World::new();
    world.runtime.bends = vec![("pull", Bend::Error(ErrorClass::InvalidArgument), 9)];
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(10));
    assert_eq!(world.reported(1).state, TaskState::Rejected);
    assert_eq!(world.reported(1).reason, Some(Reason::ImagePullFailed));
    assert_eq!(world.runtime.called["pull"], 1);
}

#[test]
fn many_tasks_share_one_pull_of_one_image() {
    let mut world = World::new();
    world.runtime.bends = vec![("pull", Bend::Late(seconds(3)), 1)];
    let mut other = spec(RestartCondition::Always);
    other.image.0 = "other".into();
    for task in 1..=3 {
        world.run_task(task, &spec(RestartCondition::Always));
    }
    world.run_task(4, &other);
    world.run(seconds(2));
    assert_eq!(world.runtime.called["pull"], 2, "one per image");
    assert_eq!(
        world.state(4),
        Some(TaskState::Running),
        "and they do not wait for each other"
    );
    assert_eq!(world.state(1), Some(TaskState::Pulling));
    world.run(seconds(2));
    assert!((1..=3).all(|task| world.state(task) == Some(TaskState::Running)));
    assert_eq!(world.runtime.called["pull"], 2);
}

#[test]
fn a_pull_that_hangs_is_given_up_and_tried_again() {
    let mut world = World::new();
    world.runtime.bends = vec![("pull", Bend::Hang, 1)];
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(19));
    assert_eq!(world.state(1), Some(TaskState::Pulling));
    world.run(seconds(5));
    assert_eq!(world.state(1), Some(TaskState::Running));
    let given_up = |notice: &Notice| {
        matches!(
            notice,
            Notice::PullDelayed {
                class: ErrorClass::DeadlineExceeded,
                ..
            }
        )
    };
    assert_eq!(world.count(given_up), 1);
}

#[test]
fn a_hanging_pull_holds_up_no_heartbeat() {
    // H13: a slow pull once cost an agent its connection.
    let mut world = World::new();
    world.runtime.bends = vec![
        ("pull", Bend::Hang, 99),
        ("list", Bend::Hang, 99),
        ("inspect", Bend::Hang, 99),
    ];
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(60));
    assert!(world.heartbeats() >= 30);
    assert_eq!(world.manager.sessions, 1, "the session was never lost");
}

#[test]
fn a_stop_during_a_pull_takes_effect_at_once_and_the_late_image_starts_nothing() {
    // P4.
    let mut world = World::new();
    world.runtime.bends = vec![("pull", Bend::Late(seconds(5)), 1)];
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(1));
    world.shut_down(1);
    world.run(seconds(1));
    assert_eq!(world.reported(1).state, TaskState::Shutdown);
    world.run(seconds(10));
    assert_eq!(world.runtime.called.get("create"), None);
}

#[test]
fn an_image_that_vanished_after_its_pull_is_pulled_again() {
    // A3, P14: the pull said yes, the create says there is no such image.
    let mut world = World::new();
    world.runtime.bends = vec![("create", Bend::Error(ErrorClass::NotFound), 1)];
    world.run_task(1, &spec(RestartCondition::Never));
    world.run_until(1, TaskState::Running);
    assert_eq!(world.runtime.called["pull"], 2);
    assert_eq!(world.status(1).attempt, 1);
}

#[test]
fn an_image_that_is_never_there_fails_the_attempt_before_anything_is_created() {
    let mut world = World::new();
    world.runtime.bends = vec![("create", Bend::Error(ErrorClass::NotFound), 99)];
    world.run_task(1, &spec(RestartCondition::Never));
    world.run(seconds(60));
    assert_eq!(world.reported(1).state, TaskState::Failed);
    assert_eq!(world.reported(1).reason, Some(Reason::ImagePullFailed));
    assert_eq!(world.runtime.called["create"], 3);
}

#[test]
fn nothing_is_pulled_before_the_agent_knows_its_containers() {
    let mut world = World::new();
    world.runtime.bends = vec![("list", Bend::Error(ErrorClass::Unavailable), 3)];
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(1));
    assert_eq!(world.runtime.called.get("pull"), None);
    assert_eq!(world.state(1), Some(TaskState::Accepted));
    world.run(seconds(30));
    assert_eq!(world.state(1), Some(TaskState::Running));
    assert!(world.now > Instant::ZERO);
}
