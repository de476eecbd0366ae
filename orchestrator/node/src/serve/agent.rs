//! Runs an agent, with whatever container runtime it is given.

use std::future::Future;
use std::sync::Arc;

use wavetank_model::NodeRole;
use wavetank_port::ContainerRuntime;

use super::upkeep::{Renewal, Source, keep_addresses};
use super::{ServeError, StateFolder, observer};
use crate::api::metrics::Metrics;
use crate::api::status::Status;
use crate::config::AgentSettings;
use crate::node::{AgentParts, Seat, run_agent};
use crate::os::Os;
use crate::platform::Platform as _;
use crate::transport::{Limits, TransportConfig};

/// Runs the agent that lives in the folder until `stop` comes back. Its containers run on.
pub async fn agent(
    settings: AgentSettings,
    runtime: Arc<dyn ContainerRuntime>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let folder = StateFolder::create(&settings.common.dir)?;
    let identity = Arc::new(folder.identity_of(NodeRole::Agent)?);
    let (journal, incarnation) = folder.journal()?;
    let metrics = Arc::new(Metrics::new(identity.node()));
    let status = Status::bind(metrics.clone(), metrics.clone(), settings.common.status).await?;
    let seat = Seat {
        platform: Os::new(),
        timers: settings.common.timers.clone(),
        network: TransportConfig {
            identity: identity.clone(),
            incarnation,
            listen: None,
            advertise: None,
            addresses: folder.managers()?,
            limits: Limits::usual(),
            jitter: Os::new().rng(),
        },
        observer: observer(
            metrics.clone(),
            &settings.common,
            identity.node(),
            incarnation,
        )?,
    };
    let parts = AgentParts {
        resources: settings.resources,
        labels: settings.labels,
        runtime,
    };
    let upkeep = async {
        let transport = metrics.transport().await;
        let renewal = Renewal {
            folder: folder.clone(),
            source: Source::Managers,
            identity,
            transport: transport.clone(),
            tls: None,
        };
        tokio::join!(renewal.run(), keep_addresses(folder.clone(), transport));
    };
    let beside = async { tokio::join!(upkeep, status.serve()) };
    let ended = tokio::select! {
        biased;
        ended = run_agent(seat, journal, parts, stop) => ended,
        _ = beside => Ok(()),
    };
    ended.map_err(ServeError::Node)
}
