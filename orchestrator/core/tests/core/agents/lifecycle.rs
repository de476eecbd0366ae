//! From an assignment to a running container and back, without faults.

use std::time::Duration;

use wavetank_model::{DesiredState, Notice, Reason, RestartCondition, TaskState};

use super::harness::{World, checked, container, seconds, spec};

#[test]
fn a_service_task_runs_and_is_shut_down() {
    let mut world = World::new();
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(1));
    world.shut_down(1);
    world.run(seconds(1));
    world.withdraw(1);
    world.run(seconds(1));
    assert!(
        !world.has_memory_of(1),
        "a task that is withdrawn is forgotten"
    );
    assert!(world.runtime.containers.is_empty());
    insta::assert_snapshot!(world.transcript);
}

#[test]
fn a_job_that_ends_at_once_is_seen_to_run_first() {
    // R2: the process ends before the start is answered.
    let mut world = World::new();
    world.runtime.behaviour.run_for = Some(Duration::ZERO);
    world.run_task(1, &spec(RestartCondition::Never));
    world.run(seconds(1));
    assert_eq!(
        world.path(1),
        "accepted.1 pulling.1 creating.1 starting.1 running.1 complete.1"
    );
    assert!(
        world.runtime.containers.is_empty(),
        "nothing is left behind"
    );
    insta::assert_snapshot!(world.transcript);
}

#[test]
fn a_task_is_ready_when_it_runs_or_when_its_probe_says_so() {
    let mut world = World::new();
    world.run_task(1, &spec(RestartCondition::Always));
    world.run_task(2, &checked(3, 2));
    world.run(seconds(1));
    assert!(world.status(1).ready);
    assert!(!world.status(2).ready);
    world.run(seconds(4));
    assert!(world.status(2).ready);
    assert_eq!(world.reported(2), world.status(2), "the managers know");
}

#[test]
fn every_field_of_the_spec_reaches_the_container() {
    // W10: what a translation drops, nobody misses until it matters.
    let mut wanted = spec(RestartCondition::Always);
    wanted.command = vec!["serve".into()];
    wanted.environment = [("KEY".to_owned(), "value".to_owned())].into();
    wanted.volume = Some("data".into());
    let mut world = World::new();
    world.runtime.bends = vec![("create", super::runtime::Bend::Hang, 1)];
    world.run_task(7, &wanted);
    let create = loop {
        world.run(Duration::from_millis(1));
        if let Some(create) = world.created.first() {
            break create.clone();
        }
    };
    assert_eq!(create.id, container(7, 1));
    assert_eq!(create.image.0, "web");
    assert_eq!(create.command, wanted.command);
    assert_eq!(create.environment, wanted.environment);
    assert_eq!(create.volumes, ["data"]);
    assert_eq!(create.memory_bytes_max, Some(1 << 20));
    assert_eq!(create.cpu_millis_max, Some(100));
    let label = |name: &str| create.labels.get(name).map(String::as_str);
    assert_eq!(label("wavetank.node"), Some("agent-1"));
    assert_eq!(label("wavetank.task"), Some("task-7"));
    assert_eq!(label("wavetank.service"), Some("web"));
}

#[test]
fn a_task_that_arrives_already_unwanted_is_reported_and_never_started() {
    for desired in [DesiredState::Shutdown, DesiredState::Removed] {
        let mut world = World::new();
        world.assign(1, &spec(RestartCondition::Always), desired);
        world.run(seconds(1));
        assert_eq!(world.reported(1).state, TaskState::Shutdown);
        assert_eq!(world.reported(1).reason, Some(Reason::TerminatedByOperator));
        assert_eq!(world.runtime.called.get("create"), None);
        assert!(world.has_memory_of(1), "kept while it is listed");
        world.withdraw(1);
        world.run(seconds(1));
        assert!(!world.has_memory_of(1));
    }
}

#[test]
fn a_withdrawn_task_is_stopped_with_its_grace_and_reported_before_it_is_forgotten() {
    let mut world = World::new();
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(1));
    world.withdraw(1);
    world.run(seconds(1));
    let asked = |notice: &Notice| match notice {
        Notice::StopRequested { grace, .. } => *grace == seconds(10),
        _ => false,
    };
    assert_eq!(world.count(asked), 1);
    assert_eq!(world.reported(1).state, TaskState::Shutdown);
    assert!(!world.has_memory_of(1));
    assert!(world.runtime.containers.is_empty());
}

#[test]
fn an_idle_agent_says_nothing_but_heartbeats_and_writes_nothing() {
    let mut world = World::new();
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(3));
    let (records, sent) = (world.records, world.sent.len());
    let heartbeats = world.heartbeats();
    world.run(seconds(60));
    assert_eq!(world.records, records);
    assert_eq!(world.heartbeats() - heartbeats, 30);
    assert_eq!(world.sent.len() - sent, 30);
}
