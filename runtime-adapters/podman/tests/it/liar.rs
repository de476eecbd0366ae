//! A service that answers as it is told to.

use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use wavetank_podman::Podman;

use crate::client;

/// The deadline of each call; a service that closes its connections never needs it.
pub const WITHIN: Duration = Duration::from_secs(20);

/// An inspection as Podman answers it.
pub const INSPECT: &str = r#"{"Id":"9d0e","ImageName":"localhost/a:1","PidFile":"","State":{
    "Status":"running","Pid":7,"ConmonPid":6,"ExitCode":0,
    "StartedAt":"2026-11-21T09:28:49.897846058Z","FinishedAt":"0001-01-01T00:00:00Z"},
    "Config":{"Labels":null,"StopSignal":15}}"#;

/// The same container once it has ended, with code 5.
pub fn ended() -> String {
    INSPECT
        .replace("running", "stopped")
        .replace("0001-01-01", "2026-11-22")
        .replace(r#""ExitCode":0"#, r#""ExitCode":5"#)
}

/// What becomes of a request.
pub enum Answer {
    /// The connection is closed after it.
    Whole(Vec<u8>),
    /// The connection stays open, and nothing comes any more.
    Begun(Vec<u8>),
}

/// A service.
pub struct Liar {
    pub podman: Podman,
    _accepting: JoinSet<()>,
    _folder: TempDir,
}

impl Liar {
    /// The same bytes, whatever is asked.
    pub fn new(answer: Vec<u8>) -> Self {
        Liar::answering(move |_| answer.clone())
    }

    /// `answer` gets the request line.
    pub fn answering(mut answer: impl FnMut(&str) -> Vec<u8> + Send + 'static) -> Self {
        Liar::doing(move |request| Answer::Whole(answer(request)))
    }

    /// `answer` gets the request line.
    pub fn doing(mut answer: impl FnMut(&str) -> Answer + Send + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read_request(&mut stream).await;
                // A client that has had enough hangs up.
                match answer(&request) {
                    Answer::Whole(answer) => drop(stream.write_all(&answer).await),
                    Answer::Begun(begin) => {
                        let _ = stream.write_all(&begin).await;
                        open.push(stream);
                    }
                }
            }
        });
        Liar {
            podman: client(socket),
            _accepting: accepting,
            _folder: folder,
        }
    }
}

async fn read_request(stream: &mut UnixStream) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|it| it == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => request.extend_from_slice(&buffer[..length]),
        }
    }
    let text = String::from_utf8_lossy(&request);
    text.lines().next().unwrap_or_default().to_owned()
}

/// An answer.
pub fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// An answer of Podman to what it stumbles over.
pub fn stumble(message: &str) -> Vec<u8> {
    refusal(500, message)
}

/// An answer of Podman about what it does not have.
pub fn no_such_container() -> Vec<u8> {
    refusal(404, "no such container")
}

fn refusal(status: u16, message: &str) -> Vec<u8> {
    let message = message.replace('"', "\\\"");
    let body = format!(r#"{{"cause":"{message}","message":"{message}","response":{status}}}"#);
    let head = format!("HTTP/1.1 {status} No\r\nContent-Length: ");
    format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
}
