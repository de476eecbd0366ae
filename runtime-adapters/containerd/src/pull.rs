//! Fetching an image: what is absent or damaged, and nothing else.

use std::sync::Arc;

use wavetank_distribution::{Descriptor, ImageConfiguration, Reference, Repository, Resolved};
use wavetank_port::{ErrorClass, Image, PullPolicy, PullRequest, runtime::Result};

use crate::content::{Source, damaged, write};
use crate::daemon::Daemon;
use crate::error::error;
use crate::lease::Lease;
use crate::unpack::chain_ids;

impl Daemon {
    /// Answers once the image is stored, unpacked and named.
    pub(crate) async fn pull(self: &Arc<Self>, request: &PullRequest) -> Result<Image> {
        let reference = Reference::try_from(&request.image)?;
        if request.policy != PullPolicy::Always
            && let Some(image) = self.present(&reference).await?
        {
            return Ok(image);
        }
        if request.policy == PullPolicy::Never {
            let message = format!("image {reference}: it is not here, and must not be fetched");
            return Err(error(ErrorClass::NotFound, message));
        }
        if self
            .transfer(&reference, request.credentials.as_ref())
            .await?
            && let Some(image) = self.present(&reference).await?
        {
            return Ok(image);
        }
        let repository = self
            .registry
            .repository(&reference, request.credentials.as_ref());
        let resolved = repository.resolve().await?;
        self.store(&reference, &repository, &resolved).await?;
        Ok(Image {
            reference: reference.to_image_reference(),
            digest: resolved.descriptor.digest().to_string(),
        })
    }

    /// The image, if it is here, whole and undamaged.
    pub(crate) async fn present(&self, reference: &Reference) -> Result<Option<Image>> {
        let Some(target) = self.image_target(&reference.to_string()).await? else {
            return Ok(None);
        };
        let stored = self.stored(&target).await?;
        Ok(stored.map(|it| Image {
            reference: reference.to_image_reference(),
            digest: it.digest,
        }))
    }

    async fn store(
        self: &Arc<Self>,
        reference: &Reference,
        repository: &Repository,
        resolved: &Resolved,
    ) -> Result<()> {
        let lease = Lease::begin(self).await?;
        let stored = self
            .store_held(&lease, reference, repository, resolved)
            .await;
        match stored {
            Ok(()) => lease.end().await,
            Err(error) => {
                lease.discard().await?;
                Err(error)
            }
        }
    }

    async fn store_held(
        self: &Arc<Self>,
        lease: &Lease,
        reference: &Reference,
        repository: &Repository,
        resolved: &Resolved,
    ) -> Result<()> {
        let bytes = self.store_config(lease, repository, resolved).await?;
        let config: ImageConfiguration = serde_json::from_slice(&bytes).map_err(|error| {
            let message = format!("image {reference}: its configuration is none: {error}");
            crate::error::error(ErrorClass::Unavailable, message)
        })?;
        self.store_layers(lease, repository, resolved, &config)
            .await?;
        self.store_manifest(lease, resolved).await?;
        self.link(resolved, &config).await?;
        self.name_image(&reference.to_string(), &resolved.descriptor)
            .await
    }

    /// Stores the configuration unless it is here undamaged, and returns it.
    async fn store_config(
        self: &Arc<Self>,
        lease: &Lease,
        repository: &Repository,
        resolved: &Resolved,
    ) -> Result<Vec<u8>> {
        let descriptor = resolved.manifest.config();
        let digest = descriptor.digest().to_string();
        lease.hold_content(descriptor.digest()).await?;
        if let Some(bytes) = self.read_content(&digest).await? {
            return Ok(bytes);
        }
        let bytes = repository.config(&resolved.manifest).await?;
        self.forget_damaged(descriptor.digest()).await?;
        write(lease, descriptor, Source::Bytes(bytes)).await?;
        self.read_content(&digest)
            .await?
            .ok_or_else(|| damaged(&digest))
    }

    async fn store_manifest(self: &Arc<Self>, lease: &Lease, resolved: &Resolved) -> Result<()> {
        let digest = resolved.descriptor.digest().to_string();
        lease.hold_content(resolved.descriptor.digest()).await?;
        if self.read_content(&digest).await?.is_some() {
            return Ok(());
        }
        self.forget_damaged(resolved.descriptor.digest()).await?;
        let source = Source::Bytes(resolved.bytes.clone());
        write(lease, &resolved.descriptor, source).await?;
        let stored = self.read_content(&digest).await?;
        stored.map(drop).ok_or_else(|| damaged(&digest))
    }

    /// Stores and unpacks layers whose snapshots are not here, lowest first.
    async fn store_layers(
        self: &Arc<Self>,
        lease: &Lease,
        repository: &Repository,
        resolved: &Resolved,
        config: &ImageConfiguration,
    ) -> Result<()> {
        let (layers, chain) = (resolved.manifest.layers(), chain_ids(config));
        if layers.len() != chain.len() {
            let message = "the configuration is not that of the manifest: their layers differ";
            return Err(error(ErrorClass::Unavailable, message));
        }
        for (index, layer) in layers.iter().enumerate() {
            lease.hold_snapshot(&chain[index]).await?;
            fetch(self, lease, repository, layer).await?;
            if self.has_snapshot(&chain[index]).await? {
                continue;
            }
            let unpack = || self.unpack_layer(lease, &resolved.manifest, config, index);
            if let Err(error) = unpack().await {
                if !self.forget_damaged(layer.digest()).await? {
                    return Err(error);
                }
                fetch(self, lease, repository, layer).await?;
                unpack().await?;
            }
        }
        Ok(())
    }

    /// Tells garbage collection what the image is made of.
    async fn link(&self, resolved: &Resolved, config: &ImageConfiguration) -> Result<()> {
        let layers = resolved.manifest.layers().iter().enumerate();
        let mut labels: Vec<(String, String)> = layers
            .map(|(i, it)| {
                (
                    format!("containerd.io/gc.ref.content.l.{i}"),
                    it.digest().to_string(),
                )
            })
            .collect();
        let of_config = resolved.manifest.config().digest().to_string();
        labels.push((
            "containerd.io/gc.ref.content.config".to_owned(),
            of_config.clone(),
        ));
        let manifest = resolved.descriptor.digest().to_string();
        self.label_content(&manifest, labels).await?;
        let Some(top) = chain_ids(config).pop() else {
            return Ok(());
        };
        let label = format!("containerd.io/gc.ref.snapshot.{}", self.config.snapshotter);
        self.label_content(&of_config, [(label, top)]).await
    }
}

/// Stores a layer's blob unless it is here.
async fn fetch(
    daemon: &Daemon,
    lease: &Lease,
    repository: &Repository,
    layer: &Descriptor,
) -> Result<()> {
    lease.hold_content(layer.digest()).await?;
    if daemon.has_content(layer.digest()).await? {
        return Ok(());
    }
    let blob = repository.blob(layer).await?;
    write(lease, layer, Source::Registry(Box::new(blob))).await
}
