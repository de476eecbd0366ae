//! Everything at once, by seed: lost, late and repeated messages, cut links, dead processes,
//! power loss during writes, snapshots, joiners. The world checks leaders and logs all the time;
//! clients check that what they were told stays true.

use proptest::prelude::*;
use wavetank_core::{Boot, Message, RaftMessage};
use wavetank_model::{NodeId, Notice};

use super::cluster::{Cluster, MILLISECOND, SECOND, others};

fn number(text: Option<String>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Counts up a key through all of it; every read sees the newest acknowledged count.
fn storm(seed: u64, managers: u32) -> Cluster {
    let mut cluster = Cluster::new(managers, seed);
    cluster.timers.snapshot_every = 12;
    cluster.lose_one_in = 25;
    cluster.repeat_one_in = 25;
    cluster.power_loss_one_in = 60;
    let mut newest = 0;
    for round in 1..=25u32 {
        let victim =
            NodeId::manager(1 + (round + u32::try_from(seed % 97).unwrap_or(0)) % managers);
        match round % 5 {
            0 => cluster.isolate(victim, true),
            1 if cluster.is_running(victim) => cluster.stop(victim),
            2 => one_way(&mut cluster, victim, true),
            _ => {}
        }
        cluster.put("count", &round.to_string());
        newest = u64::from(round).max(newest);
        assert_eq!(
            number(cluster.get("count")),
            newest,
            "seed {seed}, round {round}"
        );
        cluster.isolate(victim, false);
        one_way(&mut cluster, victim, false);
        if !cluster.is_running(victim) {
            cluster.start(victim).expect("torn tails are survived");
        }
    }
    cluster.calm();
    cluster.await_agreement();
    cluster
}

/// Cuts or mends what others send to a manager; what it sends arrives.
fn one_way(cluster: &mut Cluster, node: NodeId, cut: bool) {
    for other in others(cluster, node) {
        cluster.link_one_way(other, node, !cut);
    }
}

#[test]
fn three_managers_survive_storms() {
    let mut losses = 0;
    for seed in 0..30 {
        losses += storm(seed, 3).power_losses;
    }
    assert!(losses > 50, "only {losses}");
}

#[test]
fn five_managers_survive_storms() {
    for seed in 100..110 {
        storm(seed, 5);
    }
}

/// Some member was put out, and then everybody was in.
fn is_replaced(cluster: &Cluster, since: usize) -> bool {
    let all = cluster.managers();
    let mut memberships =
        cluster.notices[since..]
            .iter()
            .filter_map(|(_, _, notice)| match notice {
                Notice::MembershipChanged { voters } => Some(voters),
                _ => None,
            });
    memberships.any(|voters| *voters != all) && memberships.any(|voters| *voters == all)
}

/// One manager after the other loses its disk and joins again, under load.
#[test]
fn managers_are_replaced_one_by_one_under_load() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(3, 300 + seed);
        cluster.timers.snapshot_every = 12;
        cluster.lose_one_in = 30;
        cluster.repeat_one_in = 30;
        let mut count = 0u64;
        for _generation in 0..2 {
            for wiped in 1..=3 {
                let node = NodeId::manager(wiped);
                let contacts = others(&cluster, node);
                cluster.wipe(node, contacts);
                cluster.run_for((seed * 37 + u64::from(wiped)) % 5 * 100 * MILLISECOND);
                let since = cluster.notices.len();
                cluster.start(node).expect("an empty disk");
                cluster.run_until("its vote", 60 * SECOND, |cluster| {
                    is_replaced(cluster, since)
                });
                count += 1;
                cluster.put("count", &count.to_string());
            }
        }
        cluster.calm();
        cluster.await_agreement();
        assert_eq!(number(cluster.get("count")), count);
    }
}

#[test]
fn a_joiner_in_a_storm_becomes_a_voter() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(3, 400 + seed);
        cluster.timers.snapshot_every = 12;
        cluster.put("a", "1");
        cluster.lose_one_in = 6;
        cluster.repeat_one_in = 6;
        cluster.power_loss_one_in = 40;
        let contacts = cluster.managers();
        cluster.add(NodeId::manager(4), Boot::Join { contacts });
        cluster.run_for(20 * SECOND);
        cluster.calm();
        let voters = cluster.managers();
        cluster.run_until("its vote", 60 * SECOND, |cluster| {
            cluster.notices.iter().rev().any(
                |(_, _, n)| matches!(n, Notice::MembershipChanged { voters: v } if *v == voters),
            )
        });
        cluster.put("b", "2");
        cluster.await_agreement();
    }
}

fn any_raft_message() -> impl Strategy<Value = RaftMessage> {
    let small = || prop_oneof![0u64..12, Just(u64::MAX), Just(u64::MAX - 1)];
    let numbers = (small(), small(), small(), small(), small(), small());
    let entry = (0i32..4, 0u64..6, 0u64..14).prop_map(|(kind, term, index)| {
        wavetank_core::record::LogEntry {
            kind,
            term,
            index,
            data: vec![],
            context: vec![],
        }
    });
    let rest = (
        0i32..20,
        any::<bool>(),
        prop::collection::vec(entry, 0..3),
        1u64..6,
    );
    (numbers, rest, prop::collection::vec(any::<u8>(), 0..9)).prop_map(
        |((log_term, index, commit, commit_term, request_snapshot, reject_hint), rest, context)| {
            let (kind, reject, entries, term) = rest;
            RaftMessage {
                from: 1,
                to: 2,
                kind,
                term,
                log_term,
                index,
                entries,
                commit,
                commit_term,
                snapshot: None,
                request_snapshot,
                reject,
                reject_hint,
                context,
                priority: 0,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a manager is told by a liar among the managers, it does not crash: it refuses,
    /// ignores, or gives up its identity in an orderly way.
    #[test]
    fn no_message_crashes_a_manager(
        messages in prop::collection::vec(any_raft_message(), 1..12),
        seed in 0u64..8,
    ) {
        let mut cluster = Cluster::new(3, seed);
        cluster.unchecked = true;
        cluster.run_for(seed * SECOND / 2);
        let (liar, node) = (NodeId::manager(1), NodeId::manager(2));
        for message in messages {
            if cluster.is_running(node) {
                cluster.hand(liar, node, Message::Raft(Box::new(message)));
            }
        }
    }
}
