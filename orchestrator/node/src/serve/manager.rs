//! Runs a manager: the process itself, a client beside it through which its API asks all managers,
//! and what keeps both going.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::ServerConfig;
use tokio::sync::watch;
use wavetank_core::Boot;
use wavetank_model::{ConsensusRole, Incarnation, NodeId, NodeRole, Operation, Outcome};
use wavetank_port::WallTime;

use super::founding::reachable;
use super::upkeep::{Renewal, Source, keep_addresses, server_tls};
use super::{ServeError, StateFolder, observer};
use crate::admission::{Admission, Redeem};
use crate::api::logs::{Answered, AskAgents, Logs};
use crate::api::metrics::Metrics;
use crate::api::status::{Readiness, Status};
use crate::api::{Api, ApiLimits, ApiServer, Mint};
use crate::config::ManagerSettings;
use crate::driver::Submitter;
use crate::identity::{Ca, Digest, Identity, PrivateKey, Token, digest_of};
use crate::logs::{self, LogQuestion, Part};
use crate::node::{Seat, run_client, run_manager};
use crate::observer::Log;
use crate::os::Os;
use crate::platform::Platform as _;
use crate::transport::{AddressBook, Limits, StreamError, StreamReader, TransportConfig};

/// Questions that wait for the client to take them.
const QUESTIONS_MAX: usize = 256;
/// Longest that the managers are waited for, on behalf of a caller.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Larger than any service that a person writes.
const BODY_BYTES_MAX: usize = 256 << 10;
const REQUESTS_MAX: usize = 128;
/// Logs that are read at once; each may keep 128 KiB waiting.
const LOGS_MAX: usize = 64;
const WATCH_EVERY: Duration = Duration::from_millis(500);
const API_LIMITS: ApiLimits = ApiLimits {
    connections_max: 1024,
    handshake_timeout: Duration::from_secs(5),
    // Long enough for a person who reads a log page by page.
    stall_timeout: Duration::from_secs(600),
    drain_timeout: Duration::from_secs(5),
};

/// Runs the manager that lives in the folder until `stop` comes back.
pub async fn manager(
    settings: ManagerSettings,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let home = Home::open(settings)?;
    let (journal, incarnation) = home.folder.journal()?;
    let boot = home.boot(&journal)?;
    let (submitter, submissions) = Submitter::channel(QUESTIONS_MAX);
    let (tls, shown) = watch::channel(server_tls(&home.identity).map_err(ServeError::Mint)?);
    let metrics = Arc::new(Metrics::new(home.identity.node()));
    let agents = Arc::new(Agents(metrics.clone()));
    let api = home.api(&submitter, agents, shown).await?;
    let in_touch = Arc::new(InTouch {
        metrics: metrics.clone(),
        managers: submitter.clone(),
    });
    let status = Status::bind(metrics.clone(), in_touch, home.settings.common.status).await?;
    let (stopping, stopped) = watch::channel(false);
    let node = run_manager(
        home.seat(incarnation, metrics.clone())?,
        journal,
        boot,
        until(stopped.clone()),
    );
    let client = run_client(
        home.client_seat(incarnation)?,
        submissions,
        until(stopped.clone()),
    );
    let serving = async {
        // Callers first: they are answered while the node still can.
        api.serve(stop).await;
        stopping.send_replace(true);
        std::future::pending::<()>().await;
    };
    let beside = async {
        tokio::join!(
            home.upkeep(&metrics, &submitter, tls),
            status.serve(),
            serving
        );
    };
    let ended = tokio::select! {
        biased;
        ended = node => ended,
        ended = client => ended,
        () = beside => Ok(()),
    };
    ended.map_err(ServeError::Node)
}

/// Comes back once `stopped` says so.
async fn until(mut stopped: watch::Receiver<bool>) {
    // Without a sender everything has ended.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// A manager's folder and what is in it.
struct Home {
    settings: ManagerSettings,
    folder: StateFolder,
    identity: Arc<Identity>,
    authority: Ca,
    book: AddressBook,
}

impl Home {
    fn open(settings: ManagerSettings) -> Result<Self, ServeError> {
        let folder = StateFolder::create(&settings.common.dir)?;
        let identity = folder.identity_of(NodeRole::Manager)?;
        let authority = folder.identity_files().authority()?;
        let authority = authority.ok_or_else(|| ServeError::Empty {
            path: folder.path().join("authority.pem"),
        })?;
        Ok(Home {
            book: folder.managers()?,
            identity: Arc::new(identity),
            settings,
            folder,
            authority,
        })
    }

    /// What to do without a log. A manager that once had one never begins a cluster again.
    fn boot(&self, journal: &crate::Journal) -> Result<Boot, ServeError> {
        let own = self.identity.node();
        let records = journal.read().map_err(|source| ServeError::Journal {
            path: self.folder.path().to_owned(),
            source,
        })?;
        let is_new = records.is_empty();
        if !is_new {
            self.folder.forbid_founding()?;
        }
        if is_new && self.folder.is_founder() {
            let members = BTreeMap::from([(1, own)]);
            return Ok(Boot::Bootstrap { members });
        }
        let others = self.book.iter().map(|(node, _)| node);
        Ok(Boot::Join {
            contacts: others.filter(|node| *node != own).collect(),
        })
    }

    fn seat(
        &self,
        incarnation: Incarnation,
        metrics: Arc<Metrics>,
    ) -> Result<Seat<Os>, ServeError> {
        let common = &self.settings.common;
        Ok(Seat {
            platform: Os::new(),
            timers: self.settings.common.timers.clone(),
            network: TransportConfig {
                identity: self.identity.clone(),
                incarnation,
                listen: Some(self.settings.listen.clone()),
                advertise: self.settings.advertise.clone(),
                addresses: self.book.clone(),
                limits: Limits::usual(),
                jitter: Os::new().rng(),
            },
            observer: observer(metrics, common, self.identity.node(), incarnation)?,
        })
    }

    /// The client beside the manager has its number, and connects to it like any other.
    fn client_seat(&self, incarnation: Incarnation) -> Result<Seat<Os>, ServeError> {
        let (own, os) = (self.identity.node(), Os::new());
        let key = PrivateKey::generate(&os);
        // As long as the process may live; it is kept nowhere.
        let lifetime = Duration::from_secs(10 * 365 * 24 * 3600);
        let node = NodeId::client(own.number);
        let identity = self.authority.mint(node, key, os.wall(), lifetime);
        let at = reachable(&self.settings.listen);
        let others = self.book.iter().filter(|(node, _)| *node != own);
        let others = others.map(|(node, at)| (node, at.to_owned()));
        Ok(Seat {
            platform: os,
            timers: self.settings.common.timers.clone(),
            network: TransportConfig {
                identity: Arc::new(identity.map_err(ServeError::Mint)?),
                incarnation,
                listen: None,
                advertise: None,
                addresses: others.chain([(own, at)]).collect(),
                limits: Limits::usual(),
                jitter: Os::new().rng(),
            },
            observer: Arc::new(Log),
        })
    }

    async fn api(
        &self,
        submitter: &Submitter,
        agents: Arc<Agents>,
        tls: watch::Receiver<Arc<ServerConfig>>,
    ) -> Result<ApiServer, ServeError> {
        let api = Api {
            managers: Arc::new(submitter.clone()),
            mint: Arc::new(OsMint(digest_of(self.authority.certificate()))),
            logs: Logs::new(agents, LOGS_MAX),
            timeout: ANSWER_TIMEOUT,
            body_bytes_max: BODY_BYTES_MAX,
            requests_max: REQUESTS_MAX,
            watch_every: WATCH_EVERY,
        };
        let address = &self.settings.api;
        let bound = ApiServer::bind(address, tls, api.router(), API_LIMITS).await;
        bound.map_err(|source| ServeError::Listen {
            address: address.clone(),
            source,
        })
    }

    /// Lets nodes in, and keeps certificate and addresses fresh.
    async fn upkeep(
        &self,
        metrics: &Metrics,
        submitter: &Submitter,
        tls: watch::Sender<Arc<ServerConfig>>,
    ) {
        let transport = metrics.transport().await;
        let lifetime = self.settings.certificate_lifetime;
        transport.admit(Admission {
            authority: self.authority.clone(),
            lifetime,
            redeem: Arc::new(Redeemer(submitter.clone())),
        });
        let renewal = Renewal {
            folder: self.folder.clone(),
            source: Source::Authority {
                authority: Box::new(self.authority.clone()),
                lifetime,
            },
            identity: self.identity.clone(),
            transport: transport.clone(),
            tls: Some(tls),
        };
        tokio::join!(
            renewal.run(),
            keep_addresses(self.folder.clone(), transport)
        );
    }
}

/// A manager can do its work while it has a vote, and a leader answers it, who needs most of the
/// managers for that.
struct InTouch {
    metrics: Arc<Metrics>,
    managers: Submitter,
}

#[async_trait]
impl Readiness for InTouch {
    async fn ready(&self) -> Result<(), String> {
        match self.metrics.role() {
            Some(ConsensusRole::Candidate) => return Err("no manager leads".to_owned()),
            Some(ConsensusRole::Learner) => {
                let why = "it has no vote: it is joining the group, or was removed from it";
                return Err(why.to_owned());
            }
            _ => {}
        }
        // Any question that is answered by agreement will do.
        let key = "readiness".to_owned();
        match self.managers.submit(Operation::Get { key }).await {
            Ok(_) => Ok(()),
            Err(gone) => Err(gone.to_string()),
        }
    }
}

/// Agents, over the connections that they keep to this manager.
struct Agents(Arc<Metrics>);

impl AskAgents for Agents {
    fn ask(&self, agent: NodeId, question: &LogQuestion) -> Result<Box<dyn Answered>, StreamError> {
        let transport = self.0.connections().ok_or(StreamError::NotConnected)?;
        let reader = transport.ask(agent, logs::encode(question))?;
        Ok(Box::new(Parts(reader)))
    }
}

struct Parts(StreamReader);

#[async_trait]
impl Answered for Parts {
    async fn next(&mut self) -> Result<Option<Part>, StreamError> {
        let Some(piece) = self.0.next().await? else {
            return Ok(None);
        };
        let part = logs::decode(&piece);
        part.map(Some)
            .map_err(|why| StreamError::Refused(format!("its answer cannot be read: {why}")))
    }
}

/// Tokens of this cluster, from the machine's entropy and clock.
struct OsMint(Digest);

impl Mint for OsMint {
    fn token(&self) -> Token {
        Token::generate(self.0, &Os::new())
    }

    fn now(&self) -> WallTime {
        Os::new().wall()
    }
}

/// Has the managers agree that a token is used up.
struct Redeemer(Submitter);

#[async_trait]
impl Redeem for Redeemer {
    async fn redeem(&self, digest: String) -> Result<NodeId, String> {
        let now = Os::new().wall();
        let asked = self.0.submit(Operation::RedeemToken { digest, now });
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
        let answer = answer.map_err(|_| "the managers did not answer in time".to_owned())?;
        match answer.map_err(|gone| gone.to_string())? {
            Ok(Outcome::Admitted { node }) => Ok(node),
            Ok(_) => Err("the managers gave an answer that makes no sense".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}
