//! HTTP to whichever manager answers, over mutual TLS. Every request may be repeated: what it asks
//! for is a state, not a step. So when a manager does not answer, the next one is asked.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wavetank_model::NodeId;

use super::CtlError;
use crate::api::views::Refusal;
use crate::identity::{Identity, IdentityError, WallClock, name_of, operator};
use crate::os::Os;
use crate::serve::chain;

/// Until a manager has been reached and knows who asks.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Until it has answered: longer than it waits for the others itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);
/// Larger than any answer about a cluster that a manager can hold.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// How often all managers are asked again when none answers: an election takes a moment.
const ROUNDS: usize = 3;
const BETWEEN_ROUNDS: Duration = Duration::from_secs(1);

/// What a manager made of a request.
enum Answer<T> {
    Granted(T),
    Refused(StatusCode, Bytes),
}

/// Knows the managers and who asks them.
#[derive(Clone)]
pub(super) struct Client {
    tls: TlsConnector,
    addresses: Vec<String>,
}

impl Client {
    pub fn new(identity: &Identity, addresses: Vec<String>) -> Result<Self, IdentityError> {
        let config = operator(identity, Arc::new(WallClock(Os::new())))?;
        Ok(Client {
            tls: TlsConnector::from(config),
            addresses,
        })
    }

    /// Reads something.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CtlError> {
        self.call(Method::GET, path, None::<&()>).await
    }

    /// Asks for something.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, CtlError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| usage(&error))?,
            None => Vec::new(),
        };
        let request = Asked {
            method,
            path: path.to_owned(),
            body: body.into(),
        };
        let exchange = async |address: &str| self.exchange(address, &request).await;
        match self.any(exchange).await? {
            Answer::Granted(body) => serde_json::from_slice(&body).map_err(|error| {
                CtlError::Unreachable(format!("the manager's answer cannot be read: {error}"))
            }),
            Answer::Refused(status, body) => Err(refusal(status, &body)),
        }
    }

    /// Lines of an answer that goes on.
    pub async fn lines(&self, path: &str) -> Result<Lines, CtlError> {
        let request = Asked {
            method: Method::GET,
            path: path.to_owned(),
            body: Bytes::new(),
        };
        let begin = async |address: &str| self.begin(address, &request).await;
        match self.any(begin).await? {
            Answer::Granted(body) => Ok(Lines {
                body,
                rest: Vec::new(),
            }),
            Answer::Refused(status, body) => Err(refusal(status, &body)),
        }
    }

    /// Asks one manager after the other until one can answer, and all of them again for a while.
    async fn any<T>(
        &self,
        ask: impl AsyncFn(&str) -> io::Result<Answer<T>>,
    ) -> Result<Answer<T>, CtlError> {
        let mut complaints = Vec::new();
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(BETWEEN_ROUNDS).await;
            }
            complaints.clear();
            for address in &self.addresses {
                match ask(address).await {
                    Ok(Answer::Refused(StatusCode::SERVICE_UNAVAILABLE, body)) => {
                        let said = refusal(StatusCode::SERVICE_UNAVAILABLE, &body);
                        complaints.push(format!("{address}: {said}"));
                    }
                    Ok(answer) => return Ok(answer),
                    Err(error) => complaints.push(format!("{address}: {error}")),
                }
            }
        }
        Err(CtlError::Unreachable(nobody(&complaints)))
    }

    /// The beginning of an answer that goes on.
    async fn begin(&self, address: &str, request: &Asked) -> io::Result<Answer<Incoming>> {
        let begin = async {
            let response = self.send(address, request).await?;
            match response.status().is_success() {
                true => Ok(Answer::Granted(response.into_body())),
                false => Ok(Answer::Refused(response.status(), whole(response).await?)),
            }
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, begin).await;
        answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn exchange(&self, address: &str, request: &Asked) -> io::Result<Answer<Bytes>> {
        let exchange = async {
            let response = self.send(address, request).await?;
            let status = response.status();
            let body = whole(response).await?;
            Ok(match status.is_success() {
                true => Answer::Granted(body),
                false => Answer::Refused(status, body),
            })
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await;
        answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Sends a request over a connection of its own.
    async fn send(&self, address: &str, asked: &Asked) -> io::Result<Response<Incoming>> {
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            // Which manager it is does not matter; that it is one is checked.
            let name =
                ServerName::try_from(name_of(NodeId::manager(1))).map_err(io::Error::other)?;
            self.tls.connect(name, stream).await
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        let (mut sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        // It ends with the response's body.
        tokio::spawn(connection);
        let request = asked.request(address)?;
        sender.send_request(request).await.map_err(io::Error::other)
    }
}

/// A request before it is sent, as often as that takes.
struct Asked {
    method: Method,
    path: String,
    body: Bytes,
}

impl Asked {
    fn request(&self, address: &str) -> io::Result<Request<Full<Bytes>>> {
        Request::builder()
            .method(self.method.clone())
            .uri(&self.path)
            .header(header::HOST, address)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(self.body.clone()))
            .map_err(io::Error::other)
    }
}

/// An answer that goes on, line by line.
pub(super) struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// The next line that is not empty; nothing once the manager ends it.
    pub async fn next(&mut self) -> Result<Option<String>, CtlError> {
        loop {
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if !line.trim().is_empty() {
                    return Ok(Some(line.trim().to_owned()));
                }
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => {
                    let why = format!("the manager that was asked is gone: {}", chain(&error));
                    return Err(CtlError::Unreachable(why));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

async fn whole(response: Response<Incoming>) -> io::Result<Bytes> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let body = body.collect().await.map_err(io::Error::other)?;
    Ok(body.to_bytes())
}

fn refusal(status: StatusCode, body: &[u8]) -> CtlError {
    let message = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.message,
        Err(_) => format!("the manager answered {status}"),
    };
    match status {
        StatusCode::GATEWAY_TIMEOUT | StatusCode::SERVICE_UNAVAILABLE => {
            CtlError::Unreachable(message)
        }
        _ => CtlError::Refused(message),
    }
}

fn nobody(complaints: &[String]) -> String {
    format!("no manager answers: {}", complaints.join("; "))
}

fn usage(error: &dyn Display) -> CtlError {
    CtlError::Usage(error.to_string())
}

/// A text as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    escape(text, |byte| {
        byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)
    })
}

/// A text as several segments.
pub(super) fn path(text: &str) -> String {
    escape(text, |byte| {
        byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte)
    })
}

fn escape(text: &str, plain: impl Fn(u8) -> bool) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match plain(byte) {
            true => escaped.push(char::from(byte)),
            false => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_name_holds_it_stays_one_segment() {
        assert_eq!(segment("web-1"), "web-1");
        assert_eq!(segment("a/b?c#d e%é"), "a%2Fb%3Fc%23d%20e%25%C3%A9");
        assert_eq!(path("a/b c"), "a/b%20c");
    }
}
