//! The cluster's certificate authority. Every manager holds its key, and only managers do.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use time::OffsetDateTime;
use wavetank_model::{NodeId, NodeRole};
use wavetank_port::WallTime;

use super::{Identity, IdentityError, PrivateKey, certificate};

/// How long a node's certificate lasts, unless somebody says otherwise.
pub const LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long the authority lasts.
const LIFETIME_OF_AUTHORITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// Certificates are valid from a while ago, for machines whose clocks are late.
const LATE_CLOCKS: Duration = Duration::from_secs(3600);

/// The authority: its certificate and the key that signs.
#[derive(Clone, Debug)]
pub struct Ca {
    certificate: CertificateDer<'static>,
    key: PrivateKey,
}

impl Ca {
    /// A new authority around a new key.
    pub fn create(key: PrivateKey, now: WallTime) -> Result<Self, IdentityError> {
        let mut params = params("wavetank cluster authority", now, LIFETIME_OF_AUTHORITY);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params
            .self_signed(&key.signer()?)
            .map_err(IdentityError::Sign)?;
        Ok(Ca {
            certificate: certificate.der().clone(),
            key,
        })
    }

    /// The authority of these two parts, if they belong together.
    pub fn new(
        certificate: CertificateDer<'static>,
        key: PrivateKey,
    ) -> Result<Self, IdentityError> {
        if certificate::public_key_of(&certificate)? != key.public()? {
            return Err(IdentityError::Certificate {
                what: "the authority's certificate is for another key".to_owned(),
            });
        }
        Ok(Ca { certificate, key })
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The key that signs; what a new manager is given.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// A whole identity around a key that is known here: for the first manager, who has nobody
    /// to ask.
    pub fn mint(
        &self,
        node: NodeId,
        key: PrivateKey,
        now: WallTime,
        lifetime: Duration,
    ) -> Result<Identity, IdentityError> {
        let certificate = self.certify(node, &key.signer()?, now, lifetime)?;
        Identity::new(key, certificate, self.certificate.clone())
    }

    /// A certificate for the key that signed the request. Nothing else of the request counts:
    /// whom the certificate names, and for what, is decided here.
    pub fn sign(
        &self,
        request: &Request,
        node: NodeId,
        now: WallTime,
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, IdentityError> {
        self.certify(node, &request.0.public_key, now, lifetime)
    }

    fn certify(
        &self,
        node: NodeId,
        key: &impl PublicKeyData,
        now: WallTime,
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, IdentityError> {
        let name = certificate::name_of(node);
        let mut params = params(&name, now, lifetime);
        let name = name.try_into().map_err(IdentityError::Sign)?;
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages(node.role);
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer()?);
        Ok(certificate.map_err(IdentityError::Sign)?.der().clone())
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, IdentityError> {
        Issuer::from_ca_cert_der(&self.certificate, self.key.signer()?).map_err(IdentityError::Sign)
    }
}

/// A request for a certificate, signed by the key that the certificate will be for.
pub struct Request(CertificateSigningRequestParams);

impl Request {
    /// Reads a request (PKCS #10, DER) and checks its signature.
    pub fn read(der: &[u8]) -> Result<Self, IdentityError> {
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map(Request)
            .map_err(IdentityError::Request)
    }
}

/// Only managers are dialled, so only they may stand at the server's side of a connection.
fn usages(role: NodeRole) -> Vec<ExtendedKeyUsagePurpose> {
    match role {
        NodeRole::Manager => vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ],
        NodeRole::Agent | NodeRole::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
    }
}

fn params(name: &str, now: WallTime, lifetime: Duration) -> CertificateParams {
    let now = Duration::from_nanos(now.0);
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.not_before = date(now.saturating_sub(LATE_CLOCKS));
    params.not_after = date(now.saturating_add(lifetime));
    params
}

fn date(since_epoch: Duration) -> OffsetDateTime {
    i64::try_from(since_epoch.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or(rcgen::date_time_ymd(9999, 12, 31))
}
