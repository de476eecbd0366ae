//! Who is let in, and what clients are shown of the cluster.

use wavetank_core::manager::command::Command;
use wavetank_core::manager::store::Store;
use wavetank_model::{
    Availability, Incarnation, NodeId, NodeRole, NodeStatus, Operation, OperationError, Outcome,
};
use wavetank_port::WallTime;

use super::cluster::{Cluster, MIB, name, service};

const EXPIRES: WallTime = WallTime(1_000);

fn digest(token: u32) -> String {
    format!("{token:064x}")
}

fn create(token: u32, role: NodeRole) -> Operation {
    Operation::CreateToken {
        digest: digest(token),
        role,
        expires: EXPIRES,
    }
}

fn redeem(token: u32) -> Operation {
    Operation::RedeemToken {
        digest: digest(token),
        now: WallTime(999),
    }
}

fn refused(cluster: &mut Cluster, operation: Operation) -> String {
    cluster.ask(operation).unwrap_err().to_string()
}

fn admitted(cluster: &mut Cluster, token: u32) -> NodeId {
    match cluster.ask(redeem(token)) {
        Ok(Outcome::Admitted { node }) => node,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_lets_one_node_in_and_no_other() {
    let mut cluster = Cluster::new(0);
    cluster.ask(create(1, NodeRole::Agent)).unwrap();
    assert_eq!(admitted(&mut cluster, 1), NodeId::agent(1));
    let again = refused(&mut cluster, redeem(1));
    assert_eq!(again, "the join token was used by agent-1");
    let twin = refused(&mut cluster, create(1, NodeRole::Agent));
    assert_eq!(twin, "the same token was created before");
}

#[test]
fn a_redemption_that_is_sent_twice_is_answered_alike() {
    let mut cluster = Cluster::new(0);
    cluster.ask(create(1, NodeRole::Agent)).unwrap();
    let command = Command::Client {
        id: cluster.request_id(50),
        operation: redeem(1),
    };
    let first = cluster.apply(command.clone()).result;
    assert_eq!(cluster.apply(command).result, first);
    let node = NodeId::agent(1);
    assert_eq!(first, Some(Ok(Outcome::Admitted { node })));
}

#[test]
fn unknown_expired_and_malformed_tokens_are_refused() {
    let mut cluster = Cluster::new(0);
    let unknown = cluster.ask(redeem(1)).unwrap_err();
    assert!(matches!(unknown, OperationError::NotFound { .. }));
    cluster.ask(create(1, NodeRole::Manager)).unwrap();
    let late = Operation::RedeemToken {
        digest: digest(1),
        now: EXPIRES,
    };
    assert_eq!(refused(&mut cluster, late), "the join token has expired");
    assert_eq!(admitted(&mut cluster, 1), NodeId::manager(1));
    for digest in ["", "ab", &"A".repeat(64), &"g".repeat(64), &"é".repeat(32)] {
        let malformed = Operation::CreateToken {
            digest: digest.to_owned(),
            role: NodeRole::Agent,
            expires: EXPIRES,
        };
        let why = refused(&mut cluster, malformed);
        assert_eq!(why, "a token's digest is 64 lower-case hex digits");
    }
}

#[test]
fn every_node_gets_a_number_that_nobody_has_or_had() {
    let mut cluster = Cluster::new(3);
    for member in 1..=2 {
        cluster.apply(Command::Member {
            member,
            node: NodeId::manager(u32::try_from(member).unwrap() + 4),
            incarnation: Incarnation(1),
        });
    }
    let gone = NodeId::manager(6);
    cluster
        .ask(Operation::RemoveManager { node: gone })
        .unwrap();
    cluster.ask(create(1, NodeRole::Agent)).unwrap();
    cluster.ask(create(2, NodeRole::Agent)).unwrap();
    cluster.ask(create(3, NodeRole::Manager)).unwrap();
    cluster.ask(create(4, NodeRole::Client)).unwrap();
    assert_eq!(admitted(&mut cluster, 2), NodeId::agent(4));
    assert_eq!(admitted(&mut cluster, 1), NodeId::agent(5));
    assert_eq!(admitted(&mut cluster, 3), NodeId::manager(7));
    // Low numbers are the managers' own clients'.
    assert_eq!(admitted(&mut cluster, 4), NodeId::client(10_001));
}

#[test]
fn the_first_manager_of_a_cluster_is_not_made_again_after_its_removal() {
    let first = [(1, NodeId::manager(1)), (2, NodeId::manager(2))];
    let mut cluster = Cluster::with_store(Store::bootstrap(&first.into()));
    let gone = NodeId::manager(2);
    cluster
        .ask(Operation::RemoveManager { node: gone })
        .unwrap();
    cluster.ask(create(1, NodeRole::Manager)).unwrap();
    assert_eq!(admitted(&mut cluster, 1), NodeId::manager(3));
}

#[test]
fn tokens_are_bounded_and_survive_a_snapshot() {
    let mut cluster = Cluster::new(0);
    let lasting = Operation::CreateToken {
        digest: digest(0),
        role: NodeRole::Agent,
        expires: WallTime(EXPIRES.0 + 1),
    };
    cluster.ask(lasting).unwrap();
    for token in 1..=1024 {
        cluster.ask(create(token, NodeRole::Agent)).unwrap();
    }
    let mut store = Store::decode(&cluster.store.encode()).unwrap();
    assert_eq!(store, cluster.store);
    let mut ask = |sequence, operation| {
        let id = cluster.request_id(sequence);
        let command = Command::Client { id, operation };
        let applied = store.apply(wavetank_model::Revision(9_999), &command);
        applied.result.unwrap()
    };
    let node = NodeId::agent(1);
    assert!(ask(2_000, redeem(1)).is_err(), "it gave way");
    assert_eq!(ask(2_001, redeem(0)), Ok(Outcome::Admitted { node }));
}

#[test]
fn all_services_are_listed_with_their_tasks() {
    let mut cluster = Cluster::new(1);
    cluster.deploy(&service("web", 2));
    cluster.deploy(&service("api", 1));
    cluster.run();
    let service = name("web");
    cluster.ask(Operation::Delete { service }).unwrap();
    assert!(Operation::ListServices.is_read());
    let Ok(Outcome::Services { services }) = cluster.store.read(&Operation::ListServices) else {
        panic!("a list");
    };
    let seen: Vec<(&str, usize, bool)> = services
        .iter()
        .map(|view| (&*view.spec.name.0, view.tasks.len(), view.deleting))
        .collect();
    assert_eq!(seen, [("api", 1, false), ("web", 2, true)]);
}

#[test]
fn all_nodes_are_listed_with_what_they_have_and_give() {
    let mut cluster = Cluster::new(2);
    for (member, number) in [(1, 2), (2, 1)] {
        cluster.apply(Command::Member {
            member,
            node: NodeId::manager(number),
            incarnation: Incarnation(1),
        });
    }
    cluster.deploy(&service("web", 3));
    cluster.run();
    cluster.availability(1, Availability::Pause);
    cluster.node_down(2);
    assert!(Operation::ListNodes.is_read());
    let Ok(Outcome::Nodes {
        managers, agents, ..
    }) = cluster.store.read(&Operation::ListNodes)
    else {
        panic!("a list");
    };
    assert_eq!(managers, [NodeId::manager(1), NodeId::manager(2)]);
    let [one, two] = agents.as_slice() else {
        panic!("{agents:?}");
    };
    assert_eq!((one.node, two.node), (NodeId::agent(1), NodeId::agent(2)));
    assert_eq!(one.status, NodeStatus::Ready);
    assert_eq!(one.availability, Availability::Pause);
    let expected = (one.tasks, u64::from(one.tasks) * 64 * MIB);
    assert!(one.tasks > 0);
    assert_eq!((one.tasks, one.used.memory_bytes), expected);
    assert_eq!(one.resources.memory_bytes, 8192 * MIB);
    assert_eq!((two.status, two.tasks), (NodeStatus::Down, 0));
}
