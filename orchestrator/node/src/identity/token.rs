//! Join tokens: an invitation that works once, for one role.
//!
//! A token reads `WTK-1-<digest of the authority>-<secret>`, both in base32. The digest lets the
//! joiner know its cluster before it says the secret; the managers keep only a digest of the
//! secret and the role, so that what they store and replicate invites nobody.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD_NOCASE, HEXLOWER};
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

    /// What the managers remember of it, if it is for nodes of this role.
    pub fn digest(&self, role: NodeRole) -> String {
        digest_of_secret(&self.secret, role)
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

/// What stands for a token where it must not be readable, in lower-case hex. It depends on the
/// role as well: said for another role, a token is one that nobody made, and stays unspent.
pub(crate) fn digest_of_secret(secret: &[u8], role: NodeRole) -> String {
    let mut digest = Sha256::new();
    digest.update(role.name());
    digest.update([0]);
    digest.update(secret);
    HEXLOWER.encode(&digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::Os;

    #[test]
    fn a_token_is_read_back_however_it_was_typed() {
        let token = Token::generate([7; 32], &Os::new());
        let text = token.reveal();
        assert_eq!(text.parse(), Ok(token.clone()));
        let (head, body) = text.split_at(HEAD.len());
        let typed = format!("  {head}{}\n", body.to_lowercase());
        assert_eq!(typed.parse(), Ok(token));
    }

    #[test]
    fn what_is_no_token_is_told_apart() {
        let text = Token::generate([7; 32], &Os::new()).reveal();
        let cut = &text[..text.len() - 1];
        assert_eq!(cut.parse::<Token>(), Err(TokenError::Damaged));
        assert_eq!("WTK-1-".parse::<Token>(), Err(TokenError::Damaged));
        assert_eq!("SWMTKN-1-x-y".parse::<Token>(), Err(TokenError::Head));
    }

    #[test]
    fn a_token_for_one_role_is_none_for_another() {
        let token = Token::generate([7; 32], &Os::new());
        let digests =
            [NodeRole::Manager, NodeRole::Agent, NodeRole::Client].map(|r| token.digest(r));
        assert!(digests[0] != digests[1] && digests[1] != digests[2] && digests[0] != digests[2]);
        assert!(digests.iter().all(|digest| digest.len() == 64));
    }
}
