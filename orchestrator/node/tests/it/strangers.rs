//! Whoever is not of the cluster, or does not behave as if.

use std::sync::Arc;
use std::time::Duration;

use ciborium::cbor;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wavetank_model::NodeId;
use wavetank_node::Platform as _;
use wavetank_node::identity::{Identity, LIFETIME, PrivateKey};
use wavetank_node::transport::Arrival;
use wavetank_node::wire::{self, Frame};

use crate::raw::{Raw, hello};
use crate::support::{Cluster, Machine, Node, eventually, numbered};

const MANAGER: NodeId = NodeId::manager(1);
const AGENT: NodeId = NodeId::agent(1);

/// The manager turned somebody away, and still serves the cluster.
async fn assert_refused_and_well(cluster: &Cluster, manager: &mut Node) {
    let counters = manager.transport.counters();
    eventually("somebody was turned away", || {
        counters.handshakes_failed.get() > 0
    })
    .await;
    assert_eq!(manager.transport.connected(), []);
    assert_well(cluster, manager).await;
}

async fn assert_well(cluster: &Cluster, manager: &mut Node) {
    let id = NodeId::agent(77);
    let mut agent = cluster.start(cluster.config(id, &[manager.at()])).await;
    agent.send(MANAGER, 1);
    let message = numbered(1);
    assert_eq!(manager.next().await, Arrival::Message { from: id, message });
    manager.send(id, 2);
    assert_eq!(agent.number().await, 2);
    cluster.machine.assert_no_panics();
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let mut manager = cluster.start(cluster.config(MANAGER, &[])).await;
    // It trusts the right authority and is trusted by the wrong one.
    let key = PrivateKey::generate(&cluster.machine);
    let request = wavetank_node::identity::Request::read(&key.request().expect("a request"));
    let now = cluster.machine.wall();
    let certificate = other
        .ca
        .sign(&request.expect("signed"), AGENT, now, LIFETIME);
    let authority = cluster.ca.certificate().clone();
    let forged = Identity::new(key, certificate.expect("a certificate"), authority);
    let forged = forged.expect("it fits together");
    if let Ok(mut raw) = Raw::with(&forged, manager.at()).await {
        assert!(raw.greet(AGENT, 1).await.is_err());
    }
    assert_refused_and_well(&cluster, &mut manager).await;

    let stranger = other.start(other.config(AGENT, &[manager.at()])).await;
    stranger.send(MANAGER, 1);
    let counters = stranger.transport.counters();
    eventually("it does not trust us either", || {
        counters.dials_failed.get() > 0
    })
    .await;
    assert!(!manager.transport.connected().contains(&AGENT));
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_both_sides_and_a_corrected_clock_helps() {
    let cluster = Cluster::new();
    let late = Machine::new();
    late.set_clock_ahead(LIFETIME + Duration::from_secs(7200));

    let mut manager = Cluster::start_on(&late, cluster.config(MANAGER, &[])).await;
    let agent = cluster.start(cluster.config(AGENT, &[manager.at()])).await;
    agent.send(MANAGER, 1);
    let refused = || manager.transport.counters().handshakes_failed.get() > 0;
    eventually("the manager refuses", refused).await;
    assert_eq!(manager.transport.connected(), []);
    late.set_clock_ahead(Duration::ZERO);
    assert_eq!(manager.number().await, 1);

    late.set_clock_ahead(LIFETIME + Duration::from_secs(7200));
    let second = NodeId::agent(2);
    let agent = Cluster::start_on(&late, cluster.config(second, &[manager.at()])).await;
    agent.send(MANAGER, 2);
    let refused = || agent.transport.counters().dials_failed.get() > 0;
    eventually("the agent refuses", refused).await;
    assert!(!manager.transport.connected().contains(&second));
}

#[tokio::test]
async fn a_certificate_is_for_one_node() {
    let cluster = Cluster::new();
    let mut manager = cluster.start(cluster.config(MANAGER, &[])).await;
    let identity = cluster.identity(NodeId::agent(2));
    let mut raw = Raw::with(&identity, manager.at())
        .await
        .expect("it is of the cluster");
    raw.send(&Frame::Hello(hello(AGENT, 1)))
        .await
        .expect("sent");
    let said = raw.until_end().await;
    assert!(
        matches!(said.as_slice(), [Frame::Refused { .. }]),
        "{said:?}"
    );
    assert_refused_and_well(&cluster, &mut manager).await;

    // Nor does a dialer take one manager for another.
    let misled = (NodeId::manager(2), manager.at().1);
    let agent = cluster.start(cluster.config(AGENT, &[misled])).await;
    agent.send(misled.0, 1);
    let counters = agent.transport.counters();
    eventually("it looks at the name", || counters.dials_failed.get() > 0).await;
}

#[tokio::test]
async fn an_agent_cannot_pass_for_a_server() {
    let cluster = Cluster::new();
    let mut config = cluster.config(AGENT, &[]);
    config.listen = Some("127.0.0.1:0".to_owned());
    let agent = cluster.start(config).await;
    let at = agent.transport.local_address().expect("it listens");
    assert!(Raw::without(&cluster, (AGENT, at)).await.is_err());
    let identity = cluster.identity(NodeId::agent(2));
    assert!(Raw::with(&identity, (AGENT, at)).await.is_err());
}

#[tokio::test]
async fn without_a_certificate_nothing_but_a_join_is_heard() {
    let cluster = Cluster::new();
    let mut manager = cluster.start(cluster.config(MANAGER, &[])).await;
    let body = wire::encode_message(&numbered(1));
    let request = body.clone();
    for frame in [
        Frame::Hello(hello(AGENT, 1)),
        Frame::Message { sequence: 1, body },
        Frame::Acknowledge { through: 1 },
        Frame::Renew { request },
    ] {
        let mut raw = Raw::without(&cluster, manager.at()).await.expect("TLS");
        raw.send(&frame).await.expect("sent");
        let said = raw.until_end().await;
        assert!(
            matches!(said.as_slice(), [Frame::Refused { .. }]),
            "{said:?}"
        );
    }
    assert_refused_and_well(&cluster, &mut manager).await;
}

#[tokio::test]
async fn oversized_frames_end_the_connection_before_they_are_read() {
    let cluster = Cluster::new();
    let mut manager = cluster.start(cluster.config(MANAGER, &[])).await;
    let limits = wavetank_node::transport::Limits::usual();
    let length = |bytes: usize| u32::try_from(bytes).expect("a length").to_be_bytes();

    let mut raw = Raw::without(&cluster, manager.at()).await.expect("TLS");
    let oversized = length(limits.first_frame_bytes_max + 1);
    raw.send_bytes(&oversized).await.expect("sent");
    assert_eq!(raw.until_end().await, []);

    let identity = cluster.identity(AGENT);
    let mut raw = Raw::with(&identity, manager.at()).await.expect("TLS");
    let heard = raw.greet(AGENT, 1).await.expect("an answer");
    assert!(matches!(heard, Frame::Hello(_)));
    let oversized = length(limits.frame_bytes_max + 1);
    raw.send_bytes(&oversized).await.expect("sent");
    assert_eq!(raw.until_end().await, []);
    assert_eq!(manager.next().await, Arrival::Lost { peer: AGENT });
    assert_refused_and_well(&cluster, &mut manager).await;
}

#[tokio::test]
async fn a_newer_version_is_understood_as_far_as_possible() {
    let cluster = Cluster::new();
    let mut manager = cluster.start(cluster.config(MANAGER, &[])).await;
    let identity = cluster.identity(AGENT);
    let mut raw = Raw::with(&identity, manager.at()).await.expect("TLS");
    let newer = cbor!({ "hello" => {
        "version" => 9, "node" => "agent-1", "incarnation" => 1, "mood" => ["good", 7],
    }});
    raw.send_value(&newer.expect("CBOR")).await.expect("sent");
    assert!(matches!(raw.receive().await, Ok(Frame::Hello(_))));
    let unknown = cbor!({ "telepathy" => { "thought" => [1, 2, { "deep" => null }] }});
    raw.send_value(&unknown.expect("CBOR")).await.expect("sent");

    let newer = cbor!({ "join" => { "incarnation" => 4, "urgency" => 1.5 } });
    let unknown = cbor!({ "dream" => { "incarnation" => 4 } });
    let wrong = cbor!({ "join" => { "incarnation" => "four" } });
    for (sequence, value) in (1..).zip([newer, unknown, wrong]) {
        let mut body = Vec::new();
        ciborium::into_writer(&value.expect("CBOR"), &mut body).expect("CBOR");
        let body = body.into();
        raw.send(&Frame::Message { sequence, body })
            .await
            .expect("sent");
    }
    let message = numbered(4);
    assert_eq!(
        manager.next().await,
        Arrival::Message {
            from: AGENT,
            message
        }
    );
    for wanted in ["unknown", "join"] {
        match manager.next().await {
            Arrival::Undecodable { from, kind, .. } => assert_eq!((from, kind), (AGENT, wanted)),
            other => panic!("expected something undecodable, got {other:?}"),
        }
    }
    let acknowledged = async {
        while raw.receive().await.expect("a frame") != (Frame::Acknowledge { through: 3 }) {}
    };
    let acknowledged = tokio::time::timeout(Duration::from_secs(60), acknowledged).await;
    acknowledged.expect("what cannot be read is acknowledged too, or it would come for ever");
}

/// Bytes that are nothing, and bytes that begin like something.
fn nonsense() -> impl Strategy<Value = Vec<u8>> {
    let tls_header = Just(vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
    let frame_header = (0..100_u32).prop_map(|length| length.to_be_bytes().to_vec());
    let head = prop_oneof![Just(Vec::new()), tls_header, frame_header];
    let tail = proptest::collection::vec(any::<u8>(), 0..2000);
    (head, tail).prop_map(|(head, tail)| [head, tail].concat())
}

#[tokio::test]
async fn random_bytes_on_the_port_disturb_nobody() {
    let cluster = Arc::new(Cluster::new());
    let mut manager = cluster.start(cluster.config(MANAGER, &[])).await;
    let at = manager.at().1;
    for bytes in samples(100) {
        let mut stream = TcpStream::connect(at).await.expect("it listens");
        // It may hang up half-way.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert_refused_and_well(&cluster, &mut manager).await;
}

#[tokio::test]
async fn random_bytes_from_a_peer_disturb_nobody_else() {
    let cluster = Cluster::new();
    let mut manager = cluster.start(cluster.config(MANAGER, &[])).await;
    let identity = cluster.identity(AGENT);
    for bytes in samples(50) {
        let mut raw = Raw::with(&identity, manager.at()).await.expect("TLS");
        let _ = raw.send_bytes(&bytes).await;
        drop(raw);
        let mut raw = Raw::with(&identity, manager.at()).await.expect("TLS");
        raw.greet(AGENT, 1).await.expect("an answer");
        let _ = raw.send_bytes(&bytes).await;
    }
    let probe = NodeId::agent(5);
    let agent = cluster.start(cluster.config(probe, &[manager.at()])).await;
    agent.send(MANAGER, 1);
    loop {
        match manager.next().await {
            Arrival::Message { from, .. } if from == probe => break,
            Arrival::Lost { peer: AGENT } | Arrival::Undecodable { from: AGENT, .. } => {}
            other => panic!("nobody sent {other:?}"),
        }
    }
    cluster.machine.assert_no_panics();
}

fn samples(number: usize) -> Vec<Vec<u8>> {
    let mut runner = TestRunner::default();
    let draw = |_| {
        nonsense()
            .new_tree(&mut runner)
            .expect("a sample")
            .current()
    };
    (0..number).map(draw).collect()
}
