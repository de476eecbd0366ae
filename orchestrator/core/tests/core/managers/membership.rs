//! Joining, leaving, being replaced.

use wavetank_core::Boot;
use wavetank_model::{Availability, NodeId, Notice, Operation, OperationError};

use super::cluster::{Cluster, SECOND, others};

/// The voters that were announced last by the leader.
fn voters(cluster: &Cluster) -> Vec<NodeId> {
    let Some(leader) = cluster.leader() else {
        return Vec::new();
    };
    let announced = cluster
        .notices
        .iter()
        .rev()
        .find_map(|(_, node, notice)| match notice {
            Notice::MembershipChanged { voters } if *node == leader => Some(voters.clone()),
            _ => None,
        });
    announced.unwrap_or_default()
}

fn join(cluster: &mut Cluster, number: u32) {
    let contacts = cluster.managers();
    cluster.add(NodeId::manager(number), Boot::Join { contacts });
}

fn leave(cluster: &mut Cluster, node: NodeId) {
    let answer = cluster.ask(&Operation::RemoveManager { node });
    assert!(answer.is_ok(), "{answer:?}");
    cluster.run_until("one voter less", 30 * SECOND, |cluster| {
        !voters(cluster).is_empty() && !voters(cluster).contains(&node)
    });
    cluster.stop(node);
}

#[test]
fn three_managers_become_five_and_three_again() {
    let mut cluster = Cluster::new(3, 1);
    for number in 0..100 {
        cluster.put(&format!("key-{number}"), "x");
    }
    join(&mut cluster, 4);
    join(&mut cluster, 5);
    let all: Vec<NodeId> = (1..=5).map(NodeId::manager).collect();
    cluster.run_until("five voters", 30 * SECOND, |cluster| voters(cluster) == all);
    cluster.await_agreement();
    // Five stand the loss of two.
    let leader = cluster.await_leader();
    let lost = others(&cluster, leader)[0];
    cluster.stop(leader);
    cluster.stop(lost);
    cluster.put("a", "1");
    for node in [leader, lost] {
        cluster.start(node).expect("sound disk");
    }
    cluster.await_agreement();
    // The leader is among those that leave.
    let leader = cluster.await_leader();
    let other = others(&cluster, leader)[0];
    leave(&mut cluster, leader);
    leave(&mut cluster, other);
    cluster.run_until("three voters", 30 * SECOND, |cluster| {
        voters(cluster).len() == 3
    });
    cluster.put("b", "2");
    assert_eq!(cluster.get("key-99").as_deref(), Some("x"));
    // Three stand the loss of one, whoever it is.
    let leader = cluster.await_leader();
    cluster.stop(leader);
    assert_eq!(cluster.get("b").as_deref(), Some("2"));
}

#[test]
fn a_manager_whose_vote_is_needed_is_not_removed() {
    let mut cluster = Cluster::new(3, 1);
    let leader = cluster.await_leader();
    let [gone, needed] = others(&cluster, leader)[..] else {
        panic!("three managers");
    };
    cluster.stop(gone);
    cluster.run_for(10 * SECOND);
    for node in [needed, leader] {
        let answer = cluster.ask(&Operation::RemoveManager { node });
        let refused = matches!(&answer, Err(OperationError::Invalid { why })
            if why.contains("need 2 in reach to go on and have 1"));
        assert!(refused, "{node}: {answer:?}");
    }
    cluster.put("a", "1");
    // The one that is gone may go, and then one more.
    leave(&mut cluster, gone);
    leave(&mut cluster, needed);
    cluster.put("b", "2");
}

#[test]
fn a_wiped_manager_joins_under_a_new_id() {
    for wiped in 1..=3 {
        let mut cluster = Cluster::new(3, u64::from(wiped));
        cluster.put("a", "1");
        cluster.await_agreement();
        let node = NodeId::manager(wiped);
        let contacts = others(&cluster, node);
        cluster.wipe(node, contacts);
        cluster.start(node).expect("an empty disk");
        let everyone = cluster.managers();
        cluster.run_until("a vote for the joiner", 30 * SECOND, |cluster| {
            let store = cluster
                .leader()
                .map(|leader| cluster.manager(leader).store());
            store.is_some_and(|store| store.joined(node).is_some()) && voters(cluster) == everyone
        });
        cluster.await_agreement();
        let leader = cluster.await_leader();
        let members = cluster.manager(leader).store().members().clone();
        assert_eq!(members.get(&4), Some(&node));
        assert!(!members.contains_key(&u64::from(wiped)));
        // Its vote counts.
        let third = others(&cluster, node)[0];
        cluster.stop(third);
        cluster.put("b", "2");
        // And it comes back as what it is.
        cluster.stop(node);
        cluster.start(node).expect("sound disk");
        cluster.put("c", "3");
    }
}

#[test]
fn joining_survives_the_loss_of_the_leader() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, 100 + seed);
        let leader = cluster.await_leader();
        for number in 0..80 {
            cluster.put(&format!("key-{number}"), "x");
        }
        join(&mut cluster, 4);
        // At a different point of the procedure each time.
        cluster.run_for(seed * 2_000_000);
        cluster.stop(leader);
        cluster.run_for(SECOND);
        cluster.start(leader).expect("sound disk");
        let all: Vec<NodeId> = (1..=4).map(NodeId::manager).collect();
        cluster.run_until("four voters", 60 * SECOND, |cluster| voters(cluster) == all);
        cluster.await_agreement();
    }
}

#[test]
fn joining_survives_power_loss_during_writes() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(3, 200 + seed);
        cluster.timers.snapshot_every = 20;
        for number in 0..30 {
            cluster.put(&format!("key-{number}"), "x");
        }
        cluster.power_loss_one_in = 20;
        join(&mut cluster, 4);
        cluster.run_for(20 * SECOND);
        cluster.power_loss_one_in = 0;
        let all: Vec<NodeId> = (1..=4).map(NodeId::manager).collect();
        cluster.run_until("four voters", 60 * SECOND, |cluster| voters(cluster) == all);
        cluster.await_agreement();
    }
}

#[test]
fn a_drained_leader_hands_over() {
    let mut cluster = Cluster::new(3, 2);
    let node = cluster.await_leader();
    let availability = Availability::Drain;
    let _known_or_not = cluster.ask(&Operation::SetAvailability { node, availability });
    cluster.run_for(SECOND / 2);
    assert_ne!(cluster.await_leader(), node);
}
