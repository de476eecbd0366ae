//! What is kept fresh while a node runs: its certificate and the addresses of managers.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::sync::watch;
use wavetank_model::NodeId;
use wavetank_port::WallTime;

use super::StateFolder;
use super::chain;
use crate::admission;
use crate::identity::{Ca, Identity, PrivateKey, Tls, WallClock};
use crate::os::Os;
use crate::platform::Platform as _;
use crate::transport::{Limits, Transport};

/// How often at least it is looked whether the certificate has to be renewed; also after a failure.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often at most.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Where a node's next certificate comes from.
pub(super) enum Source {
    /// It holds the authority itself.
    Authority {
        authority: Box<Ca>,
        lifetime: Duration,
    },
    /// Managers have it.
    Managers,
}

/// Keeps a certificate fresh.
pub(super) struct Renewal {
    pub folder: StateFolder,
    pub source: Source,
    pub identity: Arc<Identity>,
    pub transport: Transport,
    /// Who else shows the certificate.
    pub tls: Option<watch::Sender<Arc<ServerConfig>>>,
}

impl Renewal {
    /// Renews for as long as the node runs.
    pub async fn run(mut self) {
        let os = Os::new();
        loop {
            os.sleep(pause(&self.identity, os.wall())).await;
            if os.wall() < self.identity.renew_at() {
                continue;
            }
            let renewed = self.renew(&os).await;
            let until = expiry(&self.identity);
            match renewed {
                Ok(()) => tracing::info!(?until, "renewed the certificate"),
                Err(error) => {
                    let error = chain(error.as_ref());
                    tracing::warn!(%error, ?until, "cannot renew the certificate");
                }
            }
        }
    }

    async fn renew(&mut self, os: &Os) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let next = match &self.source {
            Source::Authority {
                authority,
                lifetime,
            } => {
                let key = PrivateKey::generate(os);
                authority.mint(self.identity.node(), key, os.wall(), *lifetime)?
            }
            Source::Managers => self.ask(os).await?,
        };
        // On disk first: what is shown must be there after a crash.
        self.folder.identity_files().keep_identity(&next)?;
        self.transport.renew(&next)?;
        if let Some(tls) = &self.tls {
            tls.send_replace(server_tls(&next)?);
        }
        self.identity = Arc::new(next);
        Ok(())
    }

    async fn ask(&self, os: &Os) -> Result<Identity, admission::AdmissionError> {
        let managers: Vec<(NodeId, String)> = {
            let book = self.transport.addresses().look();
            book.iter()
                .map(|(node, at)| (node, at.to_owned()))
                .collect()
        };
        let mut last = None;
        for (node, at) in managers {
            match admission::renew(os, &self.identity, node, &at, &Limits::usual()).await {
                Ok(next) => return Ok(next),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| admission::AdmissionError::Ask {
            address: "any manager".to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        }))
    }
}

/// Until the next look: several are taken before a certificate ends, however soon that is.
fn pause(identity: &Identity, now: WallTime) -> Duration {
    let left = Duration::from_nanos(expiry(identity).0.saturating_sub(now.0));
    match left.is_zero() {
        true => LOOK_EVERY,
        false => (left / 6).clamp(LOOK_PAUSE, LOOK_EVERY),
    }
}

fn expiry(identity: &Identity) -> WallTime {
    identity.validity().not_after
}

/// What a server shows with this identity.
pub(super) fn server_tls(
    identity: &Identity,
) -> Result<Arc<ServerConfig>, crate::identity::IdentityError> {
    let clock = Arc::new(WallClock(Os::new()));
    Ok(Tls::new(identity, clock)?.server)
}

/// Keeps what managers say of where they are.
pub(super) async fn keep_addresses(folder: StateFolder, transport: Transport) {
    let mut book = transport.addresses();
    loop {
        let now = book.look();
        if let Err(error) = folder.keep_managers(&now) {
            tracing::warn!(error = %chain(&error), "cannot keep the managers' addresses");
        }
        book.changed().await;
    }
}
