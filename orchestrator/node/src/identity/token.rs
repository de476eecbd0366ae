//! Join tokens: an invitation that works once, for one role.
//!
//! A token reads `WTK-1-<digest of the authority>-<secret>`, both in base32. The digest lets the
//! joiner know its cluster before it says the secret; the managers keep only a digest of the
//! secret and the role, so that what they store and replicate invites nobody.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD_NOCASE;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wavetank_model::NodeRole;

use super::certificate::Digest;
use crate::platform::Platform;

const HEAD: &str = "WTK-1-";

/// Why a text is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something else, or a token of another version.
    #[error("not a join token: it should begin with `{HEAD}`")]
    Head,
    /// Cut off or mistyped.
    #[error("the join token is damaged: copy all of it, it reads `{HEAD}<digest>-<secret>`")]
    Damaged,
}

/// An invitation. Whoever reads it may use it, so it prints as nothing by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    authority: Digest,
    secret: [u8; 16],
}

impl Token {
    /// A new invitation to the cluster of this authority.
    pub fn generate(authority: Digest, platform: &impl Platform) -> Self {
        let mut secret = [0; 16];
        platform.entropy(&mut secret);
        Token { authority, secret }
    }

    /// The digest of the authority's certificate.
    pub fn authority(&self) -> Digest {
        self.authority
    }

    /// What the joiner has to say.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// What the managers remember.
    pub fn digest(&self, role: NodeRole) -> TokenDigest {
        TokenDigest::of(&self.secret, role)
    }

    /// The text that is handed over.
    pub fn reveal(&self) -> String {
        let authority = BASE32_NOPAD_NOCASE.encode(&self.authority);
        let secret = BASE32_NOPAD_NOCASE.encode(&self.secret);
        format!("{HEAD}{authority}-{secret}")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl FromStr for Token {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let body = text.trim().strip_prefix(HEAD).ok_or(TokenError::Head)?;
        let (authority, secret) = body.split_once('-').ok_or(TokenError::Damaged)?;
        Ok(Token {
            authority: decode(authority)?,
            secret: decode(secret)?,
        })
    }
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], TokenError> {
    BASE32_NOPAD_NOCASE
        .decode(text.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(TokenError::Damaged)
}

/// What stands for a token where it must not be readable. It depends on the role as well: said
/// for another role, a token is one that nobody made, and stays unspent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenDigest(pub [u8; 32]);

impl TokenDigest {
    /// The digest of a secret that somebody says for a role.
    pub fn of(secret: &[u8], role: NodeRole) -> Self {
        let mut digest = Sha256::new();
        digest.update(role.name());
        digest.update([0]);
        digest.update(secret);
        TokenDigest(digest.finalize().into())
    }
}
