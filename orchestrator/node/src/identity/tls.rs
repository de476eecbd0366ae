//! TLS configurations: version 1.3 only, both sides prove who they are, every handshake is a
//! whole one. The date comes from the platform's wall clock.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore,
    ServerConfig, SignatureScheme,
};
use wavetank_model::NodeRole;

use super::certificate::{Digest, digest_of, name_of, node_of};
use super::{Identity, IdentityError};
use crate::platform::Platform;

/// A platform's wall clock, for those who judge certificates.
pub struct WallClock<P>(pub P);

impl<P> fmt::Debug for WallClock<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

impl<P: Platform> TimeProvider for WallClock<P> {
    fn current_time(&self) -> Option<UnixTime> {
        let now = std::time::Duration::from_nanos(self.0.wall().0);
        Some(UnixTime::since_unix_epoch(now))
    }
}

/// Both sides of a node's connections.
#[derive(Clone)]
pub struct Tls {
    /// For connections that others make.
    pub server: Arc<ServerConfig>,
    /// For connections that it makes.
    pub client: Arc<ClientConfig>,
}

impl Tls {
    /// What a node with this identity accepts and shows. A peer without a certificate gets
    /// through the handshake, because a node that wants to join has none yet; who handles the
    /// connection must look.
    pub fn new(identity: &Identity, clock: Arc<dyn TimeProvider>) -> Result<Self, IdentityError> {
        let server = server(identity, clock.clone()).map_err(IdentityError::Tls)?;
        Ok(Tls {
            server: Arc::new(server),
            client: finished(client(identity, clock))?,
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(authority: CertificateDer<'static>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    Ok(Arc::new(roots))
}

fn chain(identity: &Identity) -> Vec<CertificateDer<'static>> {
    // The authority goes along: a joiner knows only its digest.
    vec![identity.certificate.clone(), identity.authority.clone()]
}

fn server(identity: &Identity, clock: Arc<dyn TimeProvider>) -> Result<ServerConfig, Error> {
    let roots = roots(identity.authority.clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(identity), identity.key.der())?;
    // A resumed session would outlive its certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client(identity: &Identity, clock: Arc<dyn TimeProvider>) -> Result<ClientConfig, Error> {
    ClientConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(identity.authority.clone())?)
        .with_client_auth_cert(chain(identity), identity.key.der())
}

/// For a node that has no identity yet, and knows its cluster's authority by digest alone.
pub fn joiner(
    authority: Digest,
    clock: Arc<dyn TimeProvider>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let config = to_any_manager(authority, clock).map(|any| any.with_no_client_auth());
    finished(config)
}

/// For an operator's tool: it shows who it is, and speaks to any manager of its cluster, whose
/// number it need not know.
pub fn operator(
    identity: &Identity,
    clock: Arc<dyn TimeProvider>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let config = to_any_manager(digest_of(&identity.authority), clock)
        .and_then(|any| any.with_client_auth_cert(chain(identity), identity.key.der()));
    finished(config)
}

fn to_any_manager(
    authority: Digest,
    clock: Arc<dyn TimeProvider>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let verifier = ByDigest {
        authority,
        provider: provider(),
    };
    let builder = ClientConfig::builder_with_details(provider(), clock);
    Ok(builder
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

/// Sessions are not resumed: one would outlive its certificate.
fn finished(config: Result<ClientConfig, Error>) -> Result<Arc<ClientConfig>, IdentityError> {
    let mut config = config.map_err(IdentityError::Tls)?;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Accepts any manager of the cluster whose authority has this digest.
#[derive(Debug)]
struct ByDigest {
    authority: Digest,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByDigest {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| digest_of(certificate) == self.authority)
            .ok_or(CertificateError::UnknownIssuer)?;
        // The joiner does not know which manager it asks, but nobody else may take its token.
        let node = node_of(end_entity).ok();
        let manager = node
            .filter(|node| node.role == NodeRole::Manager)
            .ok_or(CertificateError::NotValidForName)?;
        let name = ServerName::try_from(name_of(manager))
            .map_err(|_| CertificateError::NotValidForName)?;
        let roots = roots(authority.clone().into_owned())?;
        let usual = WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        usual.verify_server_cert(end_entity, &[], &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
