//! What an adapter must be told about its daemon and its machine.

use std::path::PathBuf;

use wavetank_distribution::Registries;

/// One daemon, seen from one namespace.
#[derive(Clone, Debug)]
pub struct ContainerdConfig {
    /// The daemon's gRPC socket.
    pub socket: PathBuf,
    /// What separates this adapter's images and containers from others'. One per node: runc keeps
    /// its state by namespace, also across daemons.
    pub namespace: String,
    /// Where file systems live, by the name of a containerd plugin; `overlayfs` nearly always.
    pub snapshotter: String,
    /// The daemon's name for what runs containers; `io.containerd.runc.v2` nearly always.
    pub runtime: String,
    /// Our own files: the logs, in `<state>/<namespace>/<container>/`.
    pub state: PathBuf,
    /// Each named volume is a directory in it.
    pub volumes: PathBuf,
    /// How to reach registries.
    pub registries: Registries,
}

impl ContainerdConfig {
    /// The usual choice of plugins.
    pub fn new(
        socket: impl Into<PathBuf>,
        namespace: impl Into<String>,
        state: impl Into<PathBuf>,
    ) -> Self {
        let state = state.into();
        ContainerdConfig {
            socket: socket.into(),
            namespace: namespace.into(),
            snapshotter: "overlayfs".to_owned(),
            runtime: "io.containerd.runc.v2".to_owned(),
            volumes: state.join("volumes"),
            state: state.join("containers"),
            registries: Registries::default(),
        }
    }
}
