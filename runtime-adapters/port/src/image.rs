//! Images: what a pull asks for and what a runtime holds.

use serde::{Deserialize, Serialize};

use crate::container::ImageReference;

/// When a pull goes to the registry, with the names and meanings of Kubernetes' `imagePullPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// Resolve at the registry each time; fetch what changed.
    Always,
    /// Fetch only what is absent here.
    #[default]
    IfMissing,
    /// Never go to the registry; absent here is `NotFound`.
    Never,
}

/// A user name and password for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who.
    pub user: String,
    /// Never printed.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// One pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// What to fetch. Without tag or digest, the tag is `latest`.
    pub image: ImageReference,
    /// Whether to ask the registry at all.
    pub policy: PullPolicy,
    /// `None` pulls anonymously.
    pub credentials: Option<Credentials>,
}

impl PullRequest {
    /// An anonymous pull of what is absent.
    pub fn of(image: ImageReference) -> Self {
        PullRequest {
            image,
            policy: PullPolicy::IfMissing,
            credentials: None,
        }
    }
}

/// An image that a runtime holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Image {
    /// The fully qualified name it goes by here: `host/path:tag` or `host/path@digest`.
    pub reference: ImageReference,
    /// Digest of its manifest, `sha256:...`: the same on every machine and in every runtime.
    pub digest: String,
}
