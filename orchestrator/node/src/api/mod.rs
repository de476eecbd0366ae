//! A manager's HTTP API, for operators and their tools. Every request becomes one operation that
//! a client's process asks of the managers; nothing is decided or remembered here.
//!
//! Map: `manifest` (services as people write them), `views` (answers), `errors`, `routes` (one
//! function per operation), `logs` (of tasks), `watch` (changes as they happen), `server`
//! (connections, TLS, limits), `status` (health and metrics, on loopback, for machines).

mod errors;
pub mod logs;
pub mod manifest;
pub mod metrics;
mod routes;
mod server;
pub mod status;
pub mod views;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use wavetank_model::{NodeId, NodeRole, Operation, OperationError, Outcome};

use crate::driver::{Gone, Submitter};
use crate::identity::Token;

pub use errors::ApiError;
pub use server::{ApiLimits, ApiServer};

/// Whoever can ask the managers.
#[async_trait]
pub trait Submit: Send + Sync + 'static {
    /// Asks, and waits for the answer. Whoever stops waiting gives the request up.
    async fn submit(&self, operation: Operation) -> Result<Result<Outcome, OperationError>, Gone>;
}

#[async_trait]
impl Submit for Submitter {
    async fn submit(&self, operation: Operation) -> Result<Result<Outcome, OperationError>, Gone> {
        Submitter::submit(self, operation).await
    }
}

/// Makes join tokens and tells the time. What a token is made from is the machine's business.
pub trait Mint: Send + Sync + 'static {
    /// A new token for this cluster.
    fn token(&self) -> Token;
    /// The wall clock.
    fn now(&self) -> wavetank_port::WallTime;
}

/// What the API works with.
#[derive(Clone)]
pub struct Api {
    /// Asks the managers.
    pub managers: Arc<dyn Submit>,
    /// Makes tokens.
    pub mint: Arc<dyn Mint>,
    /// Asks agents for logs.
    pub logs: logs::Logs,
    /// Longest a request may take; also how long the managers are waited for.
    pub timeout: Duration,
    /// Largest body, in bytes.
    pub body_bytes_max: usize,
    /// Requests that are worked on at once.
    pub requests_max: usize,
    /// Between two looks at the cluster while somebody watches it.
    pub watch_every: Duration,
}

impl Api {
    /// Asks the managers for something.
    async fn ask(&self, operation: Operation) -> Result<Outcome, ApiError> {
        let is_change = !operation.is_read();
        let answer = tokio::time::timeout(self.timeout, self.managers.submit(operation)).await;
        let answer = answer.map_err(|_| ApiError::timeout(is_change))?;
        let answer = answer.map_err(|gone| ApiError::unavailable(gone.to_string()))?;
        answer.map_err(ApiError::from)
    }

    /// All routes. A request without a [`Caller`] extension is refused.
    pub fn router(self) -> Router {
        let (body_bytes_max, requests_max) = (self.body_bytes_max, self.requests_max);
        let gate = Gate {
            free: Arc::new(Semaphore::new(requests_max)),
            timeout: self.timeout * 2,
            body_timeout: self.timeout / 4,
            body_bytes_max,
        };
        let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
            .nest("/v1", routes::all())
            .split_for_parts();
        let document = Arc::new(document);
        router
            .route(
                "/openapi.json",
                get(move || async move { Json((*document).clone()) }),
            )
            .fallback(async || ApiError::not_found("there is nothing here; see /openapi.json"))
            .method_not_allowed_fallback(async || {
                let why = "this method does not go with this path; see /openapi.json";
                ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method", why)
            })
            .layer(DefaultBodyLimit::max(body_bytes_max))
            .layer(middleware::from_fn_with_state(gate, Gate::pass))
            .with_state(self)
    }
}

#[derive(OpenApi)]
#[openapi(info(
    title = "wavetank",
    description = "A manager's API. Callers show a certificate of the cluster's authority."
))]
struct Document;

/// Who asks: the node that the caller's certificate names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller(pub NodeId);

/// Lets in who may, as many as fit, for as long as they may take.
#[derive(Clone)]
struct Gate {
    free: Arc<Semaphore>,
    timeout: Duration,
    /// Longest that a body may take to arrive.
    body_timeout: Duration,
    body_bytes_max: usize,
}

impl Gate {
    async fn pass(
        State(gate): State<Gate>,
        caller: Option<Extension<Caller>>,
        request: Request,
        next: Next,
    ) -> Response {
        let caller = caller.map(|Extension(caller)| caller);
        if let Err(refusal) = may(caller, request.method(), request.uri().path()) {
            return refusal.into_response();
        }
        // First: whoever is slow to say what he wants is in nobody's way.
        let request = match gate.whole(request).await {
            Ok(request) => request,
            Err(refusal) => return refusal.into_response(),
        };
        let Ok(_permit) = gate.free.try_acquire() else {
            return ApiError::unavailable("too many requests at once").into_response();
        };
        let is_change = request.method() != Method::GET;
        match tokio::time::timeout(gate.timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => ApiError::timeout(is_change).into_response(),
        }
    }
}

impl Gate {
    /// The request once all of it has arrived.
    async fn whole(&self, request: Request) -> Result<Request, ApiError> {
        let too_large = || ApiError::too_large(self.body_bytes_max);
        if promised(&request).is_some_and(|bytes| bytes > self.body_bytes_max as u64) {
            return Err(too_large());
        }
        let (head, body) = request.into_parts();
        let body = Limited::new(body, self.body_bytes_max).collect();
        let Ok(body) = tokio::time::timeout(self.body_timeout, body).await else {
            let why = "the body does not arrive";
            return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", why));
        };
        match body {
            Ok(body) => Ok(Request::from_parts(head, Body::from(body.to_bytes()))),
            Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
            Err(error) => Err(ApiError::malformed(format!("the body breaks off: {error}"))),
        }
    }
}

/// How long the body is going to be, if the caller says so. Only a promise: what comes is counted.
fn promised(request: &Request) -> Option<u64> {
    let length = request.headers().get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// An agent runs what others wrote; whoever takes one over must not own the cluster, nor read
/// what others have put into its store.
fn may(caller: Option<Caller>, method: &Method, path: &str) -> Result<(), ApiError> {
    let forbidden = |why: &str| ApiError::new(StatusCode::FORBIDDEN, "forbidden", why);
    match caller {
        None => Err(forbidden("show a certificate of the cluster's authority")),
        Some(Caller(node)) if node.role == NodeRole::Agent && method != Method::GET => {
            Err(forbidden("agents may look at the cluster, not change it"))
        }
        Some(Caller(node)) if node.role == NodeRole::Agent && path.starts_with("/v1/keys") => {
            Err(forbidden("agents may not read keys"))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
