//! Restart rules: conditions, budget, waits, stability, health.

use std::time::Duration;

use wavetank_model::{Instant, Notice, Reason, RestartCondition, TaskId, TaskState};
use wavetank_port::{ErrorClass, ExitCode};

use super::harness::{World, checked, container, seconds, spec};
use super::runtime::Bend;

fn with_exit(condition: RestartCondition, code: i32, oom: bool) -> World {
    let mut world = World::new();
    world.runtime.behaviour.run_for = Some(Duration::from_millis(100));
    world.runtime.behaviour.code = code;
    world.runtime.behaviour.oom = oom;
    world.run_task(1, &spec(condition));
    world
}

#[test]
fn never_means_once() {
    let mut world = with_exit(RestartCondition::Never, 7, false);
    world.run(seconds(60));
    assert_eq!(world.reported(1).state, TaskState::Failed);
    assert_eq!(world.reported(1).reason, Some(Reason::ExitedNonZero));
    assert_eq!(
        world.reported(1).exit.map(|exit| exit.code),
        Some(ExitCode::Known(7))
    );
    assert_eq!(world.reported(1).attempt, 1);
}

#[test]
fn on_failure_leaves_a_success_alone() {
    let mut world = with_exit(RestartCondition::OnFailure, 0, false);
    world.run(seconds(60));
    assert_eq!(world.reported(1).state, TaskState::Complete);
    assert_eq!(world.reported(1).attempt, 1);
}

#[test]
fn a_crash_loop_ends_with_its_budget_and_grows_slower() {
    let mut world = with_exit(RestartCondition::OnFailure, 7, false);
    world.run(seconds(120));
    let status = world.reported(1);
    assert_eq!((status.state, status.attempt), (TaskState::Failed, 4));
    assert_eq!(status.reason, Some(Reason::CrashLoopBackoff));
    assert!(
        status.message.contains("exited_non_zero"),
        "{}",
        status.message
    );
    assert_eq!(status.exit.map(|exit| exit.code), Some(ExitCode::Known(7)));
    assert_eq!(
        world.count(|notice| matches!(notice, Notice::ExitObserved { .. })),
        4
    );
    assert!(world.runtime.containers.is_empty());
    insta::assert_snapshot!(world.transcript);
}

#[test]
fn always_restarts_what_ended_well_and_calls_it_early() {
    let mut world = with_exit(RestartCondition::Always, 0, false);
    world.run_until(1, TaskState::Backoff);
    assert_eq!(world.status(1).reason, Some(Reason::ExitedEarly));
    world.run(seconds(120));
    assert_eq!(world.reported(1).reason, Some(Reason::CrashLoopBackoff));
}

#[test]
fn a_run_that_lasts_forgives_earlier_restarts() {
    let mut world = World::new();
    world.runtime.behaviour.run_for = Some(seconds(31));
    world.runtime.behaviour.code = 1;
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(60 * 10));
    assert!(
        world.status(1).attempt > 10,
        "the budget of three was never spent"
    );
}

#[test]
fn restarts_are_counted_across_restarts_of_the_agent() {
    // A7: a monitor that crashes must not start counting anew.
    let mut world = with_exit(RestartCondition::Always, 1, false);
    for _ in 0..60 {
        world.run(seconds(1));
        world.restart();
    }
    world.run(seconds(60));
    assert_eq!(world.reported(1).state, TaskState::Failed);
    assert_eq!(world.reported(1).attempt, 4);
}

#[test]
fn too_little_memory_is_what_the_kernel_says_and_nothing_else() {
    let mut world = with_exit(RestartCondition::Never, 137, true);
    world.run(seconds(2));
    assert_eq!(world.reported(1).reason, Some(Reason::OomKilled));
    let mut world = with_exit(RestartCondition::Never, 137, false);
    world.run(seconds(2));
    assert_eq!(world.reported(1).reason, Some(Reason::ExitedNonZero));
}

#[test]
fn the_next_attempt_waits_until_the_last_container_is_gone() {
    let mut world = with_exit(RestartCondition::Always, 1, false);
    world.runtime.bends = vec![("delete", Bend::Error(ErrorClass::Unavailable), 3)];
    world.run_until(1, TaskState::Backoff);
    world.run(seconds(4));
    assert_eq!(world.state(1), Some(TaskState::Backoff));
    world.run(seconds(20));
    assert!(world.status(1).attempt > 1);
}

#[test]
fn one_bad_probe_does_not_fail_an_instance_but_enough_in_a_row_do() {
    // P7.
    let mut world = World::new();
    world.run_task(1, &checked(1, 3));
    world.run_until(1, TaskState::Running);
    world.run(Duration::from_millis(2500));
    world.runtime.behaviour.healthy = false;
    world.run(seconds(2));
    assert!(world.status(1).ready, "two bad probes are not three");
    world.runtime.behaviour.healthy = true;
    world.run(seconds(3));
    assert_eq!(world.status(1).attempt, 1);
    world.runtime.behaviour.healthy = false;
    world.run_until(1, TaskState::Backoff);
    assert_eq!(world.status(1).reason, Some(Reason::HealthcheckFailed));
    assert!(!world.status(1).ready);
}

#[test]
fn a_failed_instance_is_stopped_before_the_next_one_starts() {
    // P5: the old one used to be left running. The harness refuses two live containers.
    let mut world = World::new();
    world.runtime.behaviour.obeys_term = false;
    world.run_task(1, &checked(1, 1));
    world.run_until(1, TaskState::Running);
    world.runtime.behaviour.healthy = false;
    world.run(seconds(9));
    assert_eq!(
        world.state(1),
        Some(TaskState::Running),
        "it is still on its way out"
    );
    assert!(!world.status(1).ready, "and takes no traffic meanwhile");
    world.runtime.behaviour.healthy = true;
    world.run(seconds(10));
    assert_eq!(world.status(1).attempt, 2);
    assert!(!world.runtime.containers.contains_key(&container(1, 1)));
    let reason = Reason::HealthcheckFailed;
    let asked = |notice: &Notice| match notice {
        Notice::StopRequested { reason: why, .. } => *why == reason,
        _ => false,
    };
    assert_eq!(world.count(asked), 1);
}

#[test]
fn a_probe_that_cannot_run_is_no_verdict() {
    // P7: an error is neither healthy nor unhealthy.
    let mut world = World::new();
    world.runtime.bends = vec![
        ("probe", Bend::Error(ErrorClass::Unknown), 5),
        ("probe", Bend::Hang, 5),
    ];
    world.run_task(1, &checked(1, 1));
    world.run_until(1, TaskState::Running);
    world.run(seconds(11));
    assert_eq!(world.state(1), Some(TaskState::Running));
    assert!(!world.status(1).ready);
    world.run(seconds(5));
    assert!(world.status(1).ready);
}

#[test]
fn a_create_that_fails_is_tried_again_and_then_fails_the_attempt() {
    // P2: exactly the reason that fits.
    let mut world = World::new();
    world.runtime.bends = vec![("create", Bend::Error(ErrorClass::ResourceExhausted), 2)];
    world.run_task(1, &spec(RestartCondition::Never));
    world.run_until(1, TaskState::Running);

    let mut world = World::new();
    world.runtime.bends = vec![("create", Bend::Error(ErrorClass::ResourceExhausted), 9)];
    world.run_task(1, &spec(RestartCondition::Never));
    world.run(seconds(60));
    assert_eq!(world.reported(1).state, TaskState::Failed);
    assert_eq!(world.reported(1).reason, Some(Reason::RootfsBuildFailed));
}

#[test]
fn a_start_that_fails_is_tried_again_and_then_fails_the_attempt() {
    let mut world = World::new();
    world.runtime.bends = vec![("start", Bend::Error(ErrorClass::Unknown), 9)];
    world.run_task(1, &spec(RestartCondition::Never));
    world.run(seconds(60));
    assert_eq!(world.reported(1).state, TaskState::Failed);
    assert_eq!(world.reported(1).reason, Some(Reason::RuntimeStartFailed));
    assert_eq!(world.runtime.called["start"], 3);
    assert!(
        world.runtime.containers.is_empty(),
        "what could not start is removed"
    );
}

#[test]
fn an_unreachable_runtime_costs_no_budget() {
    let mut world = World::new();
    let down = Bend::Error(ErrorClass::Unavailable);
    world.runtime.bends = vec![("create", down, 6), ("start", down, 6)];
    world.run_task(1, &spec(RestartCondition::Never));
    world.run_until(1, TaskState::Running);
    assert_eq!(world.status(1).attempt, 1);
}

#[test]
fn what_the_runtime_refuses_as_invalid_is_rejected() {
    for verb in ["create", "start"] {
        let mut world = World::new();
        world.runtime.bends = vec![(verb, Bend::Error(ErrorClass::InvalidArgument), 1)];
        world.run_task(1, &spec(RestartCondition::Always));
        world.run(seconds(10));
        assert_eq!(world.reported(1).state, TaskState::Rejected, "{verb}");
        assert!(world.reported(1).reason.is_some());
        assert_eq!(world.runtime.called[verb], 1);
        assert!(world.runtime.containers.is_empty());
    }
}

#[test]
fn waits_between_attempts_are_those_of_the_policy() {
    let mut world = with_exit(RestartCondition::Always, 1, false);
    world.run(seconds(60));
    let mut waits = Vec::new();
    let mut failed_at = Instant::ZERO;
    for (at, _, message) in &world.sent {
        let wavetank_core::Message::Report { reports, .. } = message else {
            continue;
        };
        for report in reports.iter().filter(|report| report.task == TaskId(1)) {
            match report.status.state {
                TaskState::Backoff => failed_at = *at,
                TaskState::Pulling if report.status.attempt > 1 && failed_at > Instant::ZERO => {
                    waits.push(at.since(failed_at).as_millis());
                    failed_at = Instant::ZERO;
                }
                _ => {}
            }
        }
    }
    let bases = [1000, 2000, 4000];
    assert_eq!(waits.len(), bases.len());
    for (wait, base) in waits.iter().zip(bases) {
        assert!((base..=base + base / 4).contains(wait), "{waits:?}");
    }
}
