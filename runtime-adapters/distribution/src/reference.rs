//! Names of images, in full: `docker.io/library/busybox:latest` for `busybox`.

use std::fmt;
use std::str::FromStr;

use oci_spec::distribution::ParseError;
use oci_spec::image::Digest;
use wavetank_port::ImageReference;

use crate::error::{DistributionError, Result};

/// The full name of an image, parsed. Two names of one image are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    selector: Selector,
}

/// Which of a repository's images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The one that this tag names now.
    Tag(String),
    /// The one with this content.
    Digest(Digest),
}

impl Reference {
    /// Parses a name as people write it. Without registry it is on `docker.io`, there without
    /// folder in `library/`; without tag and digest its tag is `latest`. Of a tag and a digest,
    /// the digest decides.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |source| DistributionError::Reference {
            text: text.to_owned(),
            source,
        };
        let parsed: oci_spec::distribution::Reference = text.parse().map_err(invalid)?;
        let selector = match (parsed.digest(), parsed.tag()) {
            (Some(digest), _) => Selector::Digest(
                Digest::from_str(digest).map_err(|_| invalid(ParseError::DigestInvalidFormat))?,
            ),
            (None, Some(tag)) => Selector::Tag(tag.to_owned()),
            (None, None) => return Err(invalid(ParseError::ReferenceInvalidFormat)),
        };
        Ok(Reference {
            registry: parsed.registry().to_owned(),
            repository: parsed.repository().to_owned(),
            selector,
        })
    }

    /// The registry's `host[:port]`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path within the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag or digest.
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// The full name, for the port.
    pub fn to_image_reference(&self) -> ImageReference {
        ImageReference(self.to_string())
    }
}

impl TryFrom<&ImageReference> for Reference {
    type Error = DistributionError;

    fn try_from(reference: &ImageReference) -> Result<Self> {
        Reference::parse(&reference.0)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.selector {
            Selector::Tag(_) => ':',
            Selector::Digest(_) => '@',
        };
        let (registry, repository) = (&self.registry, &self.repository);
        write!(f, "{registry}/{repository}{mark}{}", self.selector)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Tag(tag) => f.write_str(tag),
            Selector::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wavetank_port::ErrorClass;

    use super::Reference;

    #[test]
    fn short_names_become_full() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let table = [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("a/b:1", "docker.io/a/b:1".to_owned()),
            (
                "index.docker.io/busybox",
                "docker.io/library/busybox:latest".to_owned(),
            ),
            ("localhost/a", "localhost/a:latest".to_owned()),
            ("localhost:5000/a:1", "localhost:5000/a:1".to_owned()),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest".to_owned()),
            (
                &format!("r.example.org/a@{digest}"),
                format!("r.example.org/a@{digest}"),
            ),
            (
                &format!("r.example.org/a:1@{digest}"),
                format!("r.example.org/a@{digest}"),
            ),
        ];
        for (short, full) in table {
            assert_eq!(Reference::parse(short).expect(short).to_string(), full);
        }
    }

    #[test]
    fn a_bad_name_is_an_invalid_argument() {
        let upper_hex = format!("a@sha256:{}", "AB".repeat(32));
        for bad in [
            "",
            ":1",
            "a b",
            "UPPER",
            "a@sha256:12",
            "a//b",
            "../../x",
            &upper_hex,
        ] {
            let error = Reference::parse(bad).expect_err(bad);
            assert_eq!(error.class(), ErrorClass::InvalidArgument, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,300}") {
            let _ = Reference::parse(&text);
        }

        #[test]
        fn a_full_name_stays_as_it_is(
            text in "([a-z]{1,5}(\\.[a-z]{1,5}){0,2}(:[1-9][0-9]{0,3})?/)?[a-z0-9]{1,9}(/[a-z]{1,5})?(:[A-Za-z0-9_.-]{1,9})?"
        ) {
            if let Ok(once) = Reference::parse(&text) {
                let twice = Reference::parse(&once.to_string()).expect("a full name is a name");
                prop_assert_eq!(once, twice);
            }
        }
    }
}
