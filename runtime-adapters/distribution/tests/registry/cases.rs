//! What a client must do with a registry that keeps the protocol.

use std::collections::BTreeMap;

use wavetank_distribution::{DistributionError, Registries, Repository, sha256};
use wavetank_port::{Credentials, ErrorClass};

use crate::server::{Answer, Server, TestImage, ok, repository, response, status};

fn credentials() -> Credentials {
    Credentials {
        user: "wavetank".to_owned(),
        password: "secret".to_owned(),
    }
}

/// Everything of an image: manifest digest, configuration, layer.
pub async fn pull(
    repository: &Repository,
) -> Result<(String, Vec<u8>, Vec<u8>), DistributionError> {
    let resolved = repository.resolve().await?;
    let config = repository.config(&resolved.manifest).await?;
    let mut layer = Vec::new();
    for descriptor in resolved.manifest.layers() {
        let mut blob = repository.blob(descriptor).await?;
        while let Some(piece) = blob.next().await? {
            layer.extend_from_slice(&piece);
        }
        assert!(blob.next().await?.is_none(), "the end stays the end");
    }
    Ok((resolved.descriptor.digest().to_string(), config, layer))
}

async fn assert_pulls(repository: &Repository, image: &TestImage) {
    let (digest, config, layer) = pull(repository).await.expect("a good registry");
    assert_eq!(digest, sha256(&image.manifest).to_string());
    assert_eq!(config, image.config);
    assert_eq!(layer, image.layer);
}

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest() {
    let image = TestImage::new();
    let server = Server::start(image.routes()).await;
    assert_pulls(&server.repository(None), &image).await;
    let by_digest = format!("{}/t/a@{}", server.address, sha256(&image.manifest));
    let by_digest = repository(Registries::default(), &by_digest, None);
    assert_pulls(&by_digest, &image).await;
}

fn index_of(image: &TestImage, architecture: &str) -> Vec<u8> {
    let other = sha256(b"another machine's");
    let entry = |architecture: &str, digest: &dyn std::fmt::Display| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest.to_string(),
            "size": 1,
            "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [
            entry("mips64", &other),
            entry(architecture, &sha256(&image.manifest)),
        ],
    });
    serde_json::to_vec(&index).expect("a value is JSON")
}

#[tokio::test]
async fn an_index_leads_to_this_machines_image() {
    let image = TestImage::new();
    let server = Server::start(image.routes()).await;
    let here = oci_spec::image::Arch::default().to_string();
    server.route("/v2/t/a/manifests/1", ok(&index_of(&image, &here)));
    assert_pulls(&server.repository(None), &image).await;

    server.route("/v2/t/a/manifests/1", ok(&index_of(&image, "riscv128")));
    let error = pull(&server.repository(None))
        .await
        .expect_err("no image for us");
    assert_eq!(error.class(), ErrorClass::NotFound);
}

#[tokio::test]
async fn a_password_is_sent_only_when_asked_for() {
    let image = TestImage::new();
    let challenge = status(
        "401 Unauthorized",
        "www-authenticate: Basic realm=\"r\"\r\n",
    );
    // base64 of `wavetank:secret`.
    let line = "authorization: Basic d2F2ZXRhbms6c2VjcmV0\r\n".to_owned();
    let guard = |answer| {
        Answer::If(
            line.clone(),
            Box::new(answer),
            Box::new(Answer::Raw(challenge.clone())),
        )
    };
    let routes = image
        .routes()
        .into_iter()
        .map(|(path, it)| (path, guard(it)));
    let server = Server::start(routes.collect()).await;

    assert_pulls(&server.repository(Some(&credentials())), &image).await;
    assert!(!server.requests()[0].contains("authorization"));

    let error = pull(&server.repository(None))
        .await
        .expect_err("no password");
    assert_eq!(error.class(), ErrorClass::Unauthenticated);
    let wrong = Credentials {
        password: "wrong".to_owned(),
        ..credentials()
    };
    let error = pull(&server.repository(Some(&wrong)))
        .await
        .expect_err("a wrong password");
    assert_eq!(error.class(), ErrorClass::Unauthenticated);
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used_for_all() {
    let image = TestImage::new();
    let server = Server::start(BTreeMap::new()).await;
    let challenge = format!(
        "www-authenticate: Bearer realm=\"http://{}/token\",service=\"s\"\r\n",
        server.address
    );
    let refused = Answer::Raw(status("401 Unauthorized", &challenge));
    for (path, answer) in image.routes() {
        let line = "authorization: Bearer t0ken\r\n".to_owned();
        server.route(
            &path,
            Answer::If(line, Box::new(answer), Box::new(refused.clone())),
        );
    }
    let token = "/token?service=s&scope=repository%3At%2Fa%3Apull";
    server.route(token, ok(br#"{"token":"t0ken","expires_in":60}"#));
    assert_pulls(&server.repository(None), &image).await;
    let asked = server
        .requests()
        .iter()
        .filter(|it| it.contains("GET /token"))
        .count();
    assert_eq!(asked, 1);

    server.route(token, Answer::Raw(status("401 Unauthorized", "")));
    let error = pull(&server.repository(Some(&credentials())))
        .await
        .expect_err("no token");
    assert_eq!(error.class(), ErrorClass::Unauthenticated);

    server.route(token, ok(br#"{"access_token":"another"}"#));
    let error = pull(&server.repository(None))
        .await
        .expect_err("a token that is refused");
    assert_eq!(error.class(), ErrorClass::Unauthenticated);
}

#[tokio::test]
async fn a_redirect_is_followed_without_the_password() {
    let image = TestImage::new();
    let storage = Server::start([("/x".to_owned(), ok(&image.layer))].into()).await;
    let server = Server::start(image.routes()).await;
    let challenge = status(
        "401 Unauthorized",
        "www-authenticate: Basic realm=\"r\"\r\n",
    );
    let location = format!("location: http://{}/x\r\n", storage.address);
    let moved = Answer::Raw(status("307 Temporary Redirect", &location));
    server.route(
        &image.layer_path(),
        Answer::If(
            "authorization: Basic".to_owned(),
            Box::new(moved),
            Box::new(Answer::Raw(challenge)),
        ),
    );
    assert_pulls(&server.repository(Some(&credentials())), &image).await;
    let requests = storage.requests();
    assert_eq!(requests.len(), 1);
    assert!(!requests[0].contains("authorization"), "{}", requests[0]);
}

#[tokio::test]
async fn a_redirect_that_leads_nowhere_good_ends() {
    let image = TestImage::new();
    let server = Server::start(image.routes()).await;
    for location in [
        "location: /v2/t/a/manifests/1\r\n",
        "location: http://192.0.2.1/\r\n",
        "",
    ] {
        let moved = status("302 Found", location);
        server.route("/v2/t/a/manifests/1", Answer::Raw(moved));
        let error = pull(&server.repository(None)).await.expect_err("nowhere");
        assert_eq!(error.class(), ErrorClass::Unavailable, "{location}");
    }
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_never_told_the_password() {
    let image = TestImage::new();
    let refused = status(
        "401 Unauthorized",
        "www-authenticate: Basic realm=\"r\"\r\n",
    );
    let mirror = Server::start(BTreeMap::new()).await;
    let origin = Server::start(image.routes()).await;
    let registries = Registries {
        mirrors: [(origin.address.to_string(), vec![mirror.address.to_string()])].into(),
        ..Registries::default()
    };
    let name = format!("{}/t/a:1", origin.address);
    let client = || repository(registries.clone(), &name, Some(&credentials()));
    // It has nothing: the registry itself is asked.
    assert_pulls(&client(), &image).await;
    assert_eq!(mirror.requests().len(), 3);
    mirror.route("/v2/t/a/manifests/1", Answer::Raw(refused));
    assert_pulls(&client(), &image).await;
    // It has all: the registry is left alone.
    for (path, answer) in image.routes() {
        mirror.route(&path, answer);
    }
    let before = origin.requests().len();
    assert_pulls(&client(), &image).await;
    assert_eq!(origin.requests().len(), before);
    assert!(
        mirror
            .requests()
            .iter()
            .all(|it| !it.contains("authorization"))
    );
}

#[tokio::test]
async fn an_error_status_has_a_class_and_the_registrys_reason() {
    let image = TestImage::new();
    let table = [
        ("404 Not Found", ErrorClass::NotFound),
        ("403 Forbidden", ErrorClass::Unauthenticated),
        ("429 Too Many Requests", ErrorClass::ResourceExhausted),
        ("500 Internal Server Error", ErrorClass::Unavailable),
        ("503 Service Unavailable", ErrorClass::Unavailable),
    ];
    let paths = ["/v2/t/a/manifests/1".to_owned(), image.layer_path()];
    for (path, (code, class)) in paths.iter().flat_map(|it| table.map(|row| (it, row))) {
        let server = Server::start(image.routes()).await;
        let body = br#"{"errors":[{"code":"X","message":"our own reason"}]}"#;
        server.route(path, Answer::Raw(response(code, "", body)));
        let error = pull(&server.repository(None)).await.expect_err(code);
        assert_eq!(error.class(), class, "{code}");
        assert!(error.to_string().contains("our own reason"), "{error}");
    }
}

#[tokio::test]
async fn a_refused_connection_is_unavailable() {
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        listener.local_addr().expect("a bound socket")
    };
    let client = repository(Registries::default(), &format!("{closed}/t/a:1"), None);
    let error = pull(&client).await.expect_err("nobody listens");
    assert_eq!(error.class(), ErrorClass::Unavailable);
}
