//! Private keys: Ed25519, made from entropy that the caller brings.

use std::fmt;

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PublicKeyData as _};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::IdentityError;
use crate::platform::Platform;

/// What stands before the 32 secret bytes in PKCS #8 (RFC 8410, section 7).
const PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A private key. It prints as nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey {
    pkcs8: Vec<u8>,
}

impl PrivateKey {
    /// The key that these bytes stand for; they must come from a source that nobody can guess.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        PrivateKey {
            pkcs8: [PKCS8_HEAD.as_slice(), &seed].concat(),
        }
    }

    /// A new key from the machine's entropy.
    pub fn generate(platform: &impl Platform) -> Self {
        let mut seed = [0; 32];
        platform.entropy(&mut seed);
        PrivateKey::from_seed(seed)
    }

    /// Reads a key back from PKCS #8.
    pub fn from_pkcs8(pkcs8: Vec<u8>) -> Result<Self, IdentityError> {
        let key = PrivateKey { pkcs8 };
        key.signer()?;
        Ok(key)
    }

    /// The key in PKCS #8. Handle with care.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// A request (PKCS #10, DER) for a certificate for this key; the authority decides whom it
    /// names.
    pub fn request(&self) -> Result<Vec<u8>, IdentityError> {
        let request = CertificateParams::default()
            .serialize_request(&self.signer()?)
            .map_err(IdentityError::Sign)?;
        Ok(request.der().to_vec())
    }

    /// For signing certificates and requests.
    pub(super) fn signer(&self) -> Result<KeyPair, IdentityError> {
        let der = PrivatePkcs8KeyDer::from(self.pkcs8.as_slice());
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).map_err(IdentityError::Key)
    }

    /// For TLS.
    pub(super) fn der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pkcs8.clone()).into()
    }

    /// The public half, as certificates carry it.
    pub(super) fn public(&self) -> Result<Vec<u8>, IdentityError> {
        Ok(self.signer()?.subject_public_key_info())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}
