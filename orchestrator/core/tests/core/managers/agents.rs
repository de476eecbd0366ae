//! What agents get: sessions, redirects, assignments, acknowledgements; and when they are
//! declared down.

use std::collections::BTreeMap;

use wavetank_core::Message;
use wavetank_model::{
    Change, Epoch, Incarnation, NodeId, NodeStatus, Notice, Resources, Revision, SessionId,
};

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
