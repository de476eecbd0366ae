//! What clients get: one effect per request, linearizable reads, leases.

use std::time::Duration;

use wavetank_core::Message;
use wavetank_model::{
    FencingToken, LeaseName, NodeId, Notice, Operation, OperationError, Outcome, RequestId,
};

use super::cluster::{Cluster, SECOND, others, put};

#[test]
fn followers_name_the_leader() {
    let mut cluster = Cluster::new(3, 1);
    let leader = cluster.await_leader();
    cluster.run_for(SECOND);
    let follower = others(&cluster, leader)[0];
    let id = cluster.next_request();
    cluster.send(
        id.client,
        follower,
        Message::Request {
            id,
            operation: put("a", "1"),
        },
    );
    cluster.run_for(SECOND / 10);
    let redirect = (
        follower,
        Message::Redirect {
            leader: Some(leader),
        },
    );
    assert_eq!(cluster.take_mail(id.client), [redirect]);
}

#[test]
fn a_repeated_request_takes_effect_once() {
    let mut cluster = Cluster::new(3, 2);
    let leader = cluster.await_leader();
    let id = cluster.next_request();
    for _ in 0..3 {
        cluster.send(
            id.client,
            leader,
            Message::Request {
                id,
                operation: put("a", "1"),
            },
        );
    }
    cluster.run_for(SECOND);
    cluster.put("a", "2");
    cluster.send(
        id.client,
        leader,
        Message::Request {
            id,
            operation: put("a", "1"),
        },
    );
    cluster.run_for(SECOND);
    assert_eq!(cluster.get("a").as_deref(), Some("2"));
    let answers = cluster.take_mail(id.client);
    let firsts = answers
        .iter()
        .filter(|(_, m)| matches!(m, Message::Response { id: i, .. } if *i == id));
    // The copies that overlapped are one request; the late one is answered from memory.
    assert_eq!(firsts.count(), 2);
}

#[test]
fn an_agent_asks_for_leases_and_nothing_else() {
    let mut cluster = Cluster::new(3, 1);
    let leader = cluster.await_leader();
    cluster.put("a", "secret");
    let lease = LeaseName("job".into());
    let acquire = Operation::LeaseAcquire {
        lease,
        holder: "task-1.1".to_owned(),
        ttl: Duration::from_secs(10),
    };
    let key = "a".to_owned();
    let asked = [
        (acquire, true),
        (Operation::Get { key }, false),
        (Operation::ListServices, false),
        (put("a", "mine"), false),
    ];
    for (sequence, (operation, granted)) in (1..).zip(asked) {
        let id = RequestId {
            client: NodeId::agent(1),
            sequence,
            ..cluster.next_request()
        };
        let request = Message::Request {
            id,
            operation: operation.clone(),
        };
        cluster.send(id.client, leader, request);
        cluster.run_for(SECOND);
        let answer = cluster.answer(id).expect("an answer");
        assert_eq!(answer.is_ok(), granted, "{operation:?}: {answer:?}");
    }
    assert_eq!(cluster.get("a").as_deref(), Some("secret"));
}

#[test]
fn a_deposed_leader_answers_no_reads() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(3, 10 + seed);
        let old = cluster.await_leader();
        cluster.put("a", "old");
        cluster.isolate(old, true);
        let new = {
            cluster.run_until("new leader", 20 * SECOND, |c| {
                c.leader().is_some_and(|l| l != old)
            });
            cluster.leader().expect("just seen")
        };
        assert_ne!(old, new);
        cluster.put("a", "new");
        // The client still believes in the old one.
        let id = cluster.next_request();
        let read = Operation::Get {
            key: "a".to_owned(),
        };
        cluster.send(
            id.client,
            old,
            Message::Request {
                id,
                operation: read,
            },
        );
        cluster.run_for(3 * SECOND);
        assert_eq!(cluster.answer(id), None);
    }
}

#[test]
fn a_read_during_a_partition_waits_for_the_majority() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.await_leader();
    cluster.put("a", "1");
    cluster.isolate(leader, true);
    let id = cluster.next_request();
    let read = Operation::Get {
        key: "a".to_owned(),
    };
    cluster.send(
        id.client,
        leader,
        Message::Request {
            id,
            operation: read,
        },
    );
    cluster.run_for(SECOND / 2);
    assert_eq!(cluster.answer(id), None, "nobody has confirmed it");
    cluster.isolate(leader, false);
    cluster.run_for(SECOND / 2);
    let value = Some("1".to_owned());
    assert_eq!(cluster.answer(id), Some(Ok(Outcome::Value { value })));
}

#[test]
fn reads_and_writes_through_changes_of_leader_are_linearizable() {
    let mut cluster = Cluster::new(3, 4);
    for round in 0..15 {
        cluster.put("a", &round.to_string());
        let leader = cluster.await_leader();
        match round % 3 {
            0 => cluster.isolate(leader, true),
            1 => cluster.stop(leader),
            _ => {}
        }
        assert_eq!(cluster.get("a"), Some(round.to_string()), "round {round}");
        match round % 3 {
            0 => cluster.isolate(leader, false),
            1 => cluster.start(leader).expect("sound disk"),
            _ => {}
        }
    }
}

#[test]
fn a_burst_of_reads_shares_its_confirmations() {
    let mut cluster = Cluster::new(3, 5);
    let leader = cluster.await_leader();
    cluster.put("a", "1");
    let ids: Vec<_> = (0..100).map(|_| cluster.next_request()).collect();
    let steps = cluster.steps();
    for id in &ids {
        let operation = Operation::Get {
            key: "a".to_owned(),
        };
        cluster.hand(id.client, leader, Message::Request { id: *id, operation });
    }
    cluster.run_for(SECOND / 10);
    assert!(ids.iter().all(|id| cluster.answer(*id).is_some()));
    assert!(
        cluster.steps() - steps < 130,
        "{} steps for 100 reads",
        cluster.steps() - steps
    );
}

fn acquire(cluster: &mut Cluster, holder: &str) -> Result<Outcome, OperationError> {
    cluster.ask(&Operation::LeaseAcquire {
        lease: LeaseName::from("main"),
        holder: holder.to_owned(),
        ttl: Duration::from_secs(4),
    })
}

fn renew(cluster: &mut Cluster, token: u64) -> Result<Outcome, OperationError> {
    cluster.ask(&Operation::LeaseRenew {
        lease: LeaseName::from("main"),
        token: FencingToken(token),
    })
}

#[test]
fn a_lease_is_kept_by_renewing_and_lost_without() {
    let mut cluster = Cluster::new(3, 6);
    let granted = |token| {
        Ok(Outcome::Granted {
            token: FencingToken(token),
        })
    };
    assert_eq!(acquire(&mut cluster, "one"), granted(1));
    for _ in 0..6 {
        cluster.run_for(SECOND);
        assert_eq!(renew(&mut cluster, 1), granted(1));
    }
    assert_eq!(
        acquire(&mut cluster, "two"),
        Ok(Outcome::Held {
            holder: "one".to_owned()
        })
    );
    cluster.run_for(5 * SECOND);
    assert_eq!(acquire(&mut cluster, "two"), granted(2));
    assert!(matches!(
        renew(&mut cluster, 1),
        Err(OperationError::Fenced { .. })
    ));
}

#[test]
fn renewing_writes_nothing_to_the_log() {
    let mut cluster = Cluster::new(3, 7);
    acquire(&mut cluster, "one").expect("free");
    let applied = |cluster: &Cluster| {
        let applied = cluster
            .notices
            .iter()
            .filter(|(_, _, n)| matches!(n, Notice::Applied { .. }));
        applied.count()
    };
    cluster.await_agreement();
    let before = applied(&cluster);
    renew(&mut cluster, 1).expect("held");
    assert_eq!(applied(&cluster), before);
}

#[test]
fn a_lease_survives_a_change_of_leader_for_its_full_time() {
    let mut cluster = Cluster::new(3, 8);
    acquire(&mut cluster, "one").expect("free");
    let leader = cluster.await_leader();
    cluster.stop(leader);
    cluster.await_leader();
    cluster.run_for(3 * SECOND);
    assert_eq!(
        acquire(&mut cluster, "two"),
        Ok(Outcome::Held {
            holder: "one".to_owned()
        })
    );
    assert!(renew(&mut cluster, 1).is_ok());
}
