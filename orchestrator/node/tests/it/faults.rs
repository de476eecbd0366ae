//! Connections that break, and processes that start anew.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use wavetank_model::{Incarnation, NodeId};
use wavetank_node::transport::{Arrival, TransportConfig};
use wavetank_node::wire::{self, Frame, Hello, Received};

use crate::proxy::Proxy;
use crate::raw::Raw;
use crate::support::{Cluster, Node, eventually, numbered};

const MANAGER: NodeId = NodeId::manager(1);
const AGENT: NodeId = NodeId::agent(1);

/// Tests cut often and do not want to wait.
fn hasty(mut config: TransportConfig) -> TransportConfig {
    config.limits.reconnect_min = Duration::from_millis(1);
    config.limits.reconnect_max = Duration::from_millis(20);
    config
}

#[tokio::test]
async fn cut_connections_lose_nothing_repeat_nothing_and_keep_the_order() {
    const MESSAGES: u64 = 4000;
    let cluster = Cluster::new();
    let behind = nobody_listens().await;
    let proxy = Proxy::cutting(behind, 40_000).await;
    let mut config = cluster.config(MANAGER, &[]);
    config.listen = Some(behind.to_string());
    // Otherwise it would tell the agent how to avoid the proxy.
    config.advertise = Some(proxy.at().to_string());
    let mut manager = cluster.start(config).await;
    let config = hasty(cluster.config(AGENT, &[(MANAGER, proxy.at())]));
    let mut agent = cluster.start(config).await;
    for number in 1..=MESSAGES {
        agent.send(MANAGER, number);
        manager.send(AGENT, number);
    }
    tokio::join!(
        assert_in_order(&mut manager, MESSAGES),
        assert_in_order(&mut agent, MESSAGES),
    );
    assert!(proxy.cuts() > 5, "only {} cuts", proxy.cuts());
    let written = |node: &Node| node.transport.counters().messages_written.get();
    assert!(
        written(&agent) > MESSAGES,
        "the cuts hit nothing that was under way"
    );
    cluster.machine.assert_no_panics();
}

async fn assert_in_order(node: &mut Node, messages: u64) {
    for number in 1..=messages {
        assert_eq!(node.number().await, number);
    }
}

#[tokio::test]
async fn a_peer_that_starts_anew_is_lost_and_hears_nothing_of_its_past() {
    let cluster = Cluster::new();
    let mut manager = cluster.start(cluster.config(MANAGER, &[])).await;
    let mut agent = cluster.start(cluster.config(AGENT, &[manager.at()])).await;
    agent.send(MANAGER, 1);
    manager.send(AGENT, 1);
    assert_eq!(manager.number().await, 1);
    assert_eq!(agent.number().await, 1);
    drop(agent);
    let lost = Arrival::Lost { peer: AGENT };
    assert_eq!(manager.next().await, lost, "its connection broke");
    manager.send(AGENT, 2);

    let mut config = cluster.config(AGENT, &[manager.at()]);
    config.incarnation = Incarnation(2);
    let mut agent = cluster.start(config).await;
    agent.send(MANAGER, 10);
    assert_eq!(manager.next().await, lost, "it is another one");
    assert_eq!(manager.number().await, 10);
    manager.send(AGENT, 3);
    assert_eq!(agent.number().await, 3);
    assert_eq!(manager.transport.counters().messages_outlived.get(), 1);
}

#[tokio::test]
async fn an_older_boot_does_not_come_back() {
    let cluster = Cluster::new();
    let mut manager = cluster.start(cluster.config(MANAGER, &[])).await;
    let start = async |incarnation| {
        let mut config = cluster.config(AGENT, &[manager.at()]);
        config.incarnation = Incarnation(incarnation);
        cluster.start(config).await
    };
    let newer = start(5).await;
    let older = start(4).await;
    newer.send(MANAGER, 1);
    assert_eq!(manager.number().await, 1);
    older.send(MANAGER, 2);
    let refused = || older.transport.counters().dials_failed.get() > 0;
    eventually("the older boot is refused", refused).await;
    newer.send(MANAGER, 3);
    assert_eq!(manager.number().await, 3, "the newer one is not disturbed");
}

#[tokio::test]
async fn a_manager_that_starts_anew_is_found_again() {
    let cluster = Cluster::new();
    let manager = cluster.start(cluster.config(MANAGER, &[])).await;
    let at = manager.at();
    let mut agent = cluster.start(hasty(cluster.config(AGENT, &[at]))).await;
    agent.send(MANAGER, 1);
    eventually("they are connected", || {
        !agent.transport.connected().is_empty()
    })
    .await;
    drop(manager);
    let lost = Arrival::Lost { peer: MANAGER };
    assert_eq!(agent.next().await, lost);

    let mut config = cluster.config(MANAGER, &[]);
    config.listen = Some(at.1.to_string());
    config.incarnation = Incarnation(2);
    let mut manager = cluster.start(config).await;
    // The first message may be for its past still; an agent goes on until it is answered.
    let mut number = 2;
    let answered = loop {
        agent.send(MANAGER, number);
        number += 1;
        let waited = tokio::time::timeout(Duration::from_millis(50), manager.number());
        if let Ok(number) = waited.await {
            break number;
        }
    };
    assert!(answered >= 2, "it is none of the first boot's");
    assert_eq!(agent.next().await, lost, "it is another one");
}

#[tokio::test]
async fn a_machine_that_refuses_connections_has_lost_its_process() {
    let cluster = Cluster::new();
    let nobody = nobody_listens().await;
    let mut agent = cluster
        .start(cluster.config(AGENT, &[(MANAGER, nobody)]))
        .await;
    agent.send(MANAGER, 1);
    assert_eq!(agent.next().await, Arrival::Lost { peer: MANAGER });
    // And is tried again: the message is still there.
    assert_eq!(agent.next().await, Arrival::Lost { peer: MANAGER });
}

async fn nobody_listens() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("an address")
}

#[tokio::test]
async fn managers_are_found_through_one_another() {
    let cluster = Cluster::new();
    let (first_id, second_id) = (NodeId::manager(1), NodeId::manager(2));
    let mut first = cluster.start(cluster.config(first_id, &[])).await;
    let mut second = cluster
        .start(cluster.config(second_id, &[first.at()]))
        .await;
    let agent = cluster.start(cluster.config(AGENT, &[first.at()])).await;
    agent.send(first_id, 1);
    assert_eq!(first.number().await, 1);
    // Nobody told the agent or the first manager where the second one is.
    agent.send(second_id, 2);
    second.send(first_id, 3);
    assert_eq!(first.number().await, 3);
    assert_eq!(second.number().await, 2);
    first.send(second_id, 4);
    let message = numbered(4);
    let from = first_id;
    assert_eq!(second.next().await, Arrival::Message { from, message });
}

#[tokio::test]
async fn when_too_many_messages_wait_the_oldest_go() {
    let cluster = Cluster::new();
    let mut config = cluster.config(MANAGER, &[]);
    config.limits.queue_messages_max = 10;
    let manager = cluster.start(config).await;
    for number in 1..=25 {
        manager.send(AGENT, number);
    }
    assert_eq!(manager.transport.counters().messages_overflowed.get(), 15);
    let mut agent = cluster.start(cluster.config(AGENT, &[manager.at()])).await;
    agent.send(MANAGER, 1);
    for number in 16..=25 {
        assert_eq!(agent.number().await, number);
    }
}

#[tokio::test]
async fn what_comes_again_is_passed_on_once_whatever_connection_it_takes() {
    let cluster = Cluster::new();
    let mut manager = cluster.start(cluster.config(MANAGER, &[])).await;
    let identity = cluster.identity(AGENT);
    let message = |sequence| Frame::Message {
        sequence,
        body: wire::encode_message(&numbered(sequence)),
    };
    let mut first = Raw::with(&identity, manager.at()).await.expect("TLS");
    let heard = first.greet(AGENT, 1).await.expect("an answer");
    assert!(matches!(heard, Frame::Hello(Hello { received: None, .. })));
    for sequence in [1, 2, 1, 2] {
        first.send(&message(sequence)).await.expect("sent");
    }
    assert_eq!(manager.number().await, 1);
    assert_eq!(manager.number().await, 2);
    let mut second = Raw::with(&identity, manager.at()).await.expect("TLS");
    let heard = second.greet(AGENT, 1).await.expect("an answer");
    let had = Received {
        incarnation: Incarnation(1),
        through: 2,
    };
    assert!(
        matches!(heard, Frame::Hello(Hello { received: Some(received), .. }) if received == had)
    );
    for sequence in [1, 2, 3] {
        second.send(&message(sequence)).await.expect("sent");
    }
    let message = numbered(3);
    assert_eq!(
        manager.next().await,
        Arrival::Message {
            from: AGENT,
            message
        }
    );
}
