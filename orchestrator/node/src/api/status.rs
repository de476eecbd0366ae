//! How a node does, for the machine it runs on: `/healthz` (it runs), `/readyz` (it can do its
//! work), `/metrics` (Prometheus). Plain HTTP on loopback; it reveals nothing that is secret and
//! changes nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use tokio::net::TcpListener;

use super::metrics::Metrics;
use crate::serve::ServeError;

/// Prometheus's text format, as its client library writes it.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The listener.
pub struct Status {
    listener: TcpListener,
    metrics: Arc<Metrics>,
}

impl Status {
    /// Listens.
    pub async fn bind(metrics: Arc<Metrics>, at: SocketAddr) -> Result<Self, ServeError> {
        let listener = TcpListener::bind(at).await;
        let listener = listener.map_err(|source| ServeError::Listen {
            address: at.to_string(),
            source,
        })?;
        Ok(Status { listener, metrics })
    }

    /// Answers for as long as the node runs.
    pub async fn serve(self) {
        if let Err(error) = axum::serve(self.listener, router(self.metrics)).await {
            tracing::warn!(%error, "nobody can be told any more how this node does");
        }
    }
}

/// All routes.
fn router(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(metrics)
}

async fn ready(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.readiness() {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
    }
}

async fn metrics_text(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
