//! Restarts: what is on disk, what was torn, what is gone.

use wavetank_core::{Message, Record, Stored};
use wavetank_model::{NodeId, Notice};

use super::cluster::{Cluster, MILLISECOND, SECOND, others, put};

#[test]
fn all_managers_restart_from_their_disks() {
    let mut cluster = Cluster::new(3, 1);
    for number in 0..120 {
        cluster.put(&format!("key-{number}"), "x");
    }
    for node in cluster.managers() {
        cluster.stop(node);
    }
    for node in cluster.managers() {
        cluster.start(node).expect("sound disk");
    }
    for number in [0, 60, 119] {
        assert_eq!(cluster.get(&format!("key-{number}")).as_deref(), Some("x"));
    }
    let recovered = cluster.notices.iter().filter(|(_, _, notice)| {
        matches!(notice, Notice::Recovered { last, truncated: false } if last.0 > 100)
    });
    assert_eq!(recovered.count(), 3);
}

/// Managers lose power again and again in the middle of their writes: nothing of that step was
/// sent, and a random part of it is on disk, possibly torn. Nothing that a client was told may
/// get lost; the world checks leaders and logs meanwhile.
#[test]
fn nothing_acknowledged_is_lost_when_power_fails_during_writes() {
    let mut losses = 0;
    for seed in 0..25 {
        let mut cluster = Cluster::new(3, seed);
        cluster.timers.snapshot_every = 15;
        cluster.power_loss_one_in = 15;
        for number in 0..40 {
            cluster.put(&format!("key-{number}"), &number.to_string());
        }
        cluster.power_loss_one_in = 0;
        for number in 0..40 {
            let found = cluster.get(&format!("key-{number}"));
            assert_eq!(found, Some(number.to_string()), "seed {seed}");
        }
        cluster.await_agreement();
        losses += cluster.power_losses;
    }
    assert!(losses > 200, "only {losses} power losses");
}

/// A manager has entries that were never committed. Others take their places, in one write with
/// the news that these are committed, and only a part of that write survives.
#[test]
fn half_a_write_never_commits_what_it_was_to_replace() {
    for keep in 0..3 {
        let mut cluster = Cluster::new(3, 70);
        let old = cluster.await_leader();
        cluster.put("a", "1");
        cluster.isolate(old, true);
        for _ in 0..3 {
            let id = cluster.next_request();
            cluster.send(
                id.client,
                old,
                Message::Request {
                    id,
                    operation: put("a", "lost"),
                },
            );
        }
        cluster.run_until("another leader", 20 * SECOND, |cluster| {
            cluster.leader().is_some_and(|leader| leader != old)
        });
        cluster.put("a", "2");
        cluster.put("a", "3");
        cluster.cut_next_entries = Some((old, keep));
        cluster.isolate(old, false);
        cluster.run_for(5 * SECOND);
        assert_eq!(cluster.power_losses, 1);
        cluster.await_agreement();
        assert_eq!(cluster.get("a").as_deref(), Some("3"));
    }
}

#[test]
fn a_vote_is_on_disk_before_it_is_sent() {
    let mut cluster = Cluster::new(3, 2);
    cluster.run_for(10 * SECOND);
    for node in cluster.managers() {
        let disk = cluster.disk(node);
        let voted = disk.iter().any(|stored| match stored {
            Stored::Intact(Record::HardState { vote, .. }) => *vote != 0,
            Stored::Intact(Record::Checkpoint(checkpoint)) => checkpoint.vote != 0,
            _ => false,
        });
        assert!(
            voted,
            "{node} took part in an election and has no vote on disk"
        );
    }
}

#[test]
fn a_follower_that_is_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.await_leader();
    let late = others(&cluster, leader)[0];
    cluster.stop(late);
    for number in 0..200 {
        cluster.put(&format!("key-{number}"), "x");
    }
    cluster.start(late).expect("sound disk");
    cluster.await_agreement();
    let installed = cluster.notices.iter().any(|(_, node, notice)| {
        *node == late
            && matches!(notice, Notice::SnapshotInstalled { revision } if revision.0 > 100)
    });
    assert!(installed);
    let leader = cluster.leader().expect("still there");
    let stores = [late, leader].map(|node| cluster.manager(node).store().encode());
    assert_eq!(stores[0], stores[1]);
    // And what it got survives a restart.
    cluster.stop(late);
    cluster.start(late).expect("sound disk");
    cluster.await_agreement();
}

#[test]
fn a_lost_snapshot_is_sent_again() {
    let mut cluster = Cluster::new(3, 4);
    let leader = cluster.await_leader();
    let late = others(&cluster, leader)[0];
    cluster.stop(late);
    for number in 0..200 {
        cluster.put(&format!("key-{number}"), "x");
    }
    cluster.start(late).expect("sound disk");
    // The follower answers, and what the leader sends then is lost for a while.
    let talks = |cluster: &Cluster| cluster.manager(late).applied().0 > 0;
    cluster.run_until("first words", SECOND, talks);
    cluster.run_for(30 * MILLISECOND);
    cluster.link(leader, late, false);
    cluster.run_for(300 * MILLISECOND);
    cluster.link(leader, late, true);
    cluster.await_agreement();
}

#[test]
fn a_damaged_tail_is_cut_off_and_filled_again() {
    let mut cluster = Cluster::new(3, 5);
    let leader = cluster.await_leader();
    cluster.put("a", "1");
    cluster.await_agreement();
    let node = others(&cluster, leader)[0];
    cluster.stop(node);
    cluster.disk(node).push(Stored::Damaged);
    cluster.start(node).expect("a torn tail is survived");
    cluster.run_for(SECOND);
    cluster.put("b", "2");
    cluster.await_agreement();
    let truncated = cluster.notices.iter().any(|(_, who, notice)| {
        *who == node
            && matches!(
                notice,
                Notice::Recovered {
                    truncated: true,
                    ..
                }
            )
    });
    assert!(truncated);
    // What follows is not written behind the damage.
    cluster.stop(node);
    cluster.start(node).expect("nothing damaged is left");
    cluster.await_agreement();
}

#[test]
fn damage_in_the_middle_needs_a_new_disk() {
    let mut cluster = Cluster::new(3, 6);
    cluster.put("a", "1");
    cluster.await_agreement();
    let node = NodeId::manager(2);
    cluster.stop(node);
    let disk = cluster.disk(node);
    let middle = disk.len() - 2;
    disk[middle] = Stored::Damaged;
    let refused = cluster.start(node).expect_err("votes may be forgotten");
    assert!(refused.contains("wipe"), "{refused}");
}

/// A rotten tail looks like a torn one. When the leader counts on what was in it, the manager
/// gives up its identity for good.
#[test]
fn a_manager_that_lost_acknowledged_entries_gives_up() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.await_leader();
    cluster.put("a", "1");
    cluster.await_agreement();
    let node = others(&cluster, leader)[0];
    // It is away too short a time for the leader to notice: no new term, no new probing.
    cluster.stop(node);
    let disk = cluster.disk(node);
    let kept = disk
        .iter()
        .rposition(|stored| matches!(stored, Stored::Intact(Record::Entries(_))));
    disk.truncate(kept.expect("it has entries"));
    disk.push(Stored::Damaged);
    cluster.start(node).expect("the tail may be torn");
    cluster.run_for(SECOND);
    assert!(!cluster.is_running(node), "it has ended");
    let refused = cluster.start(node).expect_err("for good");
    assert!(refused.contains("wipe"), "{refused}");
    let contacts = others(&cluster, node);
    cluster.wipe(node, contacts);
    cluster.start(node).expect("an empty disk");
    cluster.await_agreement();
    assert_eq!(cluster.get("a").as_deref(), Some("1"));
}

/// A manager whose tail was cut may have voted before: it gives no vote while there is a leader
/// to learn from, and does in the end if there is none.
#[test]
fn after_a_cut_tail_votes_wait_for_a_leader() {
    let mut cluster = Cluster::new(3, 8);
    let leader = cluster.await_leader();
    cluster.await_agreement();
    for node in cluster.managers() {
        cluster.stop(node);
    }
    let followers = others(&cluster, leader);
    for node in &followers {
        cluster.disk(*node).push(Stored::Damaged);
        cluster.start(*node).expect("a torn tail is survived");
    }
    cluster.run_for(5 * SECOND);
    assert_eq!(cluster.leader(), None, "nobody votes yet");
    cluster.await_leader();
    cluster.put("a", "1");
}

#[test]
fn messages_that_make_no_sense_are_refused() {
    let mut cluster = Cluster::new(3, 9);
    let leader = cluster.await_leader();
    let node = others(&cluster, leader)[0];
    let mut kinds = 0;
    for kind in -1..25 {
        for term in [0, 1, 1000] {
            let message = wavetank_core::RaftMessage {
                from: u64::from(leader.number),
                to: u64::from(node.number),
                kind,
                term,
                log_term: 7,
                index: u64::MAX,
                entries: vec![],
                commit: 0,
                commit_term: 0,
                snapshot: None,
                request_snapshot: 0,
                reject: false,
                reject_hint: u64::MAX,
                context: vec![1],
                priority: -1,
            };
            cluster.hand(leader, node, Message::Raft(Box::new(message)));
            kinds += 1;
        }
    }
    let refused = cluster
        .notices
        .iter()
        .filter(|(_, who, notice)| *who == node && matches!(notice, Notice::Undecodable { .. }));
    assert!(refused.count() > kinds / 3);
    cluster.put("a", "1");
    cluster.await_agreement();
}
