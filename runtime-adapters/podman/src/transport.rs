//! One HTTP exchange with the service: connect, ask, take the answer within limits.
//!
//! Every call has a connection of its own. Dropping a call closes it, which is how Podman is told
//! to give up a pull, and no call waits behind another. Deadlines are not here: `runtime` has them.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::buffers::{Frame, Frames, Lines, TooLong};
use crate::config::Endpoint;
use crate::error::{Error, Result};

/// The longest JSON answer that is read: 20,000 containers with 1 KiB each, and then some.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// The longest error answer that is read.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// The oldest API that the adapter asks for; Podman 4 and 5 both speak it.
const API: &str = "/v4.0.0/libpod";

/// How often a question is asked whose answer Podman stumbles over, and how long is waited before
/// it is asked again: what changes under Podman's hands takes milliseconds.
const ASKED_MAX: u32 = 100;
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// How often one question was asked.
#[derive(Default)]
pub(crate) struct Patience(u32);

impl Patience {
    /// Says whether to ask again, and waits until it is time to.
    pub(crate) async fn outlasts(&mut self, error: &Error) -> bool {
        self.0 += 1;
        let again = error.is_passing() && self.0 < ASKED_MAX;
        if again {
            sleep(ASK_AGAIN_AFTER).await;
        }
        again
    }
}

/// One request.
#[derive(Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    query: String,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
    /// Whether it may be sent a second time.
    is_repeatable: bool,
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Call {
            is_repeatable: method == Method::GET,
            method,
            path: path.into(),
            query: String::new(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// `path` begins after `/libpod`. What it names must be fit for a URL as it is: names of
    /// containers and references of images are.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Call::new(Method::GET, path)
    }

    pub(crate) fn post(path: impl Into<String>) -> Self {
        Call::new(Method::POST, path)
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Call::new(Method::DELETE, path)
    }

    /// Lets it be sent again where Podman only stumbled, although it changes something.
    pub(crate) fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }

    pub(crate) fn query(mut self, key: &str, value: &str) -> Self {
        let mut pairs = form_urlencoded::Serializer::for_suffix(self.query, 0);
        pairs.append_pair(key, value);
        self.query = pairs.finish();
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self> {
        let encoded = serde_json::to_vec(body).map_err(|error| Error::Malformed {
            call: self.name(),
            problem: format!("the request cannot be written: {error}"),
        })?;
        self.body = Bytes::from(encoded);
        Ok(self.header(header::CONTENT_TYPE, "application/json".to_owned()))
    }

    /// The call as errors name it.
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn into_request(self) -> Result<Request<Full<Bytes>>> {
        let call = self.name();
        let mut target = format!("{API}{}", self.path);
        if !self.query.is_empty() {
            target = target + "?" + &self.query;
        }
        let mut request = Request::builder()
            .method(self.method)
            .uri(target)
            .header(header::HOST, "podman");
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let problem = |error: http::Error| Error::Malformed {
            call,
            problem: format!("the request cannot be written: {error}"),
        };
        request.body(Full::new(self.body)).map_err(problem)
    }
}

/// A way to the service.
pub(crate) struct Client {
    endpoint: Endpoint,
    /// Whether the other end's process ids mean something here; known after the first connection.
    shares_processes: OnceLock<bool>,
}

impl Client {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Client {
            endpoint,
            shares_processes: OnceLock::new(),
        }
    }

    /// True if the service is at the other end of a Unix socket, in a process that can be seen
    /// from here. The kernel shows a process of a foreign pid namespace as pid 0.
    pub(crate) fn shares_processes(&self) -> bool {
        self.shares_processes.get().copied().unwrap_or(false)
    }

    /// Asks and takes the head of the answer. A status other than 2xx is [`Error::Refused`]. What
    /// may be repeated is, while Podman only stumbles.
    pub(crate) async fn send(&self, call: Call) -> Result<Reply> {
        let mut patience = Patience::default();
        loop {
            match self.send_once(call.clone()).await {
                Err(error) if call.is_repeatable && patience.outlasts(&error).await => {}
                answer => return answer,
            }
        }
    }

    /// Asks for a listing. What vanishes while Podman lists makes the whole listing fail
    /// (containers/podman#17341): it is asked for again.
    pub(crate) async fn listing<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        let mut tries = 1;
        loop {
            match self.send(call.clone()).await {
                Ok(reply) => return reply.json().await,
                Err(error) if has_vanished(&error) && tries < ASKED_MAX => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn send_once(&self, call: Call) -> Result<Reply> {
        let name = call.name();
        let request = call.into_request()?;
        let unreachable = |source| Error::Connect {
            endpoint: self.endpoint.to_string(),
            source,
        };
        let reply = match &self.endpoint {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(unreachable)?;
                self.note_peer(&stream);
                exchange(name, stream, request).await?
            }
            Endpoint::Tcp(host) => {
                let stream = TcpStream::connect(host).await.map_err(unreachable)?;
                exchange(name, stream, request).await?
            }
        };
        reply.accepted().await
    }

    fn note_peer(&self, stream: &UnixStream) {
        if let Ok(peer) = stream.peer_cred() {
            let visible = peer.pid().is_some_and(|pid| pid > 0);
            self.shares_processes.get_or_init(|| visible);
        }
    }
}

fn has_vanished(error: &Error) -> bool {
    error.is_not_found() || error.says("layer not known")
}

async fn exchange(
    call: String,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Reply> {
    let broken = |source| Error::Connection {
        call: call.clone(),
        source,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // How the connection ended is seen by whoever reads the answer.
    let task = tokio::spawn(async move {
        let _ = connection.await;
    });
    let driver = Driver(task.abort_handle());
    let answer = sender.send_request(request).await.map_err(broken)?;
    let (head, body) = answer.into_parts();
    Ok(Reply {
        call,
        status: head.status,
        body,
        _driver: driver,
    })
}

/// Ends the task that moves a connection's bytes, and with it the connection.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer whose body is still to be read. Dropping it closes the connection.
pub(crate) struct Reply {
    call: String,
    status: StatusCode,
    body: Incoming,
    _driver: Driver,
}

impl Reply {
    async fn accepted(self) -> Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        let (call, status) = (self.call.clone(), self.status.as_u16());
        let body = self.bytes(REFUSAL_BYTES_MAX).await?;
        Err(refusal(call, status, &body))
    }

    /// The next piece of the body. Cancel-safe.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|source| Error::Connection {
                call: self.call.clone(),
                source,
            })?;
            // Anything but data is a trailer, of which the API has none.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The whole body, if it is not longer than `bytes_max`.
    pub(crate) async fn bytes(mut self, bytes_max: usize) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > bytes_max {
                return Err(Error::TooLarge {
                    call: self.call,
                    bytes_max,
                });
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    /// The whole body as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T> {
        let call = self.call.clone();
        let body = self.bytes(ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&body).map_err(|error| Error::Malformed {
            call,
            problem: format!("the answer is not as promised: {error}"),
        })
    }

    /// Reads the body to its end and forgets it.
    pub(crate) async fn done(self) -> Result<()> {
        self.bytes(ANSWER_BYTES_MAX).await.map(|_| ())
    }

    /// The body as lines.
    pub(crate) fn lines(self) -> LineReader {
        LineReader {
            reply: self,
            lines: Lines::default(),
        }
    }

    /// The body as frames of two outputs.
    pub(crate) fn frames(self) -> FrameReader {
        FrameReader {
            reply: self,
            frames: Frames::default(),
        }
    }
}

/// What went wrong after the service had promised that nothing would: it says so within the body,
/// in the words of a refusal.
pub(crate) fn late_refusal(call: &str, line: &[u8]) -> Option<Error> {
    #[derive(serde::Deserialize)]
    struct Late {
        response: u16,
    }
    let late: Late = serde_json::from_slice(line).ok()?;
    Some(refusal(call.to_owned(), late.response, line))
}

/// The service's own words, if they are there.
fn refusal(call: String, status: u16, body: &[u8]) -> Error {
    #[derive(serde::Deserialize)]
    struct Words {
        #[serde(default)]
        cause: String,
        #[serde(default)]
        message: String,
    }
    let words = serde_json::from_slice(body).unwrap_or_else(|_| Words {
        cause: String::new(),
        message: String::from_utf8_lossy(body).trim().to_owned(),
    });
    Error::Refused {
        call,
        status,
        message: match words.message.is_empty() {
            true => format!("the service answered {status}"),
            false => words.message,
        },
        cause: words.cause,
    }
}

fn too_long(call: &str, limit: TooLong) -> Error {
    Error::Malformed {
        call: call.to_owned(),
        problem: limit.to_string(),
    }
}

/// A body of lines, of which the last may lack its end.
pub(crate) struct LineReader {
    reply: Reply,
    lines: Lines,
}

impl LineReader {
    /// The next line without its end, `None` after the last. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(line) = self.lines.pop() {
                return Ok(Some(line));
            }
            let Some(chunk) = self.reply.chunk().await? else {
                return Ok(self.lines.rest());
            };
            let pushed = self.lines.push(&chunk);
            pushed.map_err(|limit| too_long(&self.reply.call, limit))?;
        }
    }
}

/// A body of frames.
pub(crate) struct FrameReader {
    reply: Reply,
    frames: Frames,
}

impl FrameReader {
    /// The next frame, `None` after the last. A body that ends within a frame is an error.
    /// Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            let popped = self.frames.pop();
            if let Some(frame) = popped.map_err(|limit| too_long(&self.reply.call, limit))? {
                return Ok(Some(frame));
            }
            match self.reply.chunk().await? {
                Some(chunk) => self.frames.push(&chunk),
                None if self.frames.is_empty() => return Ok(None),
                None => {
                    return Err(Error::Malformed {
                        call: self.reply.call.clone(),
                        problem: "the answer ends within a frame".to_owned(),
                    });
                }
            }
        }
    }
}
