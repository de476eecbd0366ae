//! Too much of everything: connections that say nothing, and peers that hear nothing.

use std::time::Duration;

use tokio::net::TcpStream;
use wavetank_core::Message;
use wavetank_model::{NodeId, Operation, RequestId};

use crate::memory::Watch;
use crate::raw::Raw;
use crate::support::{Cluster, eventually};

const MANAGER: NodeId = NodeId::manager(1);
const AGENT: NodeId = NodeId::agent(1);
const MIB: usize = 1 << 20;

/// As many as the machine lets one process have, up to ten thousand.
fn idle_connections() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    limit.map_or(10_000, |limit| (limit.saturating_sub(3000)).min(10_000))
}

#[tokio::test]
async fn idle_connections_are_bounded_and_in_nobodys_way() {
    let cluster = Cluster::new();
    let mut manager = cluster.start(cluster.config(MANAGER, &[])).await;
    let mut before = cluster.start(cluster.config(AGENT, &[manager.at()])).await;
    before.send(MANAGER, 1);
    assert_eq!(manager.number().await, 1);

    let watch = Watch::begin();
    let mut idle = Vec::new();
    for number in 0..idle_connections() {
        idle.push(
            TcpStream::connect(manager.at().1)
                .await
                .expect("a connection"),
        );
        if number % 1000 == 0 {
            before.send(MANAGER, 2);
            assert_eq!(manager.number().await, 2);
            manager.send(AGENT, 3);
            assert_eq!(before.number().await, 3);
        }
    }
    let during = NodeId::agent(2);
    let late = cluster.start(cluster.config(during, &[manager.at()])).await;
    late.send(MANAGER, 4);
    assert_eq!(
        manager.number().await,
        4,
        "somebody who knows what to say gets in"
    );
    let counters = manager.transport.counters();
    let limits = wavetank_node::transport::Limits::usual();
    eventually("the rest is dropped", || {
        let refused = usize::try_from(counters.connections_refused.get()).expect("a number");
        refused + limits.handshakes_max + 2 >= idle.len()
    })
    .await;
    // Both ends of ten thousand connections live in this thread.
    assert!(watch.peak() < 64 * MIB, "{} bytes", watch.peak());
    cluster.machine.assert_no_panics();
}

#[tokio::test]
async fn peers_beyond_the_limit_wait_until_there_is_room() {
    let cluster = Cluster::new();
    let mut config = cluster.config(MANAGER, &[]);
    config.limits.connections_max = 2;
    let mut manager = cluster.start(config).await;
    let start = |number| cluster.start(cluster.config(NodeId::agent(number), &[manager.at()]));
    let (first, second, third) = (start(1).await, start(2).await, start(3).await);
    for agent in [&first, &second] {
        agent.send(MANAGER, 1);
        assert_eq!(manager.number().await, 1);
    }
    third.send(MANAGER, 3);
    let refused = || manager.transport.counters().connections_refused.get() > 0;
    eventually("the third is refused", refused).await;
    first.send(MANAGER, 2);
    assert_eq!(manager.number().await, 2, "the others stay");
    drop(second);
    assert_eq!(manager.number().await, 3);
}

fn large(number: u64) -> Message {
    Message::Request {
        id: RequestId {
            client: NodeId::client(1),
            incarnation: wavetank_model::Incarnation(1),
            sequence: number,
        },
        operation: Operation::Put {
            key: "key".to_owned(),
            value: "x".repeat(10_000),
            claim: None,
        },
    }
}

#[tokio::test]
async fn a_peer_that_reads_nothing_costs_no_more_than_its_queue() {
    let cluster = Cluster::new();
    let mut config = cluster.config(MANAGER, &[]);
    config.limits.queue_bytes_max = 4 * MIB;
    config.limits.stall_timeout = Duration::from_millis(200);
    // It could as well be talking all the time.
    config.limits.silence_timeout = Duration::from_secs(3600);
    let mut manager = cluster.start(config).await;
    let mut other = cluster
        .start(cluster.config(NodeId::agent(2), &[manager.at()]))
        .await;
    let identity = cluster.identity(AGENT);
    let mut raw = Raw::with(&identity, manager.at()).await.expect("TLS");
    raw.greet(AGENT, 1).await.expect("an answer");

    let watch = Watch::begin();
    for number in 0..20_000 {
        manager.transport.send(AGENT, &large(number));
        if number % 1000 == 0 {
            other.send(MANAGER, number);
            assert_eq!(manager.number().await, number, "others are served");
            manager.send(NodeId::agent(2), number);
            assert_eq!(other.number().await, number);
        }
    }
    // 200 MB were sent.
    assert!(watch.peak() < 32 * MIB, "{} bytes", watch.peak());
    let counters = manager.transport.counters();
    assert!(counters.messages_overflowed.get() > 15_000);
    eventually("it is given up", || {
        counters.connections_abandoned.get() > 0
    })
    .await;
    cluster.machine.assert_no_panics();
}
