//! Content is what its digest says, or it is not taken.

use std::str::FromStr;

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::Digest as _;

use crate::error::{DistributionError, Result};

/// The `sha256:...` of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    parse(&format!("sha256:{}", hex(&sha2::Sha256::digest(bytes))))
}

/// Digests content piece by piece and compares it in the end.
pub struct Verifier {
    what: String,
    expected: Digest,
    hash: Hash,
}

enum Hash {
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Verifier {
    /// For content named `what` that must have the digest `expected`; refuses algorithms that we
    /// do not know rather than take content unseen.
    pub fn new(what: &str, expected: &Digest) -> Result<Self> {
        let hash = match expected.algorithm() {
            DigestAlgorithm::Sha256 => Hash::Sha256(sha2::Sha256::new()),
            DigestAlgorithm::Sha384 => Hash::Sha384(sha2::Sha384::new()),
            DigestAlgorithm::Sha512 => Hash::Sha512(sha2::Sha512::new()),
            other => {
                return Err(DistributionError::Malformed {
                    what: what.to_owned(),
                    problem: format!("its digest has the unknown algorithm `{other}`"),
                });
            }
        };
        Ok(Verifier {
            what: what.to_owned(),
            expected: expected.clone(),
            hash,
        })
    }

    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.hash {
            Hash::Sha256(hash) => hash.update(bytes),
            Hash::Sha384(hash) => hash.update(bytes),
            Hash::Sha512(hash) => hash.update(bytes),
        }
    }

    /// Compares; all pieces have been taken.
    pub fn finish(self) -> Result<()> {
        let found = match self.hash {
            Hash::Sha256(hash) => hex(&hash.finalize()),
            Hash::Sha384(hash) => hex(&hash.finalize()),
            Hash::Sha512(hash) => hex(&hash.finalize()),
        };
        if found == self.expected.digest() {
            return Ok(());
        }
        Err(DistributionError::Digest {
            what: format!("{} ({})", self.what, self.expected),
            found: format!("{}:{found}", self.expected.algorithm()),
        })
    }
}

fn parse(text: &str) -> Digest {
    Digest::from_str(text).expect("an algorithm and its hexadecimal digest")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use oci_spec::image::Digest;
    use wavetank_port::ErrorClass;

    use super::{Verifier, sha256};

    /// Of the empty content, from FIPS 180-4's published examples.
    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_is_that_of_the_standard() {
        assert_eq!(sha256(b"").to_string(), EMPTY);
    }

    #[test]
    fn pieces_are_as_good_as_the_whole() {
        let mut verifier = Verifier::new("it", &sha256(b"abcdef")).expect("sha256 is known");
        verifier.update(b"abc");
        verifier.update(b"def");
        verifier.finish().expect("the same content");
    }

    #[test]
    fn other_content_is_refused() {
        let mut verifier = Verifier::new("it", &sha256(b"abc")).expect("sha256 is known");
        verifier.update(b"abd");
        let error = verifier.finish().expect_err("other content");
        assert_eq!(error.class(), ErrorClass::Unavailable);
    }

    #[test]
    fn an_unknown_algorithm_is_refused() {
        let digest = Digest::from_str("md5:d41d8cd98f00b204e9800998ecf8427e").expect("a digest");
        assert!(Verifier::new("it", &digest).is_err());
    }
}
