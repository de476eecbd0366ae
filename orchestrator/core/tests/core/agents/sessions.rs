//! The session with the leader, and reports through it.

use std::time::Duration;

use wavetank_core::{Input, Message};
use wavetank_model::{
    Epoch, Incarnation, NodeId, Notice, RestartCondition, SessionId, TaskId, TaskState,
};
use wavetank_port::ExitCode;

use super::harness::{LEADER, World, container, seconds, spec};

fn sent_to(world: &World, manager: NodeId, kind: &str) -> usize {
    world
        .sent
        .iter()
        .filter(|(_, to, message)| *to == manager && message.kind() == kind)
        .count()
}

fn lost(world: &World) -> usize {
    world.count(|notice| matches!(notice, Notice::SessionLost { .. }))
}

#[test]
fn a_redirect_is_followed() {
    let mut world = World::new();
    world.manager.silent = true;
    world.run(Duration::from_millis(10));
    let hint = NodeId::manager(3);
    world.handle(Input::Message {
        from: LEADER,
        message: Message::Redirect { leader: Some(hint) },
    });
    assert_eq!(sent_to(&world, hint, "register"), 1, "at once");
}

#[test]
fn managers_that_point_at_each_other_do_not_make_a_storm() {
    let mut world = World::new();
    world.manager.silent = true;
    world.run(Duration::from_millis(10));
    let before = world.sent.len();
    let (one, two) = (LEADER, NodeId::manager(2));
    for _ in 0..50 {
        for (from, leader) in [(one, two), (two, one)] {
            let message = Message::Redirect {
                leader: Some(leader),
            };
            world.handle(Input::Message { from, message });
        }
    }
    assert!(
        world.sent.len() - before <= 4,
        "{} messages",
        world.sent.len() - before
    );
}

#[test]
fn silence_loses_the_session_and_stops_nothing() {
    // I23: managers are needed for new work, not for the old.
    let mut world = World::new();
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(3));
    world.manager.silent = true;
    world.run(seconds(5));
    assert_eq!(lost(&world), 0);
    world.run(seconds(60));
    assert_eq!(lost(&world), 1);
    assert_eq!(world.state(1), Some(TaskState::Running));
    world.manager.silent = false;
    world.run(seconds(5));
    assert_eq!(world.manager.sessions, 2);
}

#[test]
fn a_manager_that_died_is_left_after_a_moment() {
    let mut world = World::new();
    world.run(seconds(3));
    world.handle(Input::ConnectionLost {
        peer: NodeId::manager(2),
    });
    assert_eq!(lost(&world), 0, "not the session's manager");
    world.handle(Input::ConnectionLost { peer: LEADER });
    assert_eq!(lost(&world), 1);
    let before = sent_to(&world, LEADER, "register");
    world.run(Duration::from_millis(1));
    assert_eq!(
        sent_to(&world, LEADER, "register"),
        before,
        "not in the same moment"
    );
    world.run(seconds(1));
    assert_eq!(sent_to(&world, LEADER, "register"), before + 1);
}

#[test]
fn an_unknown_session_is_registered_anew() {
    let mut world = World::new();
    world.run(seconds(3));
    let session = world.manager.session.expect("it registered");
    world.handle(Input::Message {
        from: LEADER,
        message: Message::SessionUnknown {
            session: SessionId(session.0 + 100),
        },
    });
    assert_eq!(lost(&world), 0, "about another session");
    world.handle(Input::Message {
        from: LEADER,
        message: Message::SessionUnknown { session },
    });
    world.run(seconds(1));
    assert_eq!((lost(&world), world.manager.sessions), (1, 2));
}

#[test]
fn answers_to_another_boot_or_from_an_older_epoch_open_nothing() {
    let mut world = World::new();
    world.manager.epoch = Epoch(7);
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(3));
    world.manager.silent = true;
    world.run(seconds(20));
    let opened = world.count(|notice| matches!(notice, Notice::SessionOpened { .. }));
    for (incarnation, epoch) in [(Incarnation(9), Epoch(7)), (Incarnation(1), Epoch(6))] {
        let session = SessionId(50);
        let message = Message::Registered {
            incarnation,
            session,
            epoch,
        };
        world.handle(Input::Message {
            from: LEADER,
            message,
        });
    }
    assert_eq!(
        world.count(|notice| matches!(notice, Notice::SessionOpened { .. })),
        opened
    );
}

#[test]
fn heartbeats_come_at_their_interval_and_name_what_the_agent_works_on() {
    let mut world = World::new();
    world.run_task(1, &spec(RestartCondition::Always));
    world.run(seconds(21));
    let beats: Vec<_> = world
        .sent
        .iter()
        .filter_map(|(at, _, message)| match message {
            Message::Heartbeat { assignments, .. } => Some((*at, *assignments)),
            _ => None,
        })
        .collect();
    assert!(
        beats
            .windows(2)
            .all(|pair| pair[1].0.since(pair[0].0) == seconds(2))
    );
    let last = beats.last().map(|(_, assignments)| *assignments);
    assert_eq!(last, Some((world.manager.epoch, world.manager.revision)));
}

#[test]
fn transitions_are_repeated_until_they_are_confirmed() {
    // P1: what happens between a report and its confirmation is reported too.
    let mut world = World::new();
    world.run_task(1, &spec(RestartCondition::Always));
    world.run_until(1, TaskState::Running);
    world.run(seconds(1));
    world.manager.silent = true;
    let now = world.now;
    world
        .runtime
        .end(now, &container(1, 1), ExitCode::Known(1), false);
    world.run(seconds(4));
    let reports = sent_to(&world, LEADER, "report");
    assert!(reports >= 4, "{reports}");
    assert_eq!(lost(&world), 0);
    world.manager.silent = false;
    world.run(seconds(3));
    assert_eq!(world.reported(1), world.status(1));
    let after = sent_to(&world, LEADER, "report");
    world.run(seconds(20));
    assert_eq!(
        sent_to(&world, LEADER, "report"),
        after,
        "confirmed ones are not repeated"
    );
}

#[test]
fn confirmations_of_other_sessions_are_not_believed() {
    let mut world = World::new();
    world.run_task(1, &spec(RestartCondition::Always));
    world.run_until(1, TaskState::Running);
    world.run(seconds(1));
    world.manager.silent = true;
    let now = world.now;
    world
        .runtime
        .end(now, &container(1, 1), ExitCode::Known(1), false);
    world.run(Duration::from_millis(100));
    let through = vec![(TaskId(1), 99)];
    let message = Message::ReportAcknowledged {
        session: SessionId(77),
        through,
    };
    world.handle(Input::Message {
        from: LEADER,
        message,
    });
    world.manager.silent = false;
    world.run(seconds(5));
    assert_eq!(
        world.reported(1),
        world.status(1),
        "nothing was dropped from the queue"
    );
}
