//! Refusals: one shape for whatever goes wrong, and a status that means it.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use wavetank_model::OperationError;

use super::manifest::ManifestError;
use super::views::Refusal;

/// A request that was not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            status,
            kind,
            message: message.into(),
        }
    }

    /// The request makes no sense as it is.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    /// The body is longer than any that makes sense.
    pub(super) fn too_large(bytes_max: usize) -> Self {
        let message = format!("a body may have {bytes_max} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
    }

    /// There is no such thing.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    /// This manager is on its way out, or does too much already.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// The managers did not answer in time.
    pub(super) fn timeout(is_change: bool) -> Self {
        let message = match is_change {
            true => "the managers did not answer in time; the change may still take effect",
            false => "the managers did not answer in time: perhaps too few of them are up to lead",
        };
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
    }

    /// The managers gave an answer to something else.
    pub(super) fn nonsense() -> Self {
        let message = "the managers gave an answer that makes no sense";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "unavailable", message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Refusal {
            error: self.kind.to_owned(),
            message: self.message,
        };
        (self.status, Json(body)).into_response()
    }
}

impl From<OperationError> for ApiError {
    fn from(error: OperationError) -> Self {
        let message = error.to_string();
        match error {
            OperationError::NotFound { .. } => ApiError::not_found(message),
            OperationError::Invalid { .. } => {
                ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message)
            }
            OperationError::Fenced { .. } => ApiError::new(StatusCode::CONFLICT, "fenced", message),
        }
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        let status = rejection.status();
        let kind = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "too-large",
            _ => "malformed",
        };
        ApiError::new(status, kind, rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        ApiError::malformed(rejection.body_text())
    }
}

impl From<ManifestError> for ApiError {
    fn from(error: ManifestError) -> Self {
        ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            error.to_string(),
        )
    }
}
