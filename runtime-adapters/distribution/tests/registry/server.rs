//! A server whose answers are bytes: what a request's path gets is written by the test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wavetank_distribution::{Client, Reference, Registries, Repository, sha256};
use wavetank_port::Credentials;

/// What a path gets.
#[derive(Clone)]
pub enum Answer {
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// These bytes, then silence on an open connection.
    Hang(Vec<u8>),
    /// A head, then zeros for as long as the client takes them.
    Endless(Vec<u8>),
    /// The first if the request has this header line, else the second.
    If(String, Box<Answer>, Box<Answer>),
}

/// Answers by path; what is not listed is 404.
pub type Routes = BTreeMap<String, Answer>;

/// A running server. It ends with the test's runtime.
pub struct Server {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    routes: Arc<Mutex<Routes>>,
}

impl Server {
    pub async fn start(routes: Routes) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server = Server {
            address: listener.local_addr().expect("a bound socket"),
            requests: Arc::default(),
            routes: Arc::new(Mutex::new(routes)),
        };
        let (requests, routes) = (server.requests.clone(), server.routes.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, routes.clone(), requests.clone()));
            }
        });
        server
    }

    /// Replaces the answer to `path`.
    pub fn route(&self, path: &str, answer: Answer) {
        let mut routes = self.routes.lock().expect("no test panicked holding it");
        routes.insert(path.to_owned(), answer);
    }

    /// The heads of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests
            .lock()
            .expect("no test panicked holding it")
            .clone()
    }

    /// A client of `t/a:1` on this server.
    pub fn repository(&self, credentials: Option<&Credentials>) -> Repository {
        let reference = format!("{}/t/a:1", self.address);
        repository(Registries::default(), &reference, credentials)
    }
}

pub fn repository(
    registries: Registries,
    reference: &str,
    credentials: Option<&Credentials>,
) -> Repository {
    let reference = Reference::parse(reference).expect("a valid reference");
    Client::new(registries).repository(&reference, credentials)
}

async fn serve(
    mut stream: TcpStream,
    routes: Arc<Mutex<Routes>>,
    requests: Arc<Mutex<Vec<String>>>,
) {
    let Some(head) = read_head(&mut stream).await else {
        return;
    };
    let path = head.split(' ').nth(1).unwrap_or_default();
    let answer = {
        let routes = routes.lock().expect("no test panicked holding it");
        routes.get(path).cloned()
    };
    requests
        .lock()
        .expect("no test panicked holding it")
        .push(head.clone());
    let answer = answer.unwrap_or_else(|| Answer::Raw(status("404 Not Found", "")));
    reply(stream, &head, answer).await;
}

async fn reply(mut stream: TcpStream, head: &str, mut answer: Answer) {
    while let Answer::If(line, yes, no) = answer {
        answer = if head.contains(&line) { *yes } else { *no };
    }
    match answer {
        Answer::Raw(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Answer::Hang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            // Ends when the client goes away.
            let _ = stream.read(&mut [0]).await;
        }
        Answer::Endless(bytes) => {
            let _ = stream.write_all(&bytes).await;
            while stream.write_all(&[0; 64 << 10]).await.is_ok() {}
        }
        Answer::If(..) => unreachable!("followed above"),
    }
}

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// A whole answer.
pub fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// An answer without body.
pub fn status(status: &str, headers: &str) -> Vec<u8> {
    response(status, headers, b"")
}

pub fn ok(body: &[u8]) -> Answer {
    Answer::Raw(response("200 OK", "", body))
}

/// An image of one layer and the routes that serve it as `t/a:1`.
pub struct TestImage {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layer: Vec<u8>,
}

impl TestImage {
    pub fn new() -> Self {
        let config = br#"{"architecture":"amd64","os":"linux"}"#.to_vec();
        let layer = b"not really an archive, but bytes".to_vec();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": sha256(&config),
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": sha256(&layer),
                "size": layer.len(),
            }],
        });
        TestImage {
            manifest: serde_json::to_vec(&manifest).expect("a value is JSON"),
            config,
            layer,
        }
    }

    pub fn layer_path(&self) -> String {
        format!("/v2/t/a/blobs/{}", sha256(&self.layer))
    }

    pub fn routes(&self) -> Routes {
        let digest = sha256(&self.manifest);
        let blob = |bytes: &[u8]| format!("/v2/t/a/blobs/{}", sha256(bytes));
        BTreeMap::from([
            ("/v2/t/a/manifests/1".to_owned(), ok(&self.manifest)),
            (format!("/v2/t/a/manifests/{digest}"), ok(&self.manifest)),
            (blob(&self.config), ok(&self.config)),
            (blob(&self.layer), ok(&self.layer)),
        ])
    }
}
