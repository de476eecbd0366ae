//! What an adapter asks of a registry: resolve a reference, then fetch what its manifest names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use hyper::body::{Body as _, Incoming};
use oci_spec::image::{Arch, Descriptor, Digest, ImageIndex, ImageManifest, MediaType, Os};
use wavetank_port::Credentials;

use crate::blob::Blob;
use crate::digest::{Verifier, sha256};
use crate::error::{DistributionError, Result};
use crate::reference::{Reference, Selector};
use crate::registries::Registries;
use crate::transport::{Transport, malformed};
use crate::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX, auth};

/// Manifests and indexes that we understand, OCI's and Docker's.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";
const BLOB_TYPES: &str = "application/octet-stream, */*";
/// The header in which a registry says what a tag points to.
const DIGEST_HEADER: &str = "docker-content-digest";

/// A client of all registries. Cheap to share.
#[derive(Clone)]
pub struct Client {
    registries: Arc<Registries>,
    tls: rustls::ClientConfig,
}

impl Client {
    /// Reads the machine's root certificates once. Without any, HTTPS fails and plain HTTP works.
    pub fn new(registries: Registries) -> Self {
        Client {
            registries: Arc::new(registries),
            tls: tls_config(),
        }
    }

    /// The repository that `reference` is in, for one pull.
    pub fn repository(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Repository {
        Repository {
            transport: Transport::new(self.registries.clone(), self.tls.clone()),
            hosts: self.registries.hosts(reference.registry()),
            reference: reference.clone(),
            credentials: credentials.cloned(),
            authorizations: Mutex::new(BTreeMap::new()),
        }
    }
}

/// One repository, its credentials and its open connections. Calls may run at the same time.
pub struct Repository {
    transport: Transport,
    hosts: Vec<String>,
    reference: Reference,
    credentials: Option<Credentials>,
    /// By host: mirrors have tokens of their own.
    authorizations: Mutex<BTreeMap<String, HeaderValue>>,
}

/// An image for this machine, found in a registry.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Digest and size of the manifest.
    pub descriptor: Descriptor,
    /// The manifest exactly as it came: what its digest is the digest of.
    pub bytes: Vec<u8>,
    /// The same, parsed.
    pub manifest: ImageManifest,
}

impl Repository {
    /// The manifest of the image for this machine; an index is followed to it.
    pub async fn resolve(&self) -> Result<Resolved> {
        let found = self.manifest(self.reference.selector()).await?;
        let digest = match found {
            Document::Manifest(resolved) => return Ok(*resolved),
            Document::Index(index) => self.for_this_machine(&index)?.digest().clone(),
        };
        let selector = Selector::Digest(digest);
        match self.manifest(&selector).await? {
            Document::Manifest(resolved) => Ok(*resolved),
            Document::Index(_) => Err(malformed(&self.what(&selector), "an index in an index")),
        }
    }

    /// The image's configuration, verified, as it came.
    pub async fn config(&self, manifest: &ImageManifest) -> Result<Vec<u8>> {
        let descriptor = manifest.config();
        if descriptor.size() > CONFIG_BYTES_MAX {
            return Err(DistributionError::TooLarge {
                what: what_blob(descriptor),
                bytes_max: CONFIG_BYTES_MAX,
            });
        }
        let mut blob = self.blob(descriptor).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = blob.next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Starts to fetch a blob.
    pub async fn blob(&self, descriptor: &Descriptor) -> Result<Blob> {
        let what = what_blob(descriptor);
        let verifier = Verifier::new(&what, descriptor.digest())?;
        let path = format!("blobs/{}", descriptor.digest());
        let body = self.get(&what, &path, BLOB_TYPES).await?.into_body();
        if let Some(length) = body.size_hint().exact()
            && length != descriptor.size()
        {
            let problem = format!("{length} bytes long, not {}", descriptor.size());
            return Err(malformed(&what, problem));
        }
        let idle = self.transport.registries().idle_timeout;
        Ok(Blob::new(what, idle, body, verifier, descriptor.size()))
    }

    async fn manifest(&self, selector: &Selector) -> Result<Document> {
        let what = self.what(selector);
        let path = format!("manifests/{selector}");
        let response = self.get(&what, &path, MANIFEST_TYPES).await?;
        let announced = announced_digest(response.headers());
        let body = response.into_body();
        let bytes = self.transport.read(&what, body, MANIFEST_BYTES_MAX).await?;
        let asked = match selector {
            Selector::Digest(digest) => Some(digest.clone()),
            Selector::Tag(_) => None,
        };
        for expected in [&asked, &announced].into_iter().flatten() {
            let mut verifier = Verifier::new(&what, expected)?;
            verifier.update(&bytes);
            verifier.finish()?;
        }
        let digest = asked.unwrap_or_else(|| sha256(&bytes));
        Document::parse(&what, digest, bytes)
    }

    fn for_this_machine<'a>(&self, index: &'a ImageIndex) -> Result<&'a Descriptor> {
        let (os, arch) = (Os::default(), Arch::default());
        let fits = |it: &&Descriptor| {
            let platform = it.platform().as_ref();
            platform.is_some_and(|it| *it.os() == os && *it.architecture() == arch)
        };
        let found = index.manifests().iter().find(fits);
        found.ok_or_else(|| DistributionError::Platform {
            what: self.what(self.reference.selector()),
            platform: format!("{os}/{arch}"),
        })
    }

    /// Asks each host in turn; the last one's error counts, for it is the registry itself.
    async fn get(
        &self,
        what: &str,
        path: &str,
        accept: &'static str,
    ) -> Result<Response<Incoming>> {
        let (origin, mirrors) = self
            .hosts
            .split_last()
            .expect("there is always the registry");
        for mirror in mirrors {
            if let Ok(response) = self.get_from(mirror, what, path, accept).await {
                return Ok(response);
            }
        }
        self.get_from(origin, what, path, accept).await
    }

    async fn get_from(
        &self,
        host: &str,
        what: &str,
        path: &str,
        accept: &'static str,
    ) -> Result<Response<Incoming>> {
        let repository = self.reference.repository();
        let base = self.transport.registries().base(host);
        let uri: Uri = format!("{base}/v2/{repository}/{path}")
            .parse()
            .map_err(|_| malformed(what, format!("`{host}` is not a host")))?;
        let known = self.authorization(host);
        let mut response = self
            .transport
            .get(what, &uri, accept, known.as_ref())
            .await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(new) = self.authorize(host, response.headers()).await?
        {
            response = self.transport.get(what, &uri, accept, Some(&new)).await?;
        }
        self.transport.success(what, response).await
    }

    fn authorization(&self, host: &str) -> Option<HeaderValue> {
        let known = self.authorizations.lock();
        known
            .unwrap_or_else(PoisonError::into_inner)
            .get(host)
            .cloned()
    }

    async fn authorize(&self, host: &str, headers: &HeaderMap) -> Result<Option<HeaderValue>> {
        // A mirror is another party: the registry's password is not for it.
        let origin = self.hosts.last().is_some_and(|it| it == host);
        let credentials = self.credentials.as_ref().filter(|_| origin);
        let repository = self.reference.repository();
        let new = auth::answer(&self.transport, repository, headers, credentials).await?;
        if let Some(value) = &new {
            let known = self.authorizations.lock();
            let mut known = known.unwrap_or_else(PoisonError::into_inner);
            known.insert(host.to_owned(), value.clone());
        }
        Ok(new)
    }

    fn what(&self, selector: &Selector) -> String {
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        let mark = match selector {
            Selector::Tag(_) => ':',
            Selector::Digest(_) => '@',
        };
        format!("manifest {registry}/{repository}{mark}{selector}")
    }
}

/// What a registry calls a manifest.
enum Document {
    Manifest(Box<Resolved>),
    Index(Box<ImageIndex>),
}

impl Document {
    /// Decides by content. One that could be read as both is refused: two readers would run two
    /// different images under one digest (CVE-2021-41190).
    fn parse(what: &str, digest: Digest, bytes: Vec<u8>) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Shape {
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
        }
        let bad = |error: serde_json::Error| malformed(what, format!("not a manifest: {error}"));
        let shape: Shape = serde_json::from_slice(&bytes).map_err(bad)?;
        match (shape.manifests, shape.layers) {
            (Some(_), None) => Ok(Document::Index(Box::new(
                serde_json::from_slice(&bytes).map_err(bad)?,
            ))),
            (None, Some(_)) => {
                let manifest: ImageManifest = serde_json::from_slice(&bytes).map_err(bad)?;
                let media_type = manifest.media_type().clone();
                let media_type = media_type.unwrap_or(MediaType::ImageManifest);
                let descriptor = Descriptor::new(media_type, bytes.len() as u64, digest);
                Ok(Document::Manifest(Box::new(Resolved {
                    descriptor,
                    bytes,
                    manifest,
                })))
            }
            _ => Err(malformed(what, "neither a manifest nor an index")),
        }
    }
}

/// The digest that the registry announces, where it does in a form that we can read.
fn announced_digest(headers: &HeaderMap) -> Option<Digest> {
    let text = headers.get(DIGEST_HEADER)?.to_str().ok()?;
    Digest::try_from(text.to_owned()).ok()
}

fn what_blob(descriptor: &Descriptor) -> String {
    format!("blob {}", descriptor.digest())
}

fn tls_config() -> rustls::ClientConfig {
    use hyper_rustls::ConfigBuilderExt as _;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = || {
        rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring knows the versions of TLS that rustls calls safe")
    };
    match builder().with_native_roots() {
        Ok(config) => config.with_no_client_auth(),
        Err(_) => builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth(),
    }
}
