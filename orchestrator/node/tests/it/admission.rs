//! Getting into the cluster, and staying.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use wavetank_model::{NodeId, NodeRole};
use wavetank_node::Platform as _;
use wavetank_node::admission::{Admission, AdmissionError, Joined, Redeem, join, renew};
use wavetank_node::identity::{LIFETIME, Token, digest_of};
use wavetank_node::transport::Limits;
use wavetank_node::wire::{Frame, Join};

use crate::raw::Raw;
use crate::support::{Cluster, Node, eventually};

const MANAGER: NodeId = NodeId::manager(1);

/// The managers' agreement on tokens, without managers.
#[derive(Default)]
struct Ledger {
    tokens: Mutex<BTreeMap<String, Option<NodeId>>>,
    asked: Mutex<usize>,
}

impl Ledger {
    fn asked(&self) -> usize {
        *self.asked.lock().expect("a ledger")
    }
}

#[async_trait]
impl Redeem for Ledger {
    async fn redeem(&self, digest: String) -> Result<NodeId, String> {
        *self.asked.lock().expect("a ledger") += 1;
        let mut tokens = self.tokens.lock().expect("a ledger");
        let token = tokens.get_mut(&digest).ok_or("no such token")?;
        token.take().ok_or_else(|| "the token was used".to_owned())
    }
}

struct Admitting {
    cluster: Cluster,
    manager: Node,
    ledger: Arc<Ledger>,
}

impl Admitting {
    async fn start() -> Self {
        Self::listening("127.0.0.1:0").await
    }

    async fn listening(at: &str) -> Self {
        let cluster = Cluster::new();
        let mut config = cluster.config(MANAGER, &[]);
        config.listen = Some(at.to_owned());
        let manager = cluster.start(config).await;
        let ledger = Arc::new(Ledger::default());
        manager.transport.admit(Admission {
            authority: cluster.ca.clone(),
            lifetime: LIFETIME,
            redeem: ledger.clone(),
        });
        Admitting {
            cluster,
            manager,
            ledger,
        }
    }

    fn token(&self, admits: NodeId) -> Token {
        let authority = digest_of(self.cluster.ca.certificate());
        let token = Token::generate(authority, &self.cluster.machine);
        let mut tokens = self.ledger.tokens.lock().expect("a ledger");
        tokens.insert(token.digest(admits.role), Some(admits));
        token
    }

    async fn join(&self, token: &Token, role: NodeRole) -> Result<Joined, AdmissionError> {
        let at = self.manager.at().1.to_string();
        join(&self.cluster.machine, token, role, &at, &Limits::usual()).await
    }

    /// A node starts with what it was given, and reaches the manager.
    async fn assert_connects(&mut self, joined: Joined) {
        let mut config = self.cluster.config(joined.identity.node(), &[]);
        config.identity = Arc::new(joined.identity);
        config.addresses = joined.addresses;
        let node = self.cluster.start(config).await;
        node.send(MANAGER, 1);
        assert_eq!(self.manager.number().await, 1);
    }

    async fn assert_refused(&self, token: &Token, role: NodeRole, because: &str) {
        match self.join(token, role).await {
            Err(AdmissionError::Refused { why, .. }) => assert!(why.contains(because), "{why}"),
            other => panic!("expected a refusal, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_token_admits_one_node_that_is_of_the_cluster_then() {
    let mut admitting = Admitting::start().await;
    let agent = NodeId::agent(4);
    let token = admitting.token(agent);
    let text = token.reveal();
    let token = text.parse().expect("a token");
    let joined = admitting
        .join(&token, NodeRole::Agent)
        .await
        .expect("it is let in");
    assert_eq!(joined.identity.node(), agent);
    assert!(joined.authority.is_none(), "an agent cannot let anybody in");
    admitting
        .assert_refused(&token, NodeRole::Agent, "was used")
        .await;

    admitting.assert_connects(joined).await;
    let counters = admitting.manager.transport.counters();
    assert_eq!(counters.admissions_granted.get(), 1);
    assert_eq!(counters.admissions_refused.get(), 1);
}

/// A manager that listens everywhere cannot say where it is; whoever reached it knows.
#[tokio::test]
async fn a_joiner_knows_where_it_was_let_in() {
    let mut admitting = Admitting::listening("0.0.0.0:0").await;
    let agent = NodeId::agent(1);
    let token = admitting.token(agent);
    let at = format!("127.0.0.1:{}", admitting.manager.at().1.port());
    let machine = &admitting.cluster.machine;
    let joined = join(machine, &token, NodeRole::Agent, &at, &Limits::usual()).await;
    let joined = joined.expect("it is let in");
    assert_eq!(joined.addresses.get(MANAGER), Some(&*at));

    admitting.assert_connects(joined).await;
}

#[tokio::test]
async fn of_many_that_show_one_token_at_once_one_gets_in() {
    let admitting = Admitting::start().await;
    let token = admitting.token(NodeId::agent(1));
    let role = NodeRole::Agent;
    let (a, b, c, d) = tokio::join!(
        admitting.join(&token, role),
        admitting.join(&token, role),
        admitting.join(&token, role),
        admitting.join(&token, role),
    );
    assert_eq!(
        [a, b, c, d].iter().filter(|joined| joined.is_ok()).count(),
        1
    );
}

#[tokio::test]
async fn forged_tokens_and_tokens_for_another_role_are_refused_and_cost_no_token() {
    let admitting = Admitting::start().await;
    let authority = digest_of(admitting.cluster.ca.certificate());
    let forged = Token::generate(authority, &admitting.cluster.machine);
    admitting
        .assert_refused(&forged, NodeRole::Agent, "no such token")
        .await;
    let token = admitting.token(NodeId::agent(1));
    admitting
        .assert_refused(&token, NodeRole::Manager, "no such token")
        .await;
    assert!(admitting.join(&token, NodeRole::Agent).await.is_ok());
}

#[tokio::test]
async fn a_manager_that_joins_can_let_others_in() {
    let admitting = Admitting::start().await;
    let second = NodeId::manager(2);
    let token = admitting.token(second);
    let joined = admitting
        .join(&token, NodeRole::Manager)
        .await
        .expect("it is let in");
    let authority = joined.authority.expect("managers hold the authority");
    assert_eq!(authority.certificate(), admitting.cluster.ca.certificate());

    let mut config = admitting.cluster.config(second, &[]);
    config.identity = Arc::new(joined.identity);
    let manager = admitting.cluster.start(config).await;
    manager.transport.admit(Admission {
        authority,
        lifetime: LIFETIME,
        redeem: admitting.ledger.clone(),
    });
    let token = admitting.token(NodeId::agent(1));
    let at = manager.at().1.to_string();
    let machine = &admitting.cluster.machine;
    let joined = join(machine, &token, NodeRole::Agent, &at, &Limits::usual()).await;
    assert_eq!(
        joined.expect("it is let in").identity.node(),
        NodeId::agent(1)
    );
}

#[tokio::test]
async fn a_token_is_said_to_nobody_but_managers_of_its_cluster() {
    let (admitting, other) = (Admitting::start().await, Admitting::start().await);
    let token = other.token(NodeId::agent(1));
    match admitting.join(&token, NodeRole::Agent).await {
        Err(AdmissionError::OtherCluster { .. }) => {}
        answer => panic!("expected another cluster, got {answer:?}"),
    }
    assert_eq!(admitting.ledger.asked(), 0);
}

#[tokio::test]
async fn a_request_that_cannot_be_granted_costs_no_token() {
    let admitting = Admitting::start().await;
    let token = admitting.token(NodeId::agent(1));
    let manager = admitting.manager.at();
    let mut raw = Raw::without(&admitting.cluster, manager)
        .await
        .expect("TLS");
    let nonsense = Frame::Join(Join {
        secret: Bytes::copy_from_slice(token.secret()),
        role: NodeRole::Agent,
        request: Bytes::from_static(b"not a request"),
    });
    raw.send(&nonsense).await.expect("sent");
    let said = raw.until_end().await;
    assert!(
        matches!(said.as_slice(), [Frame::Refused { .. }]),
        "{said:?}"
    );
    assert_eq!(admitting.ledger.asked(), 0);
    assert!(admitting.join(&token, NodeRole::Agent).await.is_ok());
}

/// Asks to be let in as an agent by a token that is in nobody's ledger.
async fn join_with_any_token(cluster: &Cluster, manager: &Node) -> Result<Joined, AdmissionError> {
    let machine = &cluster.machine;
    let token = Token::generate(digest_of(cluster.ca.certificate()), machine);
    let at = manager.at().1.to_string();
    join(machine, &token, NodeRole::Agent, &at, &Limits::usual()).await
}

#[tokio::test]
async fn a_node_that_admits_nobody_says_so() {
    let cluster = Cluster::new();
    let manager = cluster.start(cluster.config(MANAGER, &[])).await;
    let joined = join_with_any_token(&cluster, &manager).await;
    assert!(
        matches!(joined, Err(AdmissionError::Refused { .. })),
        "{joined:?}"
    );
}

#[tokio::test]
async fn managers_that_do_not_agree_in_time_let_nobody_in() {
    struct Silent;
    #[async_trait]
    impl Redeem for Silent {
        async fn redeem(&self, _digest: String) -> Result<NodeId, String> {
            std::future::pending().await
        }
    }
    let cluster = Cluster::new();
    let mut config = cluster.config(MANAGER, &[]);
    config.limits.admission_timeout = Duration::from_millis(100);
    let manager = cluster.start(config).await;
    manager.transport.admit(Admission {
        authority: cluster.ca.clone(),
        lifetime: LIFETIME,
        redeem: Arc::new(Silent),
    });
    let joined = join_with_any_token(&cluster, &manager).await;
    match joined {
        Err(AdmissionError::Refused { why, .. }) => assert!(why.contains("in time"), "{why}"),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_while_it_is_valid_and_not_after() {
    let mut admitting = Admitting::start().await;
    let machine = admitting.cluster.machine.clone();
    let (agent, at) = (NodeId::agent(1), admitting.manager.at().1.to_string());
    let first = admitting.cluster.identity(agent);
    assert!(first.renew_at() > machine.wall());
    machine.set_clock_ahead(LIFETIME - LIFETIME / 4);
    assert!(first.renew_at() < machine.wall());
    let limits = Limits::usual();
    let second = renew(&machine, &first, MANAGER, &at, &limits)
        .await
        .expect("renewed");
    assert_eq!(second.node(), agent);
    assert!(second.validity().not_after > first.validity().not_after);

    // The manager needs a new one as well.
    let own = admitting.cluster.identity(MANAGER);
    admitting.manager.transport.renew(&own).expect("it serves");
    machine.set_clock_ahead(LIFETIME + LIFETIME / 4);
    let late = renew(&machine, &first, MANAGER, &at, &limits).await;
    assert!(matches!(late, Err(AdmissionError::Ask { .. })), "{late:?}");
    let mut config = admitting.cluster.config(agent, &[admitting.manager.at()]);
    config.identity = Arc::new(second);
    let node = admitting.cluster.start(config).await;
    node.send(MANAGER, 9);
    assert_eq!(admitting.manager.number().await, 9);
    let counters = admitting.manager.transport.counters();
    eventually("the old one was refused", || {
        counters.handshakes_failed.get() > 0
    })
    .await;
}
