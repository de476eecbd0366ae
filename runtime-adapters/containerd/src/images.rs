//! The images that the daemon holds for us.

use wavetank_distribution::{Descriptor, ImageConfiguration, ImageManifest, Reference};
use wavetank_port::{Image, ImageReference, runtime::Result};

use crate::api::containerd::services::images::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image as Named, ListImagesRequest,
    UpdateImageRequest,
};
use crate::daemon::Daemon;
use crate::error::{failed, found};
use crate::unpack::{chain_ids, to_wire};

/// An image of this machine's kind, whole: manifest and configuration are there and undamaged.
pub(crate) struct Stored {
    pub digest: String,
    pub config: ImageConfiguration,
}

impl Daemon {
    pub(crate) async fn images(&self) -> Result<Vec<Image>> {
        let answer = self
            .connection
            .images()
            .list(ListImagesRequest::default())
            .await;
        let named = answer.map_err(failed("images"))?.into_inner().images;
        let mut images = Vec::new();
        for it in named {
            let target = it.target.unwrap_or_default().digest;
            images.push(Image {
                reference: ImageReference(it.name),
                digest: self.manifest_digest(&target).await?,
            });
        }
        images.sort();
        Ok(images)
    }

    pub(crate) async fn remove_image(&self, reference: &ImageReference) -> Result<()> {
        let name = Reference::try_from(reference)?.to_string();
        let request = DeleteImageRequest {
            name: name.clone(),
            sync: true,
        };
        let answer = self.connection.images().delete(request).await;
        found(answer.map_err(failed(&name))).map(drop)
    }

    /// What a name points to: the digest of a manifest or of an index.
    pub(crate) async fn image_target(&self, name: &str) -> Result<Option<String>> {
        let request = GetImageRequest {
            name: name.to_owned(),
        };
        let answer = self.connection.images().get(request).await;
        let answer = found(answer.map_err(failed(name)))?;
        let target = answer.and_then(|it| it.into_inner().image?.target);
        Ok(target.map(|it| it.digest))
    }

    /// Gives an image its name, or points an existing name to it.
    pub(crate) async fn name_image(&self, name: &str, target: &Descriptor) -> Result<()> {
        let image = Some(Named {
            name: name.to_owned(),
            target: Some(to_wire(target)),
            ..Named::default()
        });
        let request = UpdateImageRequest {
            image: image.clone(),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["target".to_owned()],
            }),
        };
        let updated = self.connection.images().update(request).await;
        if found(updated.map_err(failed(name)))?.is_some() {
            return Ok(());
        }
        let created = self
            .connection
            .images()
            .create(CreateImageRequest { image })
            .await;
        match created.map_err(failed(name)) {
            // Two first pulls of one image: both have stored the same.
            Err(error) if error.class == wavetank_port::ErrorClass::AlreadyExists => Ok(()),
            other => other.map(drop),
        }
    }

    /// The image behind a target, if all that a container needs of it is there and undamaged.
    pub(crate) async fn stored(&self, target: &str) -> Result<Option<Stored>> {
        let digest = self.manifest_digest(target).await?;
        let Some(manifest) = self.parse_content::<ImageManifest>(&digest).await? else {
            return Ok(None);
        };
        let config = manifest.config().digest().to_string();
        let Some(config) = self.parse_content::<ImageConfiguration>(&config).await? else {
            return Ok(None);
        };
        let unpacked = match chain_ids(&config).last() {
            Some(top) => self.has_snapshot(top).await?,
            None => true,
        };
        Ok(unpacked.then_some(Stored { digest, config }))
    }

    /// Follows an index, which other clients store, to this machine's manifest. What cannot be
    /// followed is itself.
    async fn manifest_digest(&self, target: &str) -> Result<String> {
        let index = self
            .parse_content::<oci_spec::image::ImageIndex>(target)
            .await?;
        let (os, arch) = (
            oci_spec::image::Os::default(),
            oci_spec::image::Arch::default(),
        );
        let fits = |it: &&Descriptor| {
            let platform = it.platform().as_ref();
            platform.is_some_and(|it| *it.os() == os && *it.architecture() == arch)
        };
        let found = index
            .as_ref()
            .and_then(|it| it.manifests().iter().find(fits));
        Ok(found.map_or(target.to_owned(), |it| it.digest().to_string()))
    }

    async fn parse_content<T: serde::de::DeserializeOwned>(
        &self,
        digest: &str,
    ) -> Result<Option<T>> {
        let bytes = self.read_content(digest).await?;
        Ok(bytes.and_then(|it| serde_json::from_slice(&it).ok()))
    }
}
