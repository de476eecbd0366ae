//! How a node gets into the cluster, and how it stays: by a token it gets its first certificate,
//! by each certificate the next one.
//!
//! The joiner knows the cluster's authority by the digest in its token, and says the token's
//! secret to a manager of that authority only. Its private key never leaves it. Managers agree on
//! every redemption before one answers, so a token admits one node, whoever is asked and however
//! often. A joiner whose answer gets lost needs a new token: the old one is spent.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use wavetank_model::{Incarnation, NodeId, NodeRole};
use wavetank_port::WallTime;

use crate::identity::{
    Ca, Identity, IdentityError, PrivateKey, Request, Tls, Token, WallClock, digest_of,
    digest_of_secret, joiner, name_of,
};
use crate::platform::Platform;
use crate::transport::{AddressBook, Limits, ask};
use crate::wire::{Frame, Granted, Join};

/// Whoever can get the managers to agree that a token is used up.
#[async_trait]
pub trait Redeem: Send + Sync + 'static {
    /// Uses up the token with this digest. Answers, once that is agreed and durable, who its
    /// bearer is; or why not, for people.
    async fn redeem(&self, digest: String) -> Result<NodeId, String>;
}

/// A manager's side: what it takes to let somebody in.
pub struct Admission {
    /// The authority, with its key.
    pub authority: Ca,
    /// How long certificates last.
    pub lifetime: Duration,
    /// Asks the managers.
    pub redeem: Arc<dyn Redeem>,
}

impl Admission {
    /// Whether and as whom somebody gets in. A request that cannot be granted costs no token.
    pub(crate) async fn join(
        &self,
        join: &Join,
        now: WallTime,
        (by, addresses): (NodeId, AddressBook),
    ) -> Result<Frame, String> {
        let request = Request::read(&join.request).map_err(|error| error.to_string())?;
        let digest = digest_of_secret(&join.secret, join.role);
        let node = self.redeem.redeem(digest).await?;
        if node.role != join.role {
            return Err(format!(
                "the token is for another role than {}",
                join.role.name()
            ));
        }
        let certificate = self.certify(&request, node, now)?;
        let shares_authority = node.role == NodeRole::Manager;
        Ok(Frame::Granted(Granted {
            node,
            certificate,
            authority: Bytes::copy_from_slice(self.authority.certificate()),
            authority_key: shares_authority
                .then(|| Bytes::copy_from_slice(self.authority.key().pkcs8())),
            addresses,
            by: Some(by),
        }))
    }

    /// The next certificate of a node that has proved who it is.
    pub(crate) fn renew(
        &self,
        node: NodeId,
        request: &[u8],
        now: WallTime,
    ) -> Result<Frame, String> {
        let request = Request::read(request).map_err(|error| error.to_string())?;
        let certificate = self.certify(&request, node, now)?;
        Ok(Frame::Renewed { certificate })
    }

    fn certify(&self, request: &Request, node: NodeId, now: WallTime) -> Result<Bytes, String> {
        let signed = self.authority.sign(request, node, now, self.lifetime);
        let certificate = signed.map_err(|error| error.to_string())?;
        Ok(Bytes::copy_from_slice(&certificate))
    }
}

/// Why a node got no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The manager cannot be reached, or does not answer.
    #[error("cannot get an answer from {address}")]
    Ask {
        /// Where it should be.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The manager is none of the cluster that the token is for.
    #[error("{address} belongs to another cluster than the token")]
    OtherCluster {
        /// Where the manager is.
        address: String,
    },
    /// The manager said no.
    #[error("{address} refused: {why}")]
    Refused {
        /// Where the manager is.
        address: String,
        /// What it said.
        why: String,
    },
    /// The manager said something else.
    #[error("{address} gave an answer that makes no sense")]
    Answer {
        /// Where the manager is.
        address: String,
    },
    /// What it gave does not fit together.
    #[error("cannot use what {address} gave")]
    Identity {
        /// Where the manager is.
        address: String,
        /// Why.
        source: IdentityError,
    },
}

/// What a node has once it is in.
#[derive(Debug)]
pub struct Joined {
    /// Who it is.
    pub identity: Identity,
    /// The authority, if it is a manager.
    pub authority: Option<Ca>,
    /// Where the managers are.
    pub addresses: AddressBook,
}

/// Joins a cluster as a node of this role, through the manager at `address`.
pub async fn join<P: Platform>(
    platform: &P,
    token: &Token,
    role: NodeRole,
    address: &str,
    limits: &Limits,
) -> Result<Joined, AdmissionError> {
    let unusable = |source| unusable(address, source);
    let key = PrivateKey::generate(platform);
    let clock = Arc::new(WallClock(platform.clone()));
    let question = Frame::Join(Join {
        secret: Bytes::copy_from_slice(token.secret()),
        role,
        request: key.request().map_err(unusable)?.into(),
    });
    let tls = joiner(token.authority(), clock).map_err(unusable)?;
    let manager = Manager {
        address,
        // Which manager it is turns out; that it is one of the cluster is what is checked.
        node: NodeId::manager(1),
        tls,
    };
    match manager.ask(platform, &question, limits).await? {
        Frame::Granted(granted) if granted.node.role == role => {
            accept(token, key, granted, address).map_err(unusable)
        }
        _ => Err(manager.nonsense()),
    }
}

fn accept(
    token: &Token,
    key: PrivateKey,
    mut granted: Granted,
    address: &str,
) -> Result<Joined, IdentityError> {
    // A manager that listens everywhere cannot say where it is reached.
    if let Some(by) = granted.by
        && granted.addresses.get(by).is_none()
    {
        let at = address.to_owned();
        granted.addresses.learn(by, at, Incarnation(0));
    }
    let authority = CertificateDer::from(granted.authority.to_vec());
    if digest_of(&authority) != token.authority() {
        return Err(IdentityError::Certificate {
            what: "the authority is another one than the token's".to_owned(),
        });
    }
    let certificate = CertificateDer::from(granted.certificate.to_vec());
    let held = granted
        .authority_key
        .map(|key| Ca::new(authority.clone(), PrivateKey::from_pkcs8(key.to_vec())?));
    Ok(Joined {
        identity: Identity::new(key, certificate, authority)?,
        authority: held.transpose()?,
        addresses: granted.addresses,
    })
}

/// Gets a node's next identity, around a new key, from the manager `from` at `address`.
pub async fn renew<P: Platform>(
    platform: &P,
    identity: &Identity,
    from: NodeId,
    address: &str,
    limits: &Limits,
) -> Result<Identity, AdmissionError> {
    let unusable = |source| unusable(address, source);
    let key = PrivateKey::generate(platform);
    let request = key.request().map_err(unusable)?.into();
    let clock = Arc::new(WallClock(platform.clone()));
    let manager = Manager {
        address,
        node: from,
        tls: Tls::new(identity, clock).map_err(unusable)?.client,
    };
    let question = Frame::Renew { request };
    let Frame::Renewed { certificate } = manager.ask(platform, &question, limits).await? else {
        return Err(manager.nonsense());
    };
    let certificate = CertificateDer::from(certificate.to_vec());
    let next = Identity::new(key, certificate, identity.authority().clone()).map_err(unusable)?;
    if next.node() == identity.node() {
        Ok(next)
    } else {
        Err(manager.nonsense())
    }
}

fn unusable(address: &str, source: IdentityError) -> AdmissionError {
    AdmissionError::Identity {
        address: address.to_owned(),
        source,
    }
}

/// Whom to ask.
struct Manager<'a> {
    address: &'a str,
    node: NodeId,
    tls: Arc<ClientConfig>,
}

impl Manager<'_> {
    async fn ask<P: Platform>(
        &self,
        platform: &P,
        question: &Frame,
        limits: &Limits,
    ) -> Result<Frame, AdmissionError> {
        let address = self.address.to_owned();
        let name = ServerName::try_from(name_of(self.node));
        let name = name.expect("a node's name is a DNS name");
        // Connections for a certificate are rare, and no node's to count.
        let uncounted = Arc::default();
        let answer = ask(
            platform,
            self.tls.clone(),
            name,
            self.address,
            question,
            limits,
            &uncounted,
        );
        let timeout = limits.handshake_timeout + limits.admission_timeout;
        match within(platform, timeout, answer).await {
            Ok(Frame::Refused { why }) => Err(AdmissionError::Refused { address, why }),
            Ok(frame) => Ok(frame),
            Err(source) if is_stranger(&source) => Err(AdmissionError::OtherCluster { address }),
            Err(source) => Err(AdmissionError::Ask { address, source }),
        }
    }

    fn nonsense(&self) -> AdmissionError {
        AdmissionError::Answer {
            address: self.address.to_owned(),
        }
    }
}

async fn within<P: Platform, S: Send>(
    platform: &P,
    timeout: Duration,
    answer: impl Future<Output = io::Result<(Frame, S)>> + Send,
) -> io::Result<Frame> {
    let answer = platform.within(timeout, answer).await;
    let (frame, _) = answer.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
    Ok(frame)
}

/// True if a certificate was shown that no authority of ours signed.
fn is_stranger(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(
        inner,
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature
        ))
    )
}
