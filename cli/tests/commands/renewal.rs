//! Certificates while nodes run: renewed before they end, and worthless elsewhere.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use wavetank_model::{NodeId, NodeRole};
use wavetank_node::identity::{Identity, PrivateKey};
use wavetank_node::serve::{self, StateFolder};
use wavetank_node::{Os, Platform as _};

use crate::cluster::Cluster;

/// Waited out once. A third of it is left when a node asks for the next: enough on a busy machine.
const LIFETIME: Duration = Duration::from_secs(20);

fn identity(cluster: &Cluster, folder: &str, role: NodeRole) -> Identity {
    let folder = StateFolder::at(&cluster.folder.path().join(folder));
    folder.identity_of(role).unwrap()
}

/// What a node counts under this name.
fn counter(at: SocketAddr, name: &str) -> Option<u64> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let prefix = format!("wavetank_{name}_total{{");
    let line = text.lines().find(|line| line.starts_with(&prefix))?;
    line.split(' ').nth(1)?.parse().ok()
}

/// Waits until it stands at that or higher.
async fn until(at: SocketAddr, name: &str, least: u64) {
    for _ in 0..600 {
        if counter(at, name).is_some_and(|count| count >= least) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{name} still stands at {:?}", counter(at, name));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_while_nodes_run_and_are_worthless_elsewhere() {
    let mut cluster = Cluster::start();
    // The operator's lasts; those of the nodes do not.
    let mut settings = cluster.manager("m");
    settings.certificate_lifetime = LIFETIME;
    let folder = StateFolder::at(&cluster.folder.path().join("m"));
    let authority = folder.identity_files().authority().unwrap().unwrap();
    let restart = async |cluster: &mut Cluster, settings| {
        let node = cluster.nodes.remove(0);
        node.abort();
        let _ = node.await;
        cluster.run(settings);
        // The manager stays the first.
        cluster.nodes.rotate_right(1);
    };
    let (os, node) = (Os::new(), NodeId::manager(1));
    let short = authority.mint(node, PrivateKey::generate(&os), os.wall(), LIFETIME);
    folder
        .identity_files()
        .keep_identity(&short.unwrap())
        .unwrap();
    restart(&mut cluster, settings.clone()).await;
    cluster.until("list nodes", |_| true).await;
    cluster.add_agent().await;
    let ready = |nodes: &serde_json::Value| nodes["agents"][0]["status"] == "ready";
    cluster.until("list nodes", ready).await;
    let first = [
        identity(&cluster, "m", NodeRole::Manager)
            .validity()
            .not_after,
        identity(&cluster, "a", NodeRole::Agent)
            .validity()
            .not_after,
    ];

    while first.iter().any(|ends| os.wall() <= *ends) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let manager = identity(&cluster, "m", NodeRole::Manager);
    let agent = identity(&cluster, "a", NodeRole::Agent);
    assert!(manager.validity().not_after > first[0] && agent.validity().not_after > first[1]);
    // Connections that stand would stand in any case; a new one needs what is valid now. Nobody
    // asks the new manager anything, so the first who connects is the agent.
    let at = settings.common.status;
    restart(&mut cluster, settings).await;
    until(at, "connections_established", 1).await;
    cluster.until("list nodes", ready).await;

    // Another cluster in the same place: its authority signed nothing of the agent's.
    let mut elsewhere = cluster.manager("elsewhere");
    elsewhere.certificate_lifetime = LIFETIME;
    serve::init(&elsewhere).unwrap();
    let at = elsewhere.common.status;
    restart(&mut cluster, elsewhere).await;
    until(at, "handshakes_failed", 1).await;
    assert_eq!(counter(at, "connections_established"), Some(0));
}
