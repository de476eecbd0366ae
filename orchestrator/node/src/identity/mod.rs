//! Who a node is: a key that never leaves it, and a certificate of the cluster's authority that
//! names it.
//!
//! Every certificate carries its node's id as the DNS name `<id>.node.wavetank`, so that the
//! usual checks of TLS (chain, dates, name) are the checks of identity, and nothing else is.
//!
//! Map: `authority` (signs), `certificate` (reads), `key`, `token` (single-use invitations),
//! `tls` (configurations), `files` (where a real node keeps it).
//!
//! # Determinism
//! Keys are Ed25519 from 32 bytes of entropy, and so are signatures of one length: whoever hands
//! in the entropy decides everything, and what travels is equally long in every run.

mod authority;
mod certificate;
mod files;
mod key;
mod tls;
mod token;

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use wavetank_model::NodeId;
use wavetank_port::WallTime;

pub use authority::{Ca, LIFETIME, Request};
pub use certificate::{Digest, digest_of, name_of, node_of};
pub use files::{FileError, Folder};
pub use key::PrivateKey;
pub use tls::{Tls, WallClock, joiner, operator};
pub(crate) use token::digest_of_secret;
pub use token::{Token, TokenError};

/// Why an identity cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The bytes are no certificate that can be read.
    #[error("not a certificate: {what}")]
    Certificate {
        /// What is wrong with them.
        what: String,
    },
    /// The certificate names no node, or more than one.
    #[error("the certificate names no node of a cluster")]
    Nameless,
    /// The key is another one than the certificate's.
    #[error("the certificate of {node} is for another key")]
    OtherKey {
        /// Whom it names.
        node: NodeId,
    },
    /// The key cannot be read or used.
    #[error("cannot use the private key")]
    Key(#[source] rcgen::Error),
    /// Signing failed.
    #[error("cannot make a certificate")]
    Sign(#[source] rcgen::Error),
    /// The request for a certificate is malformed or not signed by its own key.
    #[error("cannot accept the certificate request")]
    Request(#[source] rcgen::Error),
    /// TLS refuses the identity.
    #[error("TLS cannot use the identity")]
    Tls(#[source] rustls::Error),
}

/// When a certificate is valid, by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then on.
    pub not_before: WallTime,
    /// Until then.
    pub not_after: WallTime,
}

/// One node's key and certificate, and the authority that it trusts.
#[derive(Clone, Debug)]
pub struct Identity {
    node: NodeId,
    validity: Validity,
    key: PrivateKey,
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
}

impl Identity {
    /// Puts the parts together if they belong together. Whether the authority signed the
    /// certificate is for the other side to check.
    pub fn new(
        key: PrivateKey,
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Result<Self, IdentityError> {
        let node = certificate::node_of(&certificate)?;
        if certificate::public_key_of(&certificate)? != key.public()? {
            return Err(IdentityError::OtherKey { node });
        }
        Ok(Identity {
            node,
            validity: certificate::validity_of(&certificate)?,
            key,
            certificate,
            authority,
        })
    }

    /// Whom the certificate names.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// When the certificate is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The authority's certificate.
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// When to ask for the next certificate: with a third of the lifetime left.
    pub fn renew_at(&self) -> WallTime {
        let Validity {
            not_before,
            not_after,
        } = self.validity;
        let lifetime = Duration::from_nanos(not_after.0.saturating_sub(not_before.0));
        let third = u64::try_from((lifetime / 3).as_nanos()).unwrap_or(u64::MAX);
        WallTime(not_after.0.saturating_sub(third))
    }
}
