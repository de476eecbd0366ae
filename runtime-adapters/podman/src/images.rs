//! Pull, list and forget images.

use std::net::IpAddr;

use base64::Engine as _;
use http::HeaderName;
use tokio::time::sleep;
use wavetank_distribution::{Reference, Selector};
use wavetank_port::{Credentials, ErrorClass, Image, ImageReference, PullPolicy, PullRequest};

use crate::error::{Error, Result};
use crate::lifecycle::OUR_POLL;
use crate::service::Service;
use crate::transport::{Call, LineReader};
use crate::wire::{ImageRemoved, ImageRow, PullLine};

/// Takes a user name and password, as base64 of JSON.
const REGISTRY_AUTH: HeaderName = HeaderName::from_static("x-registry-auth");

/// How often a pull is begun that trips over the removal of another image.
const PULLS_MAX: u32 = 10;

/// An image's name in full, so that Podman never asks its list of short names.
pub(crate) fn full_name(image: &ImageReference) -> Result<Reference> {
    Reference::try_from(image)
        .map_err(|error| Error::ours(ErrorClass::InvalidArgument, error.to_string()))
}

impl Service {
    pub(crate) async fn pull(&self, request: &PullRequest) -> Result<Image> {
        let name = full_name(&request.image)?;
        if request.policy != PullPolicy::Always
            && let Some(image) = self.find_image(&name).await?
        {
            return Ok(image);
        }
        if request.policy == PullPolicy::Never {
            return Err(absent(&name));
        }
        let mut call = Call::post("/images/pull")
            .query("reference", &name.to_string())
            // Whether to pull was decided above.
            .query("policy", "always");
        if is_loopback(name.registry()) {
            call = call.query("tlsVerify", "false");
        }
        if let Some(credentials) = &request.credentials {
            call = call.header(REGISTRY_AUTH, registry_auth(credentials));
        }
        let mut tries = 1;
        loop {
            let lines = self.client.send(call.clone()).await?.lines();
            match finish_pull(&name, lines).await {
                Err(error) if lost_a_layer(&error) && tries < PULLS_MAX => tries += 1,
                Err(error) if lost_a_layer(&error) => {
                    return Err(Error::ours(ErrorClass::Unavailable, error.to_string()));
                }
                pulled => break pulled?,
            }
            sleep(OUR_POLL).await;
        }
        self.find_image(&name).await?.ok_or_else(|| absent(&name))
    }

    /// `None` if it is not here.
    async fn find_image(&self, name: &Reference) -> Result<Option<Image>> {
        let call = Call::get(format!("/images/{name}/json"));
        let row: Result<ImageRow> = match self.client.send(call).await {
            Ok(reply) => reply.json().await,
            Err(error) => Err(error),
        };
        match row {
            Ok(row) => Ok(Some(image(name, &row))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn images(&self) -> Result<Vec<Image>> {
        let rows: Vec<ImageRow> = self.client.listing(Call::get("/images/json")).await?;
        // A name that is none of a registry's, for example of a build, is not ours to show.
        let images = rows.iter().flat_map(|row| {
            let names = row.names.iter().filter_map(|it| Reference::parse(it).ok());
            names.map(|name| image(&name, row))
        });
        let mut images: Vec<Image> = images.collect();
        images.sort();
        images.dedup();
        Ok(images)
    }

    pub(crate) async fn remove_image(&self, image: &ImageReference) -> Result<()> {
        let name = full_name(image)?;
        let call = Call::delete(format!("/images/{name}"));
        let removed: Result<ImageRemoved> = match self.client.send(call).await {
            Ok(reply) => reply.json().await,
            Err(error) => Err(error),
        };
        let refusal = match removed {
            Ok(answer) if answer.errors.is_empty() => return Ok(()),
            Ok(answer) => Error::Refused {
                call: format!("remove image {name}"),
                status: 500,
                cause: String::new(),
                message: answer.errors.join("; "),
            },
            Err(error) => error,
        };
        // Of two that remove it at once, the slower may fail on any part of it.
        match self.find_image(&name).await? {
            None => Ok(()),
            Some(_) => Err(refusal),
        }
    }
}

/// Reads a pull to its end. The service answers 200 before it has begun, so only a line with an id
/// is a success.
async fn finish_pull(name: &Reference, mut lines: LineReader) -> Result<()> {
    let mut is_done = false;
    while let Some(line) = lines.next().await? {
        let line: PullLine = serde_json::from_slice(&line).map_err(|error| Error::Malformed {
            call: format!("pull {name}"),
            problem: format!("a line of the answer is not as promised: {error}"),
        })?;
        if !line.error.is_empty() {
            return Err(pull_error(name, line.error));
        }
        is_done |= !line.id.is_empty();
    }
    match is_done {
        true => Ok(()),
        // The service died, or was told to end.
        false => Err(Error::ours(
            ErrorClass::Unavailable,
            format!("pull {name}: the answer ended before the pull did"),
        )),
    }
}

/// True if what the pull meant to share went with another image meanwhile. In the words of the
/// storage below Podman: of an image that is missing at its registry they are never said.
fn lost_a_layer(error: &Error) -> bool {
    error.says("layer not known") || error.says("image not known")
}

/// The image's own name is taken out of what the class is told from: it may be called anything.
fn pull_error(name: &Reference, message: String) -> Error {
    let bare = format!("{}/{}", name.registry(), name.repository());
    let about_it = message.replace(&name.to_string(), "").replace(&bare, "");
    Error::Refused {
        call: format!("pull {name}"),
        status: 500,
        cause: about_it,
        message,
    }
}

fn absent(name: &Reference) -> Error {
    Error::ours(ErrorClass::NotFound, format!("image {name} is not here"))
}

/// The digest in a name is the one that was pulled; an image may have several.
fn image(name: &Reference, row: &ImageRow) -> Image {
    Image {
        reference: name.to_image_reference(),
        digest: match name.selector() {
            Selector::Digest(digest) => digest.to_string(),
            Selector::Tag(_) => row.digest.clone(),
        },
    }
}

/// Registries on this machine speak plain HTTP; everywhere else TLS is a must.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|it| it.is_ascii_digit()) => host,
        _ => registry,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|it: IpAddr| it.is_loopback())
}

fn registry_auth(credentials: &Credentials) -> String {
    let json = serde_json::json!({
        "username": credentials.user,
        "password": credentials.password,
    });
    base64::engine::general_purpose::URL_SAFE.encode(json.to_string())
}

#[cfg(test)]
mod tests {
    use wavetank_port::{ErrorClass, ImageReference};

    use super::{full_name, is_loopback, pull_error};

    #[test]
    fn only_this_machine_may_speak_plain_http() {
        for registry in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:1",
        ] {
            assert!(is_loopback(registry), "{registry}");
        }
        for registry in [
            "docker.io",
            "localhost.example.org",
            "10.0.0.1:5000",
            "[::2]:1",
        ] {
            assert!(!is_loopback(registry), "{registry}");
        }
    }

    #[test]
    fn what_a_pull_says_has_its_class() {
        let name = full_name(&ImageReference("localhost:5000/unauthorized:1".to_owned()));
        let name = name.expect("a name");
        let prefix = "initializing source docker://localhost:5000/unauthorized:1: ";
        let table = [
            (
                "reading manifest 1 in localhost:5000/unauthorized: manifest unknown",
                ErrorClass::NotFound,
            ),
            (
                "unable to retrieve auth token: invalid username/password: unauthorized",
                ErrorClass::Unauthenticated,
            ),
            (
                "pinging container registry localhost:5000: Get \"http://localhost:5000/v2/\": \
                 dial tcp 127.0.0.1:5000: connect: connection refused",
                ErrorClass::Unavailable,
            ),
            (
                "reading manifest 1: received unexpected HTTP status: 503 Service Unavailable",
                ErrorClass::Unavailable,
            ),
            (
                "reading blob sha256:00: Digest did not match, expected sha256:00, got sha256:01",
                ErrorClass::Unavailable,
            ),
            (
                "reading manifest 1: toomanyrequests: slow down",
                ErrorClass::ResourceExhausted,
            ),
            (
                "writing blob: no space left on device",
                ErrorClass::ResourceExhausted,
            ),
        ];
        for (message, class) in table {
            assert_eq!(
                pull_error(&name, format!("{prefix}{message}")).class(),
                class,
                "{message}"
            );
        }
    }
}
