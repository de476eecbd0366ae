//! The daemon as the rest of the adapter sees it, and the calls that several of them make.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio::sync::{Mutex, OnceCell};
use wavetank_distribution::Client;
use wavetank_port::{ContainerId, RuntimeError, runtime::Result};

use crate::api::containerd::services::containers::v1::{
    Container, GetContainerRequest, UpdateContainerRequest,
};
use crate::api::containerd::services::namespaces::v1::{CreateNamespaceRequest, Namespace};
use crate::api::containerd::services::tasks::v1::GetRequest;
use crate::api::containerd::types::Process;
use crate::config::ContainerdConfig;
use crate::connection::Connection;
use crate::error::{broken, failed, found};

/// Everything that calls share.
pub(crate) struct Daemon {
    pub(crate) config: ContainerdConfig,
    pub(crate) connection: Connection,
    pub(crate) registry: Client,
    /// Whether the daemon has a Transfer service; asked once.
    pub(crate) transfers: OnceCell<bool>,
    /// Held by who replaces damaged content.
    pub(crate) mending: Mutex<()>,
}

impl Daemon {
    pub(crate) fn new(config: ContainerdConfig) -> Result<Self> {
        Ok(Daemon {
            connection: Connection::new(config.socket.clone(), &config.namespace)?,
            registry: Client::new(config.registries.clone()),
            config,
            transfers: OnceCell::new(),
            mending: Mutex::new(()),
        })
    }

    /// Makes our namespace known; there already is fine.
    pub(crate) async fn create_namespace(&self) -> Result<()> {
        let request = CreateNamespaceRequest {
            namespace: Some(Namespace {
                name: self.config.namespace.clone(),
            }),
        };
        let created = self.connection.namespaces().create(request).await;
        match created.map_err(failed("namespace")) {
            Err(error) if error.class != wavetank_port::ErrorClass::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) async fn version(&self) -> Result<String> {
        let answer = self.connection.version().version(()).await;
        Ok(answer.map_err(failed("version"))?.into_inner().version)
    }

    /// The record of a container; absent is `NotFound`.
    pub(crate) async fn container(&self, id: &ContainerId) -> Result<Container> {
        let request = GetContainerRequest { id: id.0.clone() };
        let answer = self.connection.containers().get(request).await;
        let answer = answer.map_err(about(id))?.into_inner();
        answer.container.ok_or_else(|| broken(&id.0))
    }

    /// The container's task, if it has one.
    pub(crate) async fn task(&self, id: &ContainerId) -> Result<Option<Process>> {
        let request = GetRequest {
            container_id: id.0.clone(),
            exec_id: String::new(),
        };
        let answer = self.connection.tasks().get(request).await;
        let answer = found(answer.map_err(about(id)))?;
        Ok(answer.and_then(|it| it.into_inner().process))
    }

    /// Sets one label of a container; an empty value removes it.
    pub(crate) async fn set_label(&self, id: &ContainerId, key: &str, value: &str) -> Result<()> {
        let request = UpdateContainerRequest {
            container: Some(Container {
                id: id.0.clone(),
                labels: BTreeMap::from([(key.to_owned(), value.to_owned())]),
                ..Container::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec![format!("labels.{key}")],
            }),
        };
        let answer = self.connection.containers().update(request).await;
        answer.map(drop).map_err(about(id))
    }

    /// Where our files about a container are.
    pub(crate) fn log_dir(&self, id: &ContainerId) -> PathBuf {
        self.config.state.join(&self.config.namespace).join(&id.0)
    }
}

/// The error of a call about a container.
pub(crate) fn about(id: &ContainerId) -> impl FnOnce(tonic::Status) -> RuntimeError + use<> {
    failed(&format!("container {id}"))
}
