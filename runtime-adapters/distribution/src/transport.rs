//! One GET: connection, redirects, the limit on silence, status codes, bodies with a limit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, LOCATION, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;

use crate::error::{DistributionError, Result};
use crate::registries::Registries;

/// Registries send blobs from a storage service: one redirect, sometimes two.
const REDIRECTS_MAX: usize = 5;
/// What is read of an error page.
const MESSAGE_BYTES_MAX: u64 = 16 << 10;
/// What is shown of an error page.
const MESSAGE_CHARS_MAX: usize = 300;

/// The connections of one pull. They are closed when it ends, so that no pull meets a connection
/// that died since the one before.
pub(crate) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    registries: Arc<Registries>,
}

impl Transport {
    pub(crate) fn new(registries: Arc<Registries>, tls: rustls::ClientConfig) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(registries.idle_timeout));
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Transport {
            client: Client::builder(TokioExecutor::new()).build(connector),
            registries,
        }
    }

    pub(crate) fn registries(&self) -> &Registries {
        &self.registries
    }

    /// Sends a GET and follows redirects. The answer's status may be anything but a redirect.
    pub(crate) async fn get(
        &self,
        what: &str,
        uri: &Uri,
        accept: &'static str,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>> {
        let mut uri = uri.clone();
        let mut authorization = authorization;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.send(what, &uri, accept, authorization).await?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let target = self.redirect_target(what, &uri, &response)?;
            // A secret is for the host that asked for it, not for where it sends us.
            if target.authority() != uri.authority() || target.scheme() != uri.scheme() {
                authorization = None;
            }
            uri = target;
        }
        Err(malformed(what, "too many redirects"))
    }

    async fn send(
        &self,
        what: &str,
        uri: &Uri,
        accept: &'static str,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::get(uri.clone())
            .header(USER_AGENT, concat!("wavetank/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, accept);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| malformed(what, error.to_string()))?;
        let idle = self.registries.idle_timeout;
        match tokio::time::timeout(idle, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(connection(what, error)),
            Err(_) => Err(silent(what, idle)),
        }
    }

    fn redirect_target(
        &self,
        what: &str,
        from: &Uri,
        response: &Response<Incoming>,
    ) -> Result<Uri> {
        let target = response.headers().get(LOCATION).and_then(|location| {
            let location: Uri = location.to_str().ok()?.parse().ok()?;
            let mut parts = location.into_parts();
            parts.scheme = parts.scheme.or_else(|| from.scheme().cloned());
            parts.authority = parts.authority.or_else(|| from.authority().cloned());
            Uri::from_parts(parts).ok()
        });
        let target = target.ok_or_else(|| malformed(what, "a redirect without a target"))?;
        self.check_scheme(what, &target)?;
        Ok(target)
    }

    /// Refuses to be sent to plain HTTP on a host for which nobody allowed it.
    pub(crate) fn check_scheme(&self, what: &str, uri: &Uri) -> Result<()> {
        let host = uri.authority().map_or("", |it| it.as_str());
        match uri.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if self.registries.is_plain_http(host) => Ok(()),
            _ => Err(malformed(what, format!("it was sent on to `{uri}`"))),
        }
    }

    /// The next piece of a body, `None` at its end. Cancel-safe.
    pub(crate) async fn frame(
        what: &str,
        idle: Duration,
        body: &mut Incoming,
    ) -> Result<Option<Bytes>> {
        loop {
            let frame = tokio::time::timeout(idle, body.frame()).await;
            match frame.map_err(|_| silent(what, idle))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(connection(what, error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    // Trailers and empty pieces say nothing to us.
                    _ => {}
                },
            }
        }
    }

    /// A whole body of at most `bytes_max` bytes.
    pub(crate) async fn read(
        &self,
        what: &str,
        mut body: Incoming,
        bytes_max: u64,
    ) -> Result<Vec<u8>> {
        let too_large = || DistributionError::TooLarge {
            what: what.to_owned(),
            bytes_max,
        };
        if body.size_hint().lower() > bytes_max {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        while let Some(piece) = Self::frame(what, self.registries.idle_timeout, &mut body).await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > bytes_max {
                return Err(too_large());
            }
        }
        Ok(bytes)
    }

    /// The answer if it is 200; its status and reason as an error if it is not.
    pub(crate) async fn success(
        &self,
        what: &str,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>> {
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        // The reason is a courtesy: without it the status still says enough.
        let page = self.read(what, response.into_body(), MESSAGE_BYTES_MAX);
        let page = page.await.unwrap_or_default();
        Err(DistributionError::Status {
            what: what.to_owned(),
            status,
            message: message(&page),
        })
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The reason in an error page: the specification's `errors[].message`, else its first line.
fn message(page: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Page {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Page>(page) {
        Ok(page) => page
            .errors
            .first()
            .map_or(String::new(), |it| format!("{} {}", it.code, it.message)),
        Err(_) => String::from_utf8_lossy(page).into_owned(),
    };
    let line = text.trim().lines().next().unwrap_or_default();
    let printable = line.chars().filter(|c| !c.is_control());
    printable.take(MESSAGE_CHARS_MAX).collect()
}

pub(crate) fn malformed(what: &str, problem: impl Into<String>) -> DistributionError {
    DistributionError::Malformed {
        what: what.to_owned(),
        problem: problem.into(),
    }
}

fn connection(
    what: &str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> DistributionError {
    DistributionError::Connection {
        what: what.to_owned(),
        source: error.into(),
    }
}

fn silent(what: &str, idle: Duration) -> DistributionError {
    DistributionError::Silent {
        what: what.to_owned(),
        idle,
    }
}

#[cfg(test)]
mod tests {
    use super::message;

    #[test]
    fn the_reason_is_the_registrys_own() {
        let page = br#"{"errors":[{"code":"DENIED","message":"not for you","detail":null}]}"#;
        assert_eq!(message(page), "DENIED not for you");
        assert_eq!(message(b"\n busy \x1b[31m\r\nsecond line"), "busy [31m");
        assert_eq!(message(br#"{"errors":[]}"#), "");
        assert_eq!(message("x".repeat(9_999).as_bytes()).len(), 300);
    }
}
