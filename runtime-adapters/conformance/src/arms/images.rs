//! The images of a real arm and what is wrong with them: the same for every runtime.

use std::collections::BTreeMap;

use wavetank_fixtures::registry::{PRIVATE_REPOSITORY, TEST_TAG, UNREACHABLE_HOST, repository};
use wavetank_fixtures::{Fault, Registry, RequestKind, Rule, TestImage};
use wavetank_port::ImageReference;

use crate::arm::{ArmError, Images, RegistryFault};

/// A registry of an arm's own on a free port of the loopback. It ends when this is dropped.
#[derive(Debug)]
pub struct ArmImages {
    registry: Registry,
    by_digest: BTreeMap<TestImage, ImageReference>,
}

impl ArmImages {
    /// Starts the registry with all test images.
    pub async fn start() -> Result<Self, ArmError> {
        let registry = Registry::start_with_test_images()
            .await
            .map_err(|error| ArmError::Harness(format!("no registry: {error}")))?;
        let references = TestImage::ALL.into_iter().filter_map(|image| {
            let reference = registry.reference_by_digest(&repository(image), TEST_TAG)?;
            Some((image, reference))
        });
        Ok(ArmImages {
            by_digest: references.collect(),
            registry,
        })
    }

    /// The registry's address and port, for a daemon that must be told that it speaks plain HTTP.
    pub fn host(&self) -> String {
        self.registry.host()
    }
}

impl Images for ArmImages {
    fn image(&self, image: TestImage) -> ImageReference {
        self.registry.test_image(image)
    }

    fn image_by_digest(&self, image: TestImage) -> ImageReference {
        // Every test image was published when the registry was started.
        self.by_digest[&image].clone()
    }

    fn missing_image(&self) -> ImageReference {
        self.registry.reference("wavetank/missing", TEST_TAG)
    }

    fn unreachable_image(&self) -> ImageReference {
        let repository = repository(TestImage::Normal);
        ImageReference(format!("{UNREACHABLE_HOST}/{repository}:{TEST_TAG}"))
    }

    fn private_image(&self) -> ImageReference {
        self.registry.reference(PRIVATE_REPOSITORY, TEST_TAG)
    }

    fn set_registry_fault(&self, image: TestImage, fault: Option<RegistryFault>) {
        let repository = repository(image);
        self.registry.clear_rules(&repository);
        if let Some(fault) = fault {
            let rule = Rule::always(served(fault));
            self.registry.add_rule(&repository, rule);
        }
    }

    fn blob_requests(&self, image: TestImage) -> u64 {
        self.registry
            .requests(&repository(image), RequestKind::Layer)
    }
}

/// The fault as the registry knows it.
fn served(fault: RegistryFault) -> Fault {
    match fault {
        RegistryFault::Missing => Fault::Missing,
        RegistryFault::Unauthorized => Fault::Unauthorized,
        RegistryFault::TooManyRequests => Fault::TooManyRequests {
            retry_after_seconds: Some(1),
        },
        RegistryFault::Unavailable => Fault::Status(503),
        RegistryFault::Slow(delay) => Fault::SlowFirstByte(delay),
        RegistryFault::StallAfter(bytes) => Fault::StallAfter(bytes),
        RegistryFault::TruncateAfter(bytes) => Fault::TruncateAfter(bytes),
        RegistryFault::Corrupt => Fault::WrongDigest,
    }
}

#[cfg(test)]
mod tests {
    use super::{ArmImages, Images as _};
    use wavetank_fixtures::TestImage;

    #[tokio::test]
    async fn every_image_has_a_tag_and_a_digest() {
        let images = ArmImages::start().await.unwrap();
        for image in TestImage::ALL {
            let (tagged, digested) = (images.image(image).0, images.image_by_digest(image).0);
            let name = format!("{}/wavetank/{}", images.host(), image.name());
            assert_eq!(tagged, format!("{name}:1"));
            assert!(
                digested.starts_with(&format!("{name}@sha256:")),
                "{digested}"
            );
            assert_eq!(images.blob_requests(image), 0);
        }
    }
}
