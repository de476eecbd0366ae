//! How a node does, for the machine it runs on: `/healthz` (it runs), `/readyz` (it can do its
//! work), `/metrics` (Prometheus). Plain HTTP on loopback; it reveals nothing that is secret and
//! changes nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::metrics::Metrics;
use crate::serve::ServeError;

/// Prometheus's text format, as its client library writes it.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Longest that somebody who asks for readiness waits.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// Who may wait for it at once: each may cost the cluster a question.
const READY_MAX: usize = 4;

/// Whether a node can do its work.
#[async_trait]
pub trait Readiness: Send + Sync + 'static {
    /// Why not, if it cannot. May take long: callers bound it.
    async fn ready(&self) -> Result<(), String>;
}

/// The listener.
pub struct Status {
    listener: TcpListener,
    answers: Answers,
}

/// What is answered.
#[derive(Clone)]
struct Answers {
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
    free: Arc<Semaphore>,
}

impl Status {
    /// Listens.
    pub async fn bind(
        metrics: Arc<Metrics>,
        readiness: Arc<dyn Readiness>,
        at: SocketAddr,
    ) -> Result<Self, ServeError> {
        let listener = TcpListener::bind(at).await;
        let listener = listener.map_err(|source| ServeError::Listen {
            address: at.to_string(),
            source,
        })?;
        let answers = Answers {
            metrics,
            readiness,
            free: Arc::new(Semaphore::new(READY_MAX)),
        };
        Ok(Status { listener, answers })
    }

    /// Answers for as long as the node runs.
    pub async fn serve(self) {
        if let Err(error) = axum::serve(self.listener, router(self.answers)).await {
            tracing::warn!(%error, "nobody can be told any more how this node does");
        }
    }
}

/// All routes.
fn router(answers: Answers) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(answers)
}

async fn ready(State(answers): State<Answers>) -> Response {
    match answers.ready().await {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
    }
}

impl Answers {
    async fn ready(&self) -> Result<(), String> {
        let free = self.free.try_acquire();
        let _permit = free.map_err(|_| "too many ask at once".to_owned())?;
        let ready = tokio::time::timeout(READY_TIMEOUT, self.readiness.ready()).await;
        ready.unwrap_or_else(|_| Err("the managers do not answer".to_owned()))
    }
}

async fn metrics_text(State(answers): State<Answers>) -> Response {
    match answers.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
