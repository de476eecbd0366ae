//! A daemon that breaks the protocol: every call answers with a typed error, in time, without
//! taking more memory than is allowed.
//!
//! The daemon here is an HTTP/2 server that answers every method with the same bytes.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;
use wavetank_port::{
    ContainerId, ContainerRuntime, ContainerSpec, ErrorClass, ExecRequest, ImageReference, Limits,
    ListFilter, LogOptions, Network, PullPolicy, PullRequest, RuntimeError, Signal,
};

use crate::{Containerd, ContainerdConfig};

/// Long enough for a local socket, short enough for what never answers.
const WITHIN: Duration = Duration::from_millis(300);

/// What the daemon says to everything.
#[derive(Clone, Debug)]
enum Answer {
    /// These bytes instead of HTTP/2.
    Raw(Vec<u8>),
    /// A body, and the number of the gRPC status after it, if any.
    Body(Vec<u8>, Option<&'static str>),
    /// A message without end.
    Endless,
    /// Nothing.
    Silence,
}

/// A gRPC message with an honest length.
fn message(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a short message");
    [&[0], &length.to_be_bytes()[..], bytes].concat()
}

/// A daemon in a folder of its own. It ends with the test's runtime.
struct Liar {
    directory: tempfile::TempDir,
}

impl Liar {
    fn start(answer: &Answer) -> Self {
        let directory = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(directory.path().join("s")).expect("a socket");
        let answer = answer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer.clone()));
            }
        });
        Liar { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn runtime(&self) -> Containerd {
        let config = ContainerdConfig::new(self.path("s"), "liar", self.path("state"));
        Containerd::unchecked(config).expect("a name that can be sent")
    }
}

async fn serve(mut stream: tokio::net::UnixStream, answer: Answer) {
    if let Answer::Raw(bytes) = answer {
        let _ = stream.write_all(&bytes).await;
        return;
    }
    let service = hyper::service::service_fn(|_| respond(answer.clone()));
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(
    answer: Answer,
) -> Result<Response<BoxBody<Bytes, std::io::Error>>, std::io::Error> {
    let frames: Vec<Result<Frame<Bytes>, std::io::Error>> = match answer {
        Answer::Body(bytes, status) => {
            let trailers = status.map(|it| {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static(it));
                Ok(Frame::trailers(trailers))
            });
            [Ok(Frame::data(Bytes::from(bytes)))]
                .into_iter()
                .chain(trailers)
                .collect()
        }
        Answer::Endless => {
            // It announces four GiB, the most that can be, and means it.
            let head = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
            let piece = Bytes::from(vec![0; 64 << 10]);
            let pieces = std::iter::repeat_n(piece, 1 << 16);
            let frames = std::iter::once(head)
                .chain(pieces)
                .map(|it| Ok(Frame::data(it)));
            return Ok(reply(StreamBody::new(tokio_stream::iter(frames)).boxed()));
        }
        Answer::Silence | Answer::Raw(_) => std::future::pending().await,
    };
    Ok(reply(StreamBody::new(tokio_stream::iter(frames)).boxed()))
}

fn reply(body: BoxBody<Bytes, std::io::Error>) -> Response<BoxBody<Bytes, std::io::Error>> {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    response
}

/// Every call of the port; what each said, by name.
async fn every_call(runtime: &Containerd) -> Vec<(&'static str, Result<(), RuntimeError>)> {
    let id = ContainerId("a".to_owned());
    let image = ImageReference("localhost:1/a:1".to_owned());
    let spec = ContainerSpec {
        command: vec!["/a".to_owned()],
        network: Network::None,
        ..ContainerSpec::of(id.clone(), image.clone())
    };
    let pull = PullRequest {
        policy: PullPolicy::Never,
        ..PullRequest::of(image.clone())
    };
    let exec = ExecRequest {
        command: vec!["/a".to_owned()],
        timeout: WITHIN,
    };
    let (filter, logs, limits) = (
        ListFilter::default(),
        LogOptions::default(),
        Limits::default(),
    );
    vec![
        ("version", runtime.version(WITHIN).await.map(drop)),
        ("pull", runtime.pull(&pull, WITHIN).await.map(drop)),
        ("images", runtime.images(WITHIN).await.map(drop)),
        ("remove image", runtime.remove_image(&image, WITHIN).await),
        ("create", runtime.create(&spec, WITHIN).await),
        ("start", runtime.start(&id, WITHIN).await.map(drop)),
        ("wait", runtime.wait(&id, WITHIN).await.map(drop)),
        (
            "stop",
            runtime.stop(&id, Duration::ZERO, WITHIN).await.map(drop),
        ),
        ("kill", runtime.kill(&id, Signal::Kill, WITHIN).await),
        ("pause", runtime.pause(&id, WITHIN).await),
        ("resume", runtime.resume(&id, WITHIN).await),
        ("delete", runtime.delete(&id, true, WITHIN).await),
        ("inspect", runtime.inspect(&id, WITHIN).await.map(drop)),
        ("list", runtime.list(&filter, WITHIN).await.map(drop)),
        ("events", runtime.events(None, WITHIN).await.map(drop)),
        ("logs", runtime.logs(&id, &logs, WITHIN).await.map(drop)),
        ("exec", runtime.exec(&id, &exec, WITHIN).await.map(drop)),
        ("stats", runtime.stats(&id, WITHIN).await.map(drop)),
        ("update", runtime.update(&id, &limits, WITHIN).await),
    ]
}

#[tokio::test]
async fn every_call_fails_when_the_daemon_breaks_the_protocol() {
    let garbage = message(&[0xff; 40]);
    let table = [
        ("it hangs up", Answer::Raw(Vec::new())),
        (
            "another protocol",
            Answer::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ),
        ("no protocol", Answer::Raw(vec![0xff; 4_096])),
        ("no message", Answer::Body(Vec::new(), Some("0"))),
        ("no end", Answer::Body(message(b""), None)),
        ("not a protobuf", Answer::Body(garbage, Some("0"))),
        (
            "a message cut short",
            Answer::Body(vec![0, 0, 0, 0, 99, 1, 2], Some("0")),
        ),
        ("half a length", Answer::Body(vec![0, 0, 0], Some("0"))),
        (
            "compressed, and is not",
            Answer::Body(vec![1, 0, 0, 0, 0], Some("0")),
        ),
        (
            "more than may be",
            Answer::Body(vec![0, 0xff, 0xff, 0xff, 0xff], Some("0")),
        ),
        ("an endless message", Answer::Endless),
        ("an unknown status", Answer::Body(Vec::new(), Some("4711"))),
        (
            "a status that is none",
            Answer::Body(Vec::new(), Some("well")),
        ),
        ("silence", Answer::Silence),
    ];
    for (why, answer) in table {
        let liar = Liar::start(&answer);
        for (call, said) in every_call(&liar.runtime()).await {
            assert!(said.is_err(), "{call}: {why}");
        }
    }
}

#[tokio::test]
async fn an_answer_without_content_is_no_container_and_no_empty_state() {
    let liar = Liar::start(&Answer::Body(message(b""), Some("0")));
    let runtime = liar.runtime();
    let id = ContainerId("a".to_owned());
    let inspected = runtime
        .inspect(&id, WITHIN)
        .await
        .expect_err("there is nothing");
    assert_eq!(inspected.class, ErrorClass::Unknown, "{inspected}");
    let waited = runtime
        .wait(&id, WITHIN)
        .await
        .expect_err("there is nothing");
    assert_eq!(waited.class, ErrorClass::Unknown, "{waited}");
}

#[tokio::test]
async fn silence_is_a_missed_deadline() {
    let liar = Liar::start(&Answer::Silence);
    for (call, said) in every_call(&liar.runtime()).await {
        let class = said.expect_err(call).class;
        assert_eq!(class, ErrorClass::DeadlineExceeded, "{call}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_message_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let liar = Liar::start(&Answer::Body(message(&bytes), Some("0")));
            // That it comes to an end without a panic is what is claimed.
            every_call(&liar.runtime()).await;
        });
    }
}
