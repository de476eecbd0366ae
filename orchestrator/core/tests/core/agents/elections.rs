//! Elections among instances: leases of the managers, and lock files.

use std::time::Duration;

use wavetank_core::{Input, LockReply};
use wavetank_model::{ElectionBackend, ElectionSpec, FencingToken, Notice, TaskState};
use wavetank_port::ExitCode;

use super::harness::{World, container, electing, seconds};

fn leased() -> ElectionSpec {
    ElectionSpec {
        lease: "leader".into(),
        backend: ElectionBackend::Managers,
        ttl: seconds(10),
        renew: seconds(2),
    }
}

fn locked() -> ElectionSpec {
    let backend = ElectionBackend::LockFile {
        volume: "shared".into(),
    };
    ElectionSpec {
        backend,
        ..leased()
    }
}

fn won(world: &World) -> usize {
    world.count(|notice| matches!(notice, Notice::LeaseWon { .. }))
}

fn lost(world: &World) -> usize {
    world.count(|notice| matches!(notice, Notice::LeaseLost { .. }))
}

#[test]
fn the_holder_renews_and_acts_with_its_token() {
    let mut world = World::new();
    world.run_task(1, &electing(leased()));
    world.run(seconds(21));
    assert_eq!((won(&world), lost(&world)), (1, 0));
    assert!(
        world.manager.acts.len() >= 10,
        "{}",
        world.manager.acts.len()
    );
    let first = world.manager.acts.first().cloned();
    assert_eq!(first, Some(("task-1.1#1".into(), Some(FencingToken(1)))));
}

#[test]
fn only_one_instance_of_two_acts() {
    let mut world = World::new();
    world.run_task(1, &electing(leased()));
    world.run_task(2, &electing(leased()));
    world.run(seconds(20));
    assert_eq!(won(&world), 1);
    let holder = world.manager.lease.clone().expect("somebody won");
    assert!(
        world
            .manager
            .acts
            .iter()
            .all(|(value, _)| value.starts_with(&holder))
    );
}

#[test]
fn a_holder_that_is_cut_off_stops_acting_before_its_lease_can_pass_on() {
    // H6, H7, H8: one missing answer is nothing, a ttl without one is the end.
    let mut world = World::new();
    world.run_task(1, &electing(leased()));
    world.run(seconds(5));
    let cut_at = world.now;
    world.manager.silent = true;
    world.run(seconds(6));
    assert_eq!(lost(&world), 0, "a transient failure costs nothing");
    world.run(seconds(5));
    assert_eq!(lost(&world), 1);
    assert!(world.now.since(cut_at) <= seconds(11));
    assert_eq!(
        world.state(1),
        Some(TaskState::Running),
        "the instance itself goes on"
    );
    world.manager.silent = false;
    world.run(seconds(10));
    assert_eq!(won(&world), 2, "and competes again");
}

#[test]
fn a_refused_renewal_ends_the_term_at_once() {
    let mut world = World::new();
    world.run_task(1, &electing(leased()));
    world.run(seconds(5));
    world.manager.token += 1;
    world.manager.lease = Some("somebody-else".into());
    world.run(seconds(3));
    assert_eq!(lost(&world), 1);
    let acts = world.manager.acts.len();
    world.run(seconds(10));
    assert_eq!(world.manager.acts.len(), acts);
}

#[test]
fn an_instance_that_ends_gives_its_lease_back() {
    let mut world = World::new();
    world.run_task(1, &electing(leased()));
    world.run(seconds(5));
    world.shut_down(1);
    world.run(seconds(1));
    assert_eq!((won(&world), lost(&world)), (1, 1));
    assert_eq!(world.manager.lease, None);
}

#[test]
fn the_next_attempt_competes_under_its_own_name() {
    let mut world = World::new();
    world.run_task(1, &electing(leased()));
    world.run(seconds(5));
    let now = world.now;
    world
        .runtime
        .end(now, &container(1, 1), ExitCode::Known(1), false);
    world.run(seconds(10));
    assert_eq!(world.manager.lease.as_deref(), Some("task-1.2"));
    assert_eq!((won(&world), lost(&world)), (2, 1));
}

#[test]
fn a_lock_file_is_taken_kept_and_given_back() {
    let mut world = World::new();
    world.run_task(1, &electing(locked()));
    world.run(seconds(20));
    assert_eq!((won(&world), world.locks.len()), (1, 1));
    assert!(world.manager.acts.iter().all(|(_, token)| token.is_none()));
    assert!(world.manager.acts.len() >= 9);
    world.shut_down(1);
    world.run(seconds(1));
    assert_eq!(lost(&world), 1);
    let last = world
        .locks
        .last()
        .map(|request| (request.take, request.holder.clone()));
    assert_eq!(last, Some((false, "task-1.1".into())));
}

#[test]
fn a_lock_that_somebody_has_is_asked_for_again() {
    let mut world = World::new();
    world.lock_reply = LockReply::Held;
    world.run_task(1, &electing(locked()));
    world.run(seconds(10));
    assert_eq!(won(&world), 0);
    assert!(world.locks.len() >= 4);
    world.lock_reply = LockReply::Done;
    world.run(seconds(3));
    assert_eq!(won(&world), 1);
}

#[test]
fn an_answer_to_a_lock_request_that_was_given_up_is_nothing() {
    let mut world = World::new();
    world.lock_reply = LockReply::Held;
    world.run_task(1, &electing(locked()));
    world.run(seconds(10));
    let stale = world
        .locks
        .first()
        .map(|request| request.call)
        .expect("it asked");
    world.handle(Input::Lock {
        call: stale,
        reply: LockReply::Done,
    });
    world.run(Duration::from_millis(10));
    assert_eq!(won(&world), 0);
}
