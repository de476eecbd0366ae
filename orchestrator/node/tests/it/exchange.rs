//! Messages between nodes that are well.

use std::time::Duration;

use wavetank_model::NodeId;
use wavetank_node::transport::Arrival;

use crate::support::{Cluster, numbered};

#[tokio::test]
async fn two_nodes_exchange_messages_both_ways() {
    let cluster = Cluster::new();
    let (manager, agent) = (NodeId::manager(1), NodeId::agent(1));
    let mut first = cluster.start(cluster.config(manager, &[])).await;
    let mut second = cluster.start(cluster.config(agent, &[first.at()])).await;
    for number in 1..=500 {
        second.send(manager, number);
        first.send(agent, number);
    }
    for number in 1..=500 {
        let message = numbered(number);
        assert_eq!(
            first.next().await,
            Arrival::Message {
                from: agent,
                message
            }
        );
        assert_eq!(second.number().await, number);
    }
    assert_eq!(first.transport.connected(), [agent]);
    assert_eq!(second.transport.connected(), [manager]);
}

#[tokio::test]
async fn connections_without_messages_wait_and_do_not_spin() {
    let cluster = Cluster::new();
    let manager = NodeId::manager(1);
    let mut first = cluster.start(cluster.config(manager, &[])).await;
    let mut nodes = Vec::new();
    for node in [NodeId::manager(2), NodeId::agent(1), NodeId::client(1)] {
        let node = cluster.start(cluster.config(node, &[first.at()])).await;
        node.send(manager, 1);
        assert_eq!(first.number().await, 1);
        nodes.push(node);
    }
    let before = cluster.machine.clock_readings();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let readings = cluster.machine.clock_readings() - before;
    assert!(readings < 500, "{readings} readings of the clock");
}
