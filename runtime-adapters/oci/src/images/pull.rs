//! From the registry into the store. Concurrent pulls of one image are one.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::io::AsyncWriteExt as _;
use wavetank_distribution::{
    Client, Descriptor, ImageConfiguration, ImageManifest, Reference, Repository, Resolved,
};
use wavetank_port::{ErrorClass, Image, PullPolicy, PullRequest, RuntimeError};

use super::layer::{LayerError, unpack};
use super::store::ImageStore;
use crate::deadline::{Lock, Result, Sharing, blocking, unknown};

/// Fetches images.
pub struct Puller {
    store: ImageStore,
    client: Client,
    /// One per image under way, by its full name.
    under_way: Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Puller {
    /// Fetches by `client` into `store`.
    pub fn new(store: ImageStore, client: Client) -> Self {
        Puller {
            store,
            client,
            under_way: Mutex::new(BTreeMap::new()),
        }
    }

    /// Does what the port says. Dropped half-way, it leaves nothing but whole layers.
    pub async fn pull(&self, request: &PullRequest) -> Result<Image> {
        let reference = Reference::try_from(&request.image)?;
        let name = reference.to_string();
        let turn = self.turn(&name);
        let _turn = turn.lock().await;
        if request.policy != PullPolicy::Always
            && let Some(image) = self.present(&name).await?
        {
            return Ok(image);
        }
        if request.policy == PullPolicy::Never {
            let message = format!("{name} is not here, and may not be fetched");
            return Err(RuntimeError::new(ErrorClass::NotFound, message));
        }
        let _fetching = Lock::acquire(&self.store.fetch_lock(), Sharing::Common).await?;
        let repository = self
            .client
            .repository(&reference, request.credentials.as_ref());
        let resolved = repository.resolve().await?;
        self.fetch(&repository, &resolved).await?;
        let digest = resolved.descriptor.digest().to_string();
        let store = self.store.clone();
        blocking(move || {
            store
                .put_name(&name, &digest)
                .and_then(|()| store.find(&name))
                .map_err(|error| unknown(&error))?
                .map(|stored| stored.image)
                .ok_or_else(|| lost(&name))
        })
        .await
    }

    fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = under_way.get(name).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        under_way.insert(name.to_owned(), Arc::downgrade(&turn));
        turn
    }

    async fn present(&self, name: &str) -> Result<Option<Image>> {
        let (store, name) = (self.store.clone(), name.to_owned());
        blocking(move || {
            let stored = store.find(&name).map_err(|error| unknown(&error))?;
            Ok(stored.map(|stored| stored.image))
        })
        .await
    }

    /// Brings the manifest, the configuration and the layers here.
    async fn fetch(&self, repository: &Repository, resolved: &Resolved) -> Result<()> {
        let manifest = &resolved.manifest;
        let config_digest = manifest.config().digest().to_string();
        let config = match self.blob(&config_digest).await? {
            Some(bytes) => bytes,
            None => repository.config(manifest).await?,
        };
        let configuration: ImageConfiguration = serde_json::from_slice(&config)
            .map_err(|error| broken(format!("the image's configuration: {error}")))?;
        for (layer, diff_id) in layers(manifest, &configuration)? {
            self.fetch_layer(repository, layer, diff_id).await?;
        }
        let store = self.store.clone();
        let digest = resolved.descriptor.digest().to_string();
        let bytes = resolved.bytes.clone();
        blocking(move || {
            store
                .put_blob(&config_digest, &config)
                .and_then(|()| store.put_blob(&digest, &bytes))
                .map_err(|error| unknown(&error))
        })
        .await
    }

    async fn blob(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        let (store, digest) = (self.store.clone(), digest.to_owned());
        blocking(move || store.blob(&digest).map_err(|error| unknown(&error))).await
    }

    async fn fetch_layer(
        &self,
        repository: &Repository,
        layer: &Descriptor,
        diff_id: &str,
    ) -> Result<()> {
        let (store, wanted) = (self.store.clone(), diff_id.to_owned());
        let present =
            blocking(move || store.has_layer(&wanted).map_err(|error| unknown(&error))).await?;
        if present {
            return Ok(());
        }
        let store = self.store.clone();
        let compressed =
            blocking(move || store.unfinished_file().map_err(|error| unknown(&error))).await?;
        let mut file = tokio::fs::File::from_std(reopen(&compressed)?);
        let mut blob = repository.blob(layer).await?;
        while let Some(piece) = blob.next().await? {
            file.write_all(&piece)
                .await
                .map_err(|error| unknown(&error))?;
        }
        file.flush().await.map_err(|error| unknown(&error))?;
        let (store, diff_id) = (self.store.clone(), diff_id.to_owned());
        blocking(move || {
            let folder = store.unfinished_folder().map_err(|error| unknown(&error))?;
            unpack(reopen(&compressed)?, folder.path(), &diff_id)
                .map_err(|error| layer_error(&error))?;
            store
                .put_layer(&diff_id, folder)
                .map_err(|error| unknown(&error))
        })
        .await
    }
}

fn reopen(file: &tempfile::NamedTempFile) -> Result<File> {
    file.reopen().map_err(|error| unknown(&error))
}

/// Each layer with the digest of its content.
fn layers<'a>(
    manifest: &'a ImageManifest,
    configuration: &'a ImageConfiguration,
) -> Result<Vec<(&'a Descriptor, &'a str)>> {
    let (layers, ids) = (manifest.layers(), configuration.rootfs().diff_ids());
    if layers.len() != ids.len() {
        let message = format!(
            "the manifest has {} layers, the configuration {}",
            layers.len(),
            ids.len()
        );
        return Err(broken(message));
    }
    Ok(layers.iter().zip(ids.iter().map(String::as_str)).collect())
}

fn broken(message: String) -> RuntimeError {
    RuntimeError::new(ErrorClass::Unavailable, message)
}

fn lost(name: &str) -> RuntimeError {
    let message = format!("{name} was removed while it was fetched");
    RuntimeError::new(ErrorClass::Unavailable, message)
}

fn layer_error(error: &LayerError) -> RuntimeError {
    match error {
        LayerError::Io(source) => {
            let mut wrapped = unknown(source);
            // The archive itself breaks off, or the disk does not take it.
            if wrapped.class == ErrorClass::Unknown {
                wrapped.class = ErrorClass::Unavailable;
            }
            wrapped.message = format!("{error}: {}", wrapped.message);
            wrapped
        }
        LayerError::Digest { .. } | LayerError::Escape(_) | LayerError::TooLarge(_) => {
            broken(error.to_string())
        }
        LayerError::Zstd => RuntimeError::new(ErrorClass::Unknown, error.to_string()),
    }
}
