//! Elections and replication.

use wavetank_model::{ConsensusRole, NodeId, Notice, Revision};

use super::cluster::{Cluster, SECOND, others};

#[test]
fn three_managers_elect_one_leader_and_agree() {
    let mut cluster = Cluster::new(3, 1);
    cluster.await_leader();
    cluster.put("a", "1");
    cluster.put("b", "2");
    cluster.await_agreement();
    assert_eq!(cluster.get("a").as_deref(), Some("1"));
    let stores: Vec<_> = cluster
        .managers()
        .iter()
        .map(|node| cluster.manager(*node).store().encode())
        .collect();
    assert!(stores.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn every_entry_is_applied_in_order_everywhere() {
    let mut cluster = Cluster::new(3, 2);
    for number in 0..20 {
        cluster.put(&format!("key-{number}"), "x");
    }
    cluster.await_agreement();
    for node in cluster.managers() {
        let applied = cluster
            .notices
            .iter()
            .filter_map(|(_, who, notice)| match notice {
                Notice::Applied { revision, .. } if *who == node => Some(*revision),
                _ => None,
            });
        let applied: Vec<Revision> = applied.collect();
        assert!(applied.len() >= 21, "{node}");
        let expected: Vec<Revision> = (2..).map(Revision).take(applied.len()).collect();
        assert_eq!(applied, expected, "{node}");
    }
}

#[test]
fn a_lost_leader_is_replaced_soon() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, seed);
        let first = cluster.await_leader();
        cluster.put("a", "1");
        cluster.stop(first);
        let lost = cluster.now;
        let second = cluster.await_leader();
        assert_ne!(first, second);
        // Longest timeout, and a repeated vote at worst.
        assert!(
            cluster.now - lost < 5 * SECOND,
            "seed {seed}: {}",
            cluster.now - lost
        );
        assert_eq!(cluster.get("a").as_deref(), Some("1"));
    }
}

#[test]
fn a_leader_without_quorum_steps_down() {
    let mut cluster = Cluster::new(3, 3);
    let first = cluster.await_leader();
    cluster.isolate(first, true);
    cluster.run_for(4 * SECOND);
    assert!(!cluster.manager(first).is_leader());
    assert!(cluster.leader().is_some_and(|second| second != first));
    cluster.put("a", "1");
    cluster.isolate(first, false);
    cluster.await_agreement();
}

#[test]
fn a_manager_that_was_cut_off_does_not_disturb_the_leader() {
    let mut cluster = Cluster::new(3, 4);
    let leader = cluster.await_leader();
    let loner = others(&cluster, leader)[0];
    cluster.isolate(loner, true);
    cluster.run_for(20 * SECOND);
    cluster.isolate(loner, false);
    let before = cluster.notices.len();
    cluster.run_for(10 * SECOND);
    let elected = cluster.notices[before..].iter().any(|(_, _, n)| {
        matches!(
            n,
            Notice::RoleChanged {
                role: ConsensusRole::Leader,
                ..
            }
        )
    });
    assert!(!elected, "pre-votes keep the leader");
    assert_eq!(cluster.leader(), Some(leader));
}

#[test]
fn leadership_is_handed_over_at_once() {
    let mut cluster = Cluster::new(3, 5);
    let first = cluster.await_leader();
    let to = others(&cluster, first)[1];
    assert!(cluster.act(first, |manager, ctx| {
        manager.transfer_leadership(ctx, Some(to))
    }));
    let asked = cluster.now;
    cluster.run_until("handover", SECOND / 5, |cluster| {
        cluster.leader() == Some(to)
    });
    assert!(cluster.now - asked < SECOND / 5);
    cluster.put("a", "1");
}

#[test]
fn idle_managers_sleep_between_heartbeats() {
    let mut cluster = Cluster::new(3, 6);
    let leader = cluster.await_leader();
    cluster.run_for(5 * SECOND);
    let steps = cluster.steps();
    cluster.run_for(10 * SECOND);
    let steps = cluster.steps() - steps;
    // Per heartbeat: the leader wakes once, two followers get one, two answers come back. The
    // slack is for the leader's other clocks.
    assert!(steps < 100 * 5 + 100, "{steps} steps in 10 s");
    assert_eq!(cluster.leader(), Some(leader));
}

#[test]
fn one_manager_is_enough_for_a_group_of_one() {
    let mut cluster = Cluster::new(1, 7);
    cluster.put("a", "1");
    cluster.stop(NodeId::manager(1));
    cluster.start(NodeId::manager(1)).expect("sound disk");
    assert_eq!(cluster.get("a").as_deref(), Some("1"));
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed| {
        let mut cluster = Cluster::new(3, seed);
        cluster.power_loss_one_in = 40;
        for number in 0..30 {
            cluster.put(&format!("key-{}", number % 7), &number.to_string());
        }
        let leader = cluster.await_leader();
        cluster.isolate(leader, true);
        cluster.run_for(5 * SECOND);
        cluster.isolate(leader, false);
        cluster.run_for(5 * SECOND);
        (cluster.bytes, cluster.steps(), cluster.now)
    };
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1), run(2));
}
