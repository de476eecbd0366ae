//! What agents get: sessions, redirects, assignments, acknowledgements; and when they are
//! declared down.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_core::{Message, TaskReport};
use wavetank_model::{
    Backoff, Change, Epoch, Incarnation, NodeId, NodeStatus, Notice, OnRolloutFailure, Operation,
    Resources, RestartCondition, RestartPolicy, Revision, ServiceMode, ServiceName, ServiceSpec,
    SessionId, TaskId, TaskState, TaskStatus, UpdatePolicy,
};
use wavetank_port::ImageReference;

use super::cluster::{Cluster, SECOND, others};

const AGENT: NodeId = NodeId::agent(1);

fn register(cluster: &mut Cluster, to: NodeId, incarnation: u64) {
    let resources = Resources {
        cpu_millis: 4000,
        memory_bytes: 1 << 33,
    };
    let incarnation = Incarnation(incarnation);
    cluster.send(
        AGENT,
        to,
        Message::Register {
            incarnation,
            resources,
            labels: BTreeMap::new(),
        },
    );
}

/// Registers and returns the session once there is one.
fn open(cluster: &mut Cluster, incarnation: u64) -> (NodeId, SessionId, Epoch) {
    let leader = cluster.await_leader();
    register(cluster, leader, incarnation);
    cluster.run_until("a session", 5 * SECOND, |cluster| {
        registered(cluster).is_some()
    });
    let (session, epoch) = registered(cluster).expect("just seen");
    (leader, session, epoch)
}

fn registered(cluster: &Cluster) -> Option<(SessionId, Epoch)> {
    cluster
        .mail
        .get(&AGENT)?
        .iter()
        .rev()
        .find_map(|(_, message)| match message {
            Message::Registered { session, epoch, .. } => Some((*session, *epoch)),
            _ => None,
        })
}

fn heartbeat(cluster: &mut Cluster, to: NodeId, session: SessionId, works_on: (Epoch, Revision)) {
    let message = Message::Heartbeat {
        session,
        sent_at: 0,
        assignments: works_on,
    };
    cluster.send(AGENT, to, message);
}

fn status(cluster: &Cluster) -> Option<NodeStatus> {
    let leader = cluster.leader()?;
    cluster
        .manager(leader)
        .store()
        .node(AGENT)
        .map(|record| record.status)
}

/// What arrived; links here deliver in any order.
fn kinds(mail: &[(NodeId, Message)]) -> Vec<&'static str> {
    let mut kinds: Vec<&str> = mail.iter().map(|(_, message)| message.kind()).collect();
    kinds.sort_unstable();
    kinds
}

#[test]
fn an_agent_registers_and_gets_its_assignments() {
    let mut cluster = Cluster::new(3, 1);
    let (leader, session, epoch) = open(&mut cluster, 1);
    cluster.run_for(SECOND);
    assert_eq!(status(&cluster), Some(NodeStatus::Ready));
    let mail = cluster.take_mail(AGENT);
    assert_eq!(kinds(&mail), ["assignments", "registered"]);
    let revision = cluster.manager(leader).store().assignments_revision(AGENT);
    heartbeat(&mut cluster, leader, session, (epoch, revision));
    cluster.run_for(SECOND / 10);
    assert_eq!(kinds(&cluster.take_mail(AGENT)), ["heartbeat-acknowledged"]);
}

#[test]
fn a_registration_that_arrives_during_an_election_is_kept() {
    let mut cluster = Cluster::new(3, 2);
    let first = cluster.await_leader();
    cluster.stop(first);
    cluster.run_until("an election", 20 * SECOND, |cluster| {
        let last = cluster.notices.last();
        matches!(last, Some((_, node, Notice::RoleChanged { role, .. }))
            if *node != first && *role == wavetank_model::ConsensusRole::Leader)
    });
    let elected = cluster.notices.last().expect("just seen").1;
    assert!(
        !cluster.manager(elected).is_leader(),
        "nothing of its epoch is applied yet"
    );
    let resources = Resources::default();
    let (incarnation, labels) = (Incarnation(1), BTreeMap::new());
    cluster.hand(
        AGENT,
        elected,
        Message::Register {
            incarnation,
            resources,
            labels,
        },
    );
    cluster.run_for(SECOND);
    assert!(registered(&cluster).is_some());
}

#[test]
fn followers_send_agents_to_the_leader() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.await_leader();
    cluster.run_for(SECOND);
    let follower = others(&cluster, leader)[0];
    register(&mut cluster, follower, 1);
    heartbeat(
        &mut cluster,
        follower,
        SessionId(7),
        (Epoch(1), Revision(1)),
    );
    cluster.run_for(SECOND / 10);
    let redirect = (
        follower,
        Message::Redirect {
            leader: Some(leader),
        },
    );
    assert_eq!(cluster.take_mail(AGENT), [redirect.clone(), redirect]);
}

#[test]
fn registering_again_costs_no_log_entry() {
    let mut cluster = Cluster::new(3, 4);
    let (leader, session, _) = open(&mut cluster, 1);
    cluster.await_agreement();
    let applied = cluster.manager(leader).applied();
    cluster.take_mail(AGENT);
    register(&mut cluster, leader, 1);
    cluster.run_for(SECOND / 10);
    assert_eq!(
        registered(&cluster).map(|(again, _)| again),
        Some(session),
        "the same boot"
    );
    register(&mut cluster, leader, 2);
    cluster.run_for(SECOND / 10);
    assert_ne!(
        registered(&cluster).map(|(again, _)| again),
        Some(session),
        "another boot"
    );
    assert_eq!(cluster.manager(leader).applied(), applied);
}

#[test]
fn an_older_process_of_an_agent_is_shut_out() {
    let mut cluster = Cluster::new(3, 5);
    let (leader, old, epoch) = open(&mut cluster, 1);
    cluster.take_mail(AGENT);
    let (_, new, _) = open(&mut cluster, 2);
    cluster.run_for(SECOND);
    cluster.take_mail(AGENT);
    register(&mut cluster, leader, 1);
    heartbeat(&mut cluster, leader, old, (epoch, Revision(0)));
    cluster.run_for(SECOND / 10);
    let unknown = (leader, Message::SessionUnknown { session: old });
    assert_eq!(cluster.take_mail(AGENT), [unknown]);
    assert_ne!(old, new);
}

#[test]
fn a_silent_agent_is_declared_down_and_taken_back() {
    let mut cluster = Cluster::new(3, 6);
    let (leader, session, epoch) = open(&mut cluster, 1);
    for _ in 0..10 {
        heartbeat(&mut cluster, leader, session, (epoch, Revision(0)));
        cluster.run_for(SECOND);
    }
    assert_eq!(status(&cluster), Some(NodeStatus::Ready));
    cluster.run_for(4 * SECOND);
    assert_eq!(status(&cluster), Some(NodeStatus::Ready), "not yet");
    cluster.run_for(2 * SECOND);
    assert_eq!(status(&cluster), Some(NodeStatus::Down));
    cluster.take_mail(AGENT);
    heartbeat(&mut cluster, leader, session, (epoch, Revision(0)));
    cluster.run_for(SECOND / 10);
    assert_eq!(
        cluster.take_mail(AGENT),
        [(leader, Message::SessionUnknown { session })]
    );
    open(&mut cluster, 1);
    assert_eq!(status(&cluster), Some(NodeStatus::Ready));
    let downs = cluster.notices.iter().filter(|(_, node, notice)| {
        let Notice::Applied { changes, .. } = notice else {
            return false;
        };
        let down = |change: &Change| {
            matches!(
                change,
                Change::Node {
                    status: NodeStatus::Down,
                    ..
                }
            )
        };
        *node == leader && changes.iter().any(down)
    });
    assert_eq!(downs.count(), 1);
}

#[test]
fn a_new_leader_gives_agents_time_to_find_it() {
    let mut cluster = Cluster::new(3, 7);
    let (leader, _, _) = open(&mut cluster, 1);
    cluster.run_for(4 * SECOND);
    cluster.stop(leader);
    let next = cluster.await_leader();
    // 5 s and 3 s of grace from the election on, whatever the silence before.
    cluster.run_for(7 * SECOND);
    assert_eq!(status(&cluster), Some(NodeStatus::Ready));
    cluster.run_for(2 * SECOND);
    assert_eq!(status(&cluster), Some(NodeStatus::Down));
    assert_eq!(cluster.leader(), Some(next));
}

/// The agent comes back at the very moment at which it is being declared down.
#[test]
fn a_registration_during_the_declaration_wins_in_the_end() {
    for delay in 0..40 {
        let mut cluster = Cluster::new(3, 50 + delay);
        let (leader, _, _) = open(&mut cluster, 1);
        cluster.run_for(5 * SECOND - SECOND / 5);
        cluster.take_mail(AGENT);
        // Sweeps over the check, with links to the followers cut for its duration.
        cluster.isolate(leader, true);
        cluster.run_for(delay * SECOND / 50);
        register(&mut cluster, leader, 1);
        cluster.run_for(SECOND / 20);
        cluster.isolate(leader, false);
        cluster.run_for(SECOND);
        if registered(&cluster).is_none() {
            // Leadership may have changed; the agent asks again.
            open(&mut cluster, 1);
        }
        let (session, epoch) = registered(&cluster).expect("open");
        let leader = cluster.await_leader();
        heartbeat(&mut cluster, leader, session, (epoch, Revision(0)));
        cluster.run_for(SECOND);
        assert_eq!(status(&cluster), Some(NodeStatus::Ready), "delay {delay}");
    }
}

#[test]
fn lost_assignments_are_sent_again_after_a_heartbeat() {
    let mut cluster = Cluster::new(3, 8);
    let (leader, session, epoch) = open(&mut cluster, 1);
    cluster.run_for(SECOND);
    cluster.take_mail(AGENT);
    heartbeat(
        &mut cluster,
        leader,
        session,
        (Epoch(epoch.0 - 1), Revision(1000)),
    );
    cluster.run_for(SECOND / 10);
    assert_eq!(
        kinds(&cluster.take_mail(AGENT)),
        ["assignments", "heartbeat-acknowledged"]
    );
    // It was just sent: a heartbeat that was under way meanwhile does not send it twice.
    heartbeat(
        &mut cluster,
        leader,
        session,
        (Epoch(epoch.0 - 1), Revision(1000)),
    );
    cluster.run_for(SECOND / 10);
    assert_eq!(kinds(&cluster.take_mail(AGENT)), ["heartbeat-acknowledged"]);
}

/// A service of this many tasks, as plain as it gets.
fn service(replicas: u32) -> Operation {
    let second = Duration::from_secs(1);
    let backoff = Backoff {
        base: second,
        cap: second,
    };
    let restart = RestartPolicy {
        condition: RestartCondition::Always,
        restarts_max: 3,
        backoff,
        stable_after: second,
    };
    let update = UpdatePolicy {
        surge_max: 1,
        unavailable_max: 0,
        monitor: second,
        failures_max: 1,
        on_failure: OnRolloutFailure::Pause,
    };
    let spec = ServiceSpec {
        name: ServiceName::from("web"),
        image: ImageReference("registry.test/web:1".to_owned()),
        command: Vec::new(),
        environment: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas },
        resources: Resources {
            cpu_millis: 100,
            memory_bytes: 1 << 20,
        },
        constraints: BTreeMap::new(),
        spread: None,
        ports: Vec::new(),
        volume: None,
        restart,
        health: None,
        stop_grace: second,
        update,
        election: None,
    };
    Operation::Deploy { spec }
}

/// The assignments that arrived last.
fn assigned(cluster: &Cluster) -> Vec<TaskId> {
    let mail = cluster.mail.get(&AGENT).into_iter().flatten();
    let newest = mail.filter_map(|(_, message)| match message {
        Message::Assignments {
            epoch,
            revision,
            tasks,
            ..
        } => Some(((*epoch, *revision), tasks)),
        _ => None,
    });
    let newest = newest.max_by_key(|(pair, _)| *pair);
    newest
        .map(|(_, tasks)| tasks.iter().map(|task| task.task).collect())
        .unwrap_or_default()
}

fn transition(task: TaskId, sequence: u64, state: TaskState) -> TaskReport {
    let status = TaskStatus {
        state,
        attempt: 1,
        sequence,
        ..TaskStatus::pending()
    };
    TaskReport { task, status }
}

fn report(cluster: &mut Cluster, to: NodeId, session: SessionId, reports: Vec<TaskReport>) {
    cluster.send(AGENT, to, Message::Report { session, reports });
}

/// What was acknowledged since the mail was taken out last.
fn acknowledged(cluster: &mut Cluster) -> Vec<(TaskId, u64)> {
    let mail = cluster.take_mail(AGENT);
    let acks = mail.into_iter().filter_map(|(_, message)| match message {
        Message::ReportAcknowledged { through, .. } => Some(through),
        _ => None,
    });
    acks.flatten().collect()
}

/// A cluster with one agent that has one task.
fn with_task(seed: u64) -> (Cluster, NodeId, SessionId, TaskId) {
    let mut cluster = Cluster::new(3, seed);
    let (leader, session, _) = open(&mut cluster, 1);
    cluster.ask(&service(1)).expect("a sound spec");
    cluster.run_until("assignments", 5 * SECOND, |cluster| {
        assigned(cluster).len() == 1
    });
    let task = assigned(&cluster)[0];
    cluster.run_for(SECOND / 10);
    cluster.take_mail(AGENT);
    (cluster, leader, session, task)
}

#[test]
fn new_assignments_are_sent_as_soon_as_they_are_committed() {
    let mut cluster = Cluster::new(3, 20);
    open(&mut cluster, 1);
    cluster.run_for(SECOND);
    let asked = cluster.now;
    cluster.ask(&service(2)).expect("a sound spec");
    cluster.run_until("assignments", SECOND, |cluster| {
        assigned(cluster).len() == 2
    });
    assert!(
        cluster.now - asked < SECOND / 5,
        "no heartbeat is waited for"
    );
}

#[test]
fn transitions_are_acknowledged_once_they_are_committed() {
    let (mut cluster, leader, session, task) = with_task(21);
    let states = [TaskState::Accepted, TaskState::Pulling, TaskState::Creating];
    let reports: Vec<_> = states
        .iter()
        .zip(1..)
        .map(|(state, n)| transition(task, n, *state))
        .collect();
    cluster.isolate(leader, true);
    report(&mut cluster, leader, session, reports);
    cluster.run_for(SECOND / 5);
    assert_eq!(acknowledged(&mut cluster), [], "nothing is committed");
    cluster.isolate(leader, false);
    cluster.run_for(SECOND / 2);
    assert_eq!(acknowledged(&mut cluster), [(task, 3)]);
    let status = cluster
        .manager(leader)
        .store()
        .task(task)
        .expect("there")
        .status
        .clone();
    assert_eq!((status.state, status.sequence), (TaskState::Creating, 3));
}

#[test]
fn repeated_transitions_are_committed_once() {
    let (mut cluster, leader, session, task) = with_task(22);
    let before = cluster.manager(leader).applied();
    for _ in 0..5 {
        let reports = vec![transition(task, 1, TaskState::Accepted)];
        report(&mut cluster, leader, session, reports);
    }
    cluster.run_for(SECOND);
    assert!(acknowledged(&mut cluster).contains(&(task, 1)));
    let after = cluster.manager(leader).applied();
    assert_eq!(after.0 - before.0, 1, "one entry");
    report(
        &mut cluster,
        leader,
        session,
        vec![transition(task, 1, TaskState::Accepted)],
    );
    cluster.run_for(SECOND / 10);
    assert_eq!(acknowledged(&mut cluster), [(task, 1)]);
    assert_eq!(cluster.manager(leader).applied(), after);
}

#[test]
fn a_gap_is_neither_committed_nor_acknowledged() {
    let (mut cluster, leader, session, task) = with_task(23);
    report(
        &mut cluster,
        leader,
        session,
        vec![transition(task, 2, TaskState::Pulling)],
    );
    cluster.run_for(SECOND);
    assert_eq!(acknowledged(&mut cluster), []);
    let both = vec![
        transition(task, 1, TaskState::Accepted),
        transition(task, 2, TaskState::Pulling),
    ];
    report(&mut cluster, leader, session, both);
    cluster.run_for(SECOND);
    assert_eq!(acknowledged(&mut cluster), [(task, 2)]);
}

#[test]
fn transitions_of_unknown_tasks_are_acknowledged_at_once() {
    let (mut cluster, leader, session, _) = with_task(24);
    let before = cluster.manager(leader).applied();
    let gone = TaskId(999);
    report(
        &mut cluster,
        leader,
        session,
        vec![transition(gone, 7, TaskState::Running)],
    );
    cluster.run_for(SECOND / 10);
    assert_eq!(acknowledged(&mut cluster), [(gone, 7)]);
    assert_eq!(cluster.manager(leader).applied(), before);
}

#[test]
fn transitions_survive_a_change_of_leader() {
    let (mut cluster, leader, session, task) = with_task(25);
    cluster.isolate(leader, true);
    let reports = vec![transition(task, 1, TaskState::Accepted)];
    report(&mut cluster, leader, session, reports.clone());
    cluster.run_until("another leader", 20 * SECOND, |cluster| {
        cluster.leader().is_some_and(|other| other != leader)
    });
    cluster.isolate(leader, false);
    let (next, session, _) = open(&mut cluster, 1);
    cluster.take_mail(AGENT);
    report(&mut cluster, next, session, reports);
    cluster.run_for(SECOND);
    assert_eq!(acknowledged(&mut cluster), [(task, 1)]);
    cluster.await_agreement();
}
