//! What a certificate says: the node that it names, when it is valid, and which key it is for.

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use wavetank_model::NodeId;
use wavetank_port::WallTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use super::{IdentityError, Validity};

/// What follows a node's id in its certificate's DNS name.
const DOMAIN: &str = ".node.wavetank";

/// SHA-256 of a certificate.
pub type Digest = [u8; 32];

/// The DNS name under which a certificate names a node.
pub fn name_of(node: NodeId) -> String {
    format!("{node}{DOMAIN}")
}

/// The digest by which a join token names the authority.
pub fn digest_of(certificate: &CertificateDer<'_>) -> Digest {
    Sha256::digest(certificate).into()
}

/// The node that a certificate names. Whether to believe it is for the caller to know.
pub fn node_of(certificate: &CertificateDer<'_>) -> Result<NodeId, IdentityError> {
    let certificate = parse(certificate)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| unreadable(&error))?
        .ok_or(IdentityError::Nameless)?;
    match names.value.general_names.as_slice() {
        [GeneralName::DNSName(name)] => name
            .strip_suffix(DOMAIN)
            .and_then(|id| id.parse().ok())
            .ok_or(IdentityError::Nameless),
        _ => Err(IdentityError::Nameless),
    }
}

pub(super) fn validity_of(certificate: &CertificateDer<'_>) -> Result<Validity, IdentityError> {
    let validity = parse(certificate)?.validity().clone();
    Ok(Validity {
        not_before: wall(validity.not_before),
        not_after: wall(validity.not_after),
    })
}

pub(super) fn public_key_of(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, IdentityError> {
    Ok(parse(certificate)?.public_key().raw.to_vec())
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| unreadable(&error))?;
    Ok(parsed)
}

fn unreadable(error: &impl ToString) -> IdentityError {
    IdentityError::Certificate {
        what: error.to_string(),
    }
}

fn wall(time: ASN1Time) -> WallTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    WallTime(seconds.saturating_mul(1_000_000_000))
}
