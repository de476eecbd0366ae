//! The container runtimes that a node can use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wavetank_containerd::{Containerd, ContainerdConfig};
use wavetank_oci::{MonitorProgram, OciRuntime};
use wavetank_podman::{Endpoint, Namespace, Podman, PodmanConfig};
use wavetank_port::ContainerRuntime;

use crate::config::{AgentSettings, RuntimeKind};

/// Longest that a runtime may take to show that it is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// It does not answer.
    #[error("cannot use {runtime} at {}", at.display())]
    Connect {
        /// Which runtime.
        runtime: &'static str,
        /// Where it should be.
        at: PathBuf,
        /// Why not.
        source: wavetank_port::RuntimeError,
    },
    /// It was configured wrongly.
    #[error("cannot use podman")]
    Podman(#[source] wavetank_podman::ConfigError),
}

/// The runtime that the settings name.
pub async fn open(settings: &AgentSettings) -> Result<Arc<dyn ContainerRuntime>, RuntimeError> {
    match settings.runtime {
        RuntimeKind::Containerd => containerd(settings).await,
        RuntimeKind::Podman => podman(settings).map_err(RuntimeError::Podman),
        RuntimeKind::Oci => oci(settings).await,
    }
}

async fn containerd(settings: &AgentSettings) -> Result<Arc<dyn ContainerRuntime>, RuntimeError> {
    let usual = || PathBuf::from("/run/containerd/containerd.sock");
    let at = settings.socket.clone().unwrap_or_else(usual);
    let state = settings.common.dir.join("containerd");
    let config = ContainerdConfig::new(&at, &settings.namespace, state);
    match Containerd::connect(config, CONNECT_TIMEOUT).await {
        Ok(runtime) => Ok(Arc::new(runtime)),
        Err(source) => Err(RuntimeError::Connect {
            runtime: "containerd",
            at,
            source,
        }),
    }
}

fn podman(
    settings: &AgentSettings,
) -> Result<Arc<dyn ContainerRuntime>, wavetank_podman::ConfigError> {
    let endpoint = match &settings.socket {
        Some(socket) => Endpoint::Unix(socket.clone()),
        None => Endpoint::detect()?,
    };
    let namespace: Namespace = settings.namespace.parse()?;
    Ok(Arc::new(Podman::new(PodmanConfig {
        endpoint,
        namespace,
    })))
}

/// How an OCI runtime's binary runs the containers of the agent that lives in `dir`.
pub fn oci_config(dir: &Path, runtime: PathBuf) -> wavetank_oci::Config {
    let dir = dir.join("oci");
    wavetank_oci::Config {
        root: dir.join("root"),
        runtime_root: dir.join("run"),
        runtime,
        monitor: MonitorProgram::CurrentExecutable,
        registries: wavetank_oci::Registries::default(),
    }
}

async fn oci(settings: &AgentSettings) -> Result<Arc<dyn ContainerRuntime>, RuntimeError> {
    let runtime = settings.socket.clone();
    let runtime = runtime.unwrap_or_else(|| PathBuf::from("runc"));
    let dir = &settings.common.dir;
    // Monitors outlive us and may be anywhere.
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
    let config = oci_config(&dir, runtime.clone());
    match OciRuntime::open(config, CONNECT_TIMEOUT).await {
        Ok(opened) => Ok(Arc::new(opened)),
        Err(source) => Err(RuntimeError::Connect {
            runtime: "the OCI runtime",
            at: runtime,
            source,
        }),
    }
}
