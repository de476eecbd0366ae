//! What can go wrong between us and a registry, and the port's class for it.

use std::time::Duration;

use http::StatusCode;
use wavetank_port::{ErrorClass, RuntimeError};

/// What a call of this crate answers.
pub type Result<T, E = DistributionError> = std::result::Result<T, E>;

/// A failed call. `what` is the thing that was asked for, as a person would name it.
#[derive(Debug, thiserror::Error)]
pub enum DistributionError {
    /// The text names no image.
    #[error("`{text}` is not the name of an image")]
    Reference {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: oci_spec::distribution::ParseError,
    },
    /// The registry sent nothing for too long.
    #[error("{what}: nothing came for {idle:?}")]
    Silent {
        /// What was asked for.
        what: String,
        /// How long we waited.
        idle: Duration,
    },
    /// No connection, or it broke.
    #[error("{what}: the connection failed")]
    Connection {
        /// What was asked for.
        what: String,
        /// Why, in hyper's words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry refused or failed.
    #[error("{what}: the registry answered {status}{}", colon(.message))]
    Status {
        /// What was asked for.
        what: String,
        /// Its answer.
        status: StatusCode,
        /// The first line of its reason, may be empty.
        message: String,
    },
    /// An answer that breaks the protocol: not JSON, a wrong length, a redirect to nowhere.
    #[error("{what}: {problem}")]
    Malformed {
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// More bytes than allowed or announced.
    #[error("{what}: more than {bytes_max} bytes")]
    TooLarge {
        /// What was asked for.
        what: String,
        /// The limit.
        bytes_max: u64,
    },
    /// The content is not what its digest says.
    #[error("{what}: the content's digest is {found}")]
    Digest {
        /// What was asked for, with the digest it should have.
        what: String,
        /// The digest of what came.
        found: String,
    },
    /// The image exists, but not for this machine.
    #[error("{what}: no image for {platform}")]
    Platform {
        /// What was asked for.
        what: String,
        /// This machine.
        platform: String,
    },
}

impl DistributionError {
    /// The port's class.
    pub fn class(&self) -> ErrorClass {
        match self {
            DistributionError::Reference { .. } => ErrorClass::InvalidArgument,
            DistributionError::Platform { .. } => ErrorClass::NotFound,
            DistributionError::Status { status, .. } => class_of_status(*status),
            DistributionError::Silent { .. }
            | DistributionError::Connection { .. }
            | DistributionError::Malformed { .. }
            | DistributionError::TooLarge { .. }
            | DistributionError::Digest { .. } => ErrorClass::Unavailable,
        }
    }
}

/// The class of a status that is no success.
fn class_of_status(status: StatusCode) -> ErrorClass {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorClass::Unauthenticated,
        StatusCode::NOT_FOUND | StatusCode::GONE => ErrorClass::NotFound,
        StatusCode::TOO_MANY_REQUESTS => ErrorClass::ResourceExhausted,
        StatusCode::BAD_REQUEST => ErrorClass::InvalidArgument,
        // Another 4xx is about us, not about the registry's health: a retry would not help.
        status if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT => {
            ErrorClass::Unknown
        }
        _ => ErrorClass::Unavailable,
    }
}

impl From<DistributionError> for RuntimeError {
    fn from(error: DistributionError) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        RuntimeError::new(error.class(), message)
    }
}

fn colon(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use wavetank_port::ErrorClass;

    use super::class_of_status;

    #[test]
    fn a_status_has_one_class() {
        let table = [
            (400, ErrorClass::InvalidArgument),
            (401, ErrorClass::Unauthenticated),
            (403, ErrorClass::Unauthenticated),
            (404, ErrorClass::NotFound),
            (406, ErrorClass::Unknown),
            (408, ErrorClass::Unavailable),
            (410, ErrorClass::NotFound),
            (429, ErrorClass::ResourceExhausted),
            (500, ErrorClass::Unavailable),
            (503, ErrorClass::Unavailable),
            // Neither success nor failure, for example a redirect without a target.
            (304, ErrorClass::Unavailable),
        ];
        for (code, class) in table {
            let status = StatusCode::from_u16(code).expect("a status code");
            assert_eq!(class_of_status(status), class, "{code}");
        }
    }
}
