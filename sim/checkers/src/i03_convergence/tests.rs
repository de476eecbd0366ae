//! Traces that have converged, and traces that have not.

use super::*;
use crate::testing::{Trace, exit, failed, node, removed, service, spec, status, stopped, task};
use wavetank_model::{DesiredState, Reason, TaskStatus};
use wavetank_trace::{ExitCause, HostState};

fn found(trace: &Trace) -> Vec<String> {
    trace.findings(&["I3"])
}

#[test]
fn what_was_asked_for_passes() {
    let mut trace = Trace::started(&spec());
    trace.up(1, 1);
    assert_eq!(found(trace.end()), Vec::<String>::new());
}

#[test]
fn a_missing_task_fails() {
    let mut trace = Trace::started(&spec());
    assert_eq!(found(trace.end()), ["I3/missing-instances"]);
}

#[test]
fn a_task_whose_container_is_gone_is_missing() {
    let mut trace = Trace::started(&spec());
    trace.up(1, 1);
    trace.exited(1, 1, 1, exit(1), ExitCause::Itself);
    assert_eq!(found(trace.end()), ["I3/missing-instances"]);
}

#[test]
fn nothing_is_owed_for_a_dead_node_but_its_replacement() {
    let mut trace = Trace::started(&spec());
    let task = trace.up(1, 1);
    trace.host(NodeId::agent(1), HostState::PowerLost);
    let mut unreplaced = Trace {
        events: trace.events.clone(),
        ..Trace::default()
    };
    (unreplaced.now, unreplaced.revision) = (trace.now, trace.revision);
    assert_eq!(found(trace.end()), Vec::<String>::new());
    let lost = TaskStatus {
        reason: Some(Reason::NodeDown),
        ..status(TaskState::Lost, 1, 5)
    };
    let lost = task.change(Some(TaskState::Running), lost);
    unreplaced.apply(vec![node(1, NodeStatus::Down), lost]);
    assert_eq!(found(unreplaced.end()), ["I3/missing-instances"]);
}

#[test]
fn a_task_without_room_passes_and_with_room_fails() {
    let mut big = spec();
    big.resources.memory_bytes = 5000;
    let mut trace = Trace::started(&big);
    trace.apply(vec![task(1, 0).change(None, TaskStatus::pending())]);
    assert_eq!(found(trace.end()), Vec::<String>::new());
    let mut trace = Trace::started(&spec());
    trace.apply(vec![task(1, 0).change(None, TaskStatus::pending())]);
    assert_eq!(found(trace.end()), ["I3/missing-instances"]);
}

#[test]
fn too_many_tasks_fail() {
    let mut trace = Trace::started(&spec());
    trace.up(1, 1);
    trace.up(2, 2);
    assert_eq!(found(trace.end()), ["I3/surplus-instances"]);
}

#[test]
fn a_stop_and_a_delete_must_come_to_an_end() {
    let mut trace = Trace::started(&spec());
    let known = trace.up(1, 1);
    trace.apply(vec![stopped(&spec(), true)]);
    let running = status(TaskState::Running, 1, 5);
    let mut stuck = Trace {
        events: trace.events.clone(),
        ..Trace::default()
    };
    (stuck.now, stuck.revision) = (trace.now, trace.revision);
    assert_eq!(found(trace.end()), ["I3/not-stopped"]);
    let known = known.desired(DesiredState::Shutdown);
    stuck.apply(vec![known.change(Some(TaskState::Running), running)]);
    assert_eq!(found(stuck.end()), ["I3/stuck-stopping"]);
}

#[test]
fn a_deleted_service_must_go() {
    let mut trace = Trace::started(&spec());
    let mut change = service(&spec());
    if let Change::Service { deleting, .. } = &mut change {
        *deleting = true;
    }
    trace.apply(vec![change]);
    assert_eq!(found(trace.end()), ["I3/not-deleted"]);
}

#[test]
fn a_job_is_done_slot_by_slot() {
    let mut job = spec();
    job.mode = ServiceMode::Job { completions: 2 };
    job.restart.condition = RestartCondition::OnFailure;
    job.image = wavetank_port::ImageReference("job".into());
    let mut trace = Trace::started(&job);
    let one = trace.up(1, 1);
    trace.exited(1, 1, 1, exit(0), ExitCause::Itself);
    let complete = TaskStatus {
        exit: Some(exit(0)),
        ..status(TaskState::Complete, 1, 6)
    };
    trace.reported(1, &one, TaskState::Running, complete);
    trace.apply(vec![removed(1)]);
    assert_eq!(found(trace.end()), ["I3/job-unfinished"]);
}

#[test]
fn a_failed_task_waits_for_its_replacement_only_so_long() {
    let mut trace = Trace::started(&spec());
    let one = trace.up(1, 1);
    let mut late = Trace {
        events: trace.events.clone(),
        ..Trace::default()
    };
    (late.now, late.revision) = (trace.now, trace.revision);
    let ended = failed(Reason::ExitedNonZero, Some(exit(1)), 1, 6);
    trace.reported(1, &one, TaskState::Running, ended.clone());
    assert_eq!(found(trace.end()), ["I3/missing-instances"]);
    late.settle().after(Duration::from_secs(95));
    late.reported(1, &one, TaskState::Running, ended);
    late.after(Duration::from_secs(5)).apply(vec![]);
    assert_eq!(found(&late), Vec::<String>::new());
}

#[test]
fn a_node_that_is_up_must_be_ready() {
    let mut trace = Trace::started(&spec());
    trace.up(1, 1);
    trace.apply(vec![node(2, NodeStatus::Down)]);
    assert_eq!(found(trace.end()), ["I3/node-not-ready"]);
}
