//! The daemon's own pull, which containerd 1.7 and newer have.

use prost::Message as _;
use prost_types::Any;
use tonic::Code;
use wavetank_distribution::Reference;
use wavetank_port::{Credentials, runtime::Result};

use crate::api::containerd::services::transfer::v1::{
    ImageStore, OciRegistry, TransferRequest, UnpackConfiguration,
};
use crate::api::containerd::types::Platform;
use crate::daemon::Daemon;
use crate::error::failed;

impl Daemon {
    /// Lets the daemon pull. False if it cannot, or not what is asked for: it knows neither our
    /// mirrors nor our plain hosts, and takes a password only over a stream of its own.
    pub(crate) async fn transfer(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<bool> {
        let registries = &self.config.registries;
        let ours = credentials.is_some()
            || registries.plain_http.contains(reference.registry())
            || registries.mirrors.contains_key(reference.registry());
        if ours || self.transfers.get() == Some(&false) {
            return Ok(false);
        }
        let request = self.transfer_request(reference);
        let answer = self.connection.transfer().transfer(request).await;
        let known = !matches!(&answer, Err(status) if status.code() == Code::Unimplemented);
        self.transfers.get_or_init(async || known).await;
        match answer {
            Err(_) if !known => Ok(false),
            Err(status) => Err(failed(&format!("image {reference}"))(status)),
            Ok(_) => Ok(true),
        }
    }

    fn transfer_request(&self, reference: &Reference) -> TransferRequest {
        let platform = Platform {
            os: oci_spec::image::Os::default().to_string(),
            architecture: oci_spec::image::Arch::default().to_string(),
        };
        let source = OciRegistry {
            reference: reference.to_string(),
        };
        let destination = ImageStore {
            name: reference.to_string(),
            platforms: vec![platform.clone()],
            unpacks: vec![UnpackConfiguration {
                platform: Some(platform),
                snapshotter: self.config.snapshotter.clone(),
            }],
        };
        let any = |name: &str, value| Any {
            type_url: format!("types.containerd.io/containerd.types.transfer.{name}"),
            value,
        };
        TransferRequest {
            source: Some(any("OCIRegistry", source.encode_to_vec())),
            destination: Some(any("ImageStore", destination.encode_to_vec())),
        }
    }
}
