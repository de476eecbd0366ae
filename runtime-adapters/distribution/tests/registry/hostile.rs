//! What a client must do with a registry that breaks the protocol: a typed error, soon, and
//! without taking more memory than announced.

use std::time::Duration;

use proptest::prelude::*;
use wavetank_distribution::{MANIFEST_BYTES_MAX, Registries, sha256};
use wavetank_port::{ErrorClass, RuntimeError};

use crate::cases::pull;
use crate::server::{Answer, Server, TestImage, ok, repository, response};

const MANIFEST: &str = "/v2/t/a/manifests/1";

/// Pulls with a short patience from a server that answers `path` with `answer`.
async fn pull_with(path: &str, answer: Answer) -> Result<(), RuntimeError> {
    let image = TestImage::new();
    let server = Server::start(image.routes()).await;
    server.route(path, answer);
    let registries = Registries {
        idle_timeout: Duration::from_millis(200),
        ..Registries::default()
    };
    let client = repository(registries, &format!("{}/t/a:1", server.address), None);
    let pulled = pull(&client).await;
    pulled.map(drop).map_err(RuntimeError::from)
}

async fn assert_unavailable(path: &str, answer: Answer, why: &str) {
    let error = pull_with(path, answer).await.expect_err(why);
    assert_eq!(error.class, ErrorClass::Unavailable, "{why}: {error}");
}

/// `answer` cut after `length` bytes.
fn cut(answer: &[u8], length: usize) -> Vec<u8> {
    answer[..length].to_vec()
}

#[tokio::test]
async fn broken_manifests_are_unavailable() {
    let image = TestImage::new();
    let whole = response("200 OK", "", &image.manifest);
    let both = br#"{"schemaVersion":2,"layers":[],"manifests":[]}"#;
    let liar = "docker-content-digest: sha256:".to_owned() + &"0".repeat(64) + "\r\n";
    let table = [
        ("closed at once", Vec::new()),
        ("closed in the head", cut(&whole, 20)),
        ("closed in the body", cut(&whole, whole.len() - 1)),
        (
            "JSON that ends early",
            response("200 OK", "", &image.manifest[..99]),
        ),
        (
            "not JSON",
            response("200 OK", "", b"<html>Welcome to the hotel</html>"),
        ),
        (
            "a wrong type",
            response("200 OK", "", br#"{"schemaVersion":2,"layers":"x"}"#),
        ),
        ("both kinds", response("200 OK", "", both)),
        ("neither kind", response("200 OK", "", b"{}")),
        (
            "another protocol",
            b"220 mail.example.org ESMTP\r\n".to_vec(),
        ),
        (
            "a wrong digest header",
            response("200 OK", &liar, &image.manifest),
        ),
        ("no content", response("204 No Content", "", b"")),
    ];
    for (why, bytes) in table {
        assert_unavailable(MANIFEST, Answer::Raw(bytes), why).await;
    }
}

#[tokio::test]
async fn broken_layers_are_unavailable() {
    let image = TestImage::new();
    let whole = response("200 OK", "", &image.layer);
    let mut corrupt = image.layer.clone();
    corrupt[3] ^= 1;
    let longer = [image.layer.as_slice(), b"more"].concat();
    let unframed = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &longer].concat();
    let unframed_short = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &image.layer[1..]].concat();
    let table = [
        ("closed in the body", cut(&whole, whole.len() - 1)),
        ("one byte is wrong", response("200 OK", "", &corrupt)),
        ("longer than announced", response("200 OK", "", &longer)),
        ("longer, without a length", unframed),
        ("shorter, without a length", unframed_short),
    ];
    for (why, bytes) in table {
        assert_unavailable(&image.layer_path(), Answer::Raw(bytes), why).await;
    }
}

#[tokio::test]
async fn silence_is_unavailable() {
    let image = TestImage::new();
    let whole = response("200 OK", "", &image.layer);
    let table = [
        ("no answer", MANIFEST.to_owned(), Vec::new()),
        ("half a head", MANIFEST.to_owned(), cut(&whole, 20)),
        (
            "half a layer",
            image.layer_path(),
            cut(&whole, whole.len() - 9),
        ),
    ];
    for (why, path, bytes) in table {
        assert_unavailable(&path, Answer::Hang(bytes), why).await;
    }
}

#[tokio::test]
async fn endless_answers_end_at_their_limit() {
    let image = TestImage::new();
    let unframed = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    let huge = b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999999\r\n\r\n".to_vec();
    let head = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    for path in [MANIFEST, &image.layer_path()] {
        for (why, bytes) in [("no length", &unframed), ("huge", &huge), ("head", &head)] {
            assert_unavailable(path, Answer::Endless(bytes.clone()), why).await;
        }
    }
    // An error page without end still says its status.
    let busy = b"HTTP/1.1 429 Too Many Requests\r\n\r\n".to_vec();
    let error = pull_with(MANIFEST, Answer::Endless(busy))
        .await
        .expect_err("429");
    assert_eq!(error.class, ErrorClass::ResourceExhausted);
}

#[tokio::test]
async fn a_manifest_has_a_largest_size() {
    let padding = usize::try_from(MANIFEST_BYTES_MAX).expect("a small number");
    let body = [vec![b' '; padding], b"{}".to_vec()].concat();
    let error = pull_with(MANIFEST, ok(&body)).await.expect_err("too large");
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert!(error.message.contains("more than"), "{error}");
}

#[tokio::test]
async fn a_configuration_that_claims_to_be_huge_is_not_fetched() {
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&TestImage::new().manifest).expect("ours");
    manifest["config"]["size"] = serde_json::json!(u64::MAX);
    let manifest = serde_json::to_vec(&manifest).expect("a value is JSON");
    assert_unavailable(MANIFEST, ok(&manifest), "a huge configuration").await;
}

/// Any change of one byte of a good manifest either leaves what we rely on, or is refused.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let manifest = TestImage::new().manifest;
    let length = manifest.len();
    (0..length, any::<u8>()).prop_map(move |(index, byte)| {
        let mut manifest = manifest.clone();
        manifest[index] = byte;
        manifest
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let result = block_on(pull_with(MANIFEST, Answer::Raw(bytes)));
        prop_assert!(result.is_err());
    }

    #[test]
    fn a_changed_manifest_is_never_the_one_that_was_asked_for(bytes in mutated()) {
        let good = TestImage::new().manifest;
        let result = block_on(async {
            let server = Server::start(TestImage::new().routes()).await;
            let digest = sha256(&good);
            server.route(&format!("/v2/t/a/manifests/{digest}"), ok(&bytes));
            let name = format!("{}/t/a@{digest}", server.address);
            pull(&repository(Registries::default(), &name, None)).await.map(drop)
        });
        prop_assert_eq!(result.is_ok(), bytes == good);
    }

    #[test]
    fn a_changed_manifest_behind_a_tag_does_not_panic(bytes in mutated()) {
        let _ = block_on(pull_with(MANIFEST, ok(&bytes)));
    }
}
