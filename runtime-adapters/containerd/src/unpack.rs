//! From layers to a file system: one committed snapshot per layer, each on the one below.

use wavetank_distribution::{Descriptor, ImageConfiguration, ImageManifest, sha256};
use wavetank_port::{ErrorClass, runtime::Result};

use crate::api::containerd::services::diff::v1::ApplyRequest;
use crate::api::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use crate::api::containerd::types;
use crate::daemon::Daemon;
use crate::error::{LEFTOVER_SNAPSHOT, broken, error, failed, found};
use crate::lease::Lease;

/// The names of an image's snapshots, lowest first: each layer's digest chained with those below
/// it, as the image specification's "Layer ChainID" has it.
pub(crate) fn chain_ids(config: &ImageConfiguration) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff_id in config.rootfs().diff_ids() {
        let id = match chain.last() {
            None => diff_id.clone(),
            Some(below) => sha256(format!("{below} {diff_id}").as_bytes()).to_string(),
        };
        chain.push(id);
    }
    chain
}

impl Daemon {
    pub(crate) async fn has_snapshot(&self, key: &str) -> Result<bool> {
        let request = StatSnapshotRequest {
            snapshotter: self.config.snapshotter.clone(),
            key: key.to_owned(),
        };
        let answer = self.connection.snapshots().stat(request).await;
        found(answer.map_err(failed(key))).map(|it| it.is_some())
    }

    /// Removes a snapshot, there or not.
    pub(crate) async fn remove_snapshot(&self, key: &str) -> Result<()> {
        let request = RemoveSnapshotRequest {
            snapshotter: self.config.snapshotter.clone(),
            key: key.to_owned(),
        };
        let answer = self.connection.snapshots().remove(request).await;
        found(answer.map_err(failed(key))).map(drop)
    }

    /// A writable snapshot on top of `parent`, held by `lease`. An empty `parent` is no parent.
    pub(crate) async fn prepare_snapshot(
        &self,
        lease: &Lease,
        key: &str,
        parent: &str,
    ) -> Result<Vec<types::Mount>> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.config.snapshotter.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            ..PrepareSnapshotRequest::default()
        };
        let prepare = async || -> Result<Vec<types::Mount>> {
            let answer = lease.connection.snapshots().prepare(request.clone()).await;
            Ok(answer.map_err(failed(key))?.into_inner().mounts)
        };
        match prepare().await {
            Err(error) if error.message.contains(LEFTOVER_SNAPSHOT) => prepare().await,
            other => other,
        }
    }

    /// Makes the snapshot of layer `index` from its blob. The ones below are there.
    pub(crate) async fn unpack_layer(
        &self,
        lease: &Lease,
        manifest: &ImageManifest,
        config: &ImageConfiguration,
        index: usize,
    ) -> Result<()> {
        let chain = chain_ids(config);
        let parent = index.checked_sub(1).map_or("", |below| &chain[below]);
        let name = &chain[index];
        let key = format!("{}-{name}", lease.id);
        let mounts = self.prepare_snapshot(lease, &key, parent).await?;
        let layer = &manifest.layers()[index];
        let diff_id = &config.rootfs().diff_ids()[index];
        let applied = self.apply(lease, layer, mounts, diff_id).await;
        let committed = match applied {
            Ok(()) => self.commit(lease, name, &key).await,
            Err(error) => Err(error),
        };
        match committed {
            // Somebody else was faster with the same layer.
            Err(error) if error.class == ErrorClass::AlreadyExists => {
                self.remove_snapshot(&key).await
            }
            Err(error) => {
                self.remove_snapshot(&key).await?;
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    async fn apply(
        &self,
        lease: &Lease,
        layer: &Descriptor,
        mounts: Vec<types::Mount>,
        diff_id: &str,
    ) -> Result<()> {
        let what = format!("layer {}", layer.digest());
        let request = ApplyRequest {
            diff: Some(to_wire(layer)),
            mounts,
        };
        let answer = lease.connection.diff().apply(request).await;
        let applied = answer.map_err(failed(&what))?.into_inner().applied;
        let applied = applied.ok_or_else(|| broken(&what))?;
        if applied.digest == diff_id {
            return Ok(());
        }
        Err(error(
            ErrorClass::Unavailable,
            format!("{what}: unpacked it is {}, not {diff_id}", applied.digest),
        ))
    }

    async fn commit(&self, lease: &Lease, name: &str, key: &str) -> Result<()> {
        let request = CommitSnapshotRequest {
            snapshotter: self.config.snapshotter.clone(),
            name: name.to_owned(),
            key: key.to_owned(),
        };
        let answer = lease.connection.snapshots().commit(request).await;
        answer.map(drop).map_err(failed(name))
    }
}

/// A descriptor as containerd has it.
pub(crate) fn to_wire(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type().to_string(),
        digest: descriptor.digest().to_string(),
        size: i64::try_from(descriptor.size()).unwrap_or(i64::MAX),
        annotations: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use wavetank_distribution::ImageConfiguration;

    use super::chain_ids;

    #[test]
    fn a_layers_name_depends_on_those_below() {
        let config: ImageConfiguration = serde_json::from_value(serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": ["sha256:a", "sha256:b"] },
        }))
        .expect("a configuration");
        // The second is `printf 'sha256:a sha256:b' | sha256sum`.
        assert_eq!(
            chain_ids(&config),
            [
                "sha256:a",
                "sha256:970a948bffa8de94d6e22d747ba8c95030e6e546909f98f54e99a13005e173a8"
            ]
        );
    }
}
