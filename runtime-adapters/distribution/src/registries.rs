//! What is known about registries before one is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Where Docker Hub's API lives; the name `docker.io` serves no images.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// How to reach registries. A host is written as in an image's name: `host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registries {
    /// Hosts that are spoken to in plain HTTP, besides those on loopback.
    pub plain_http: BTreeSet<String>,
    /// For each registry, the hosts to ask before it, in order.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// The longest silence: until the headers of an answer, and between two pieces of its body.
    pub idle_timeout: Duration,
}

impl Default for Registries {
    /// HTTPS except on loopback, no mirrors, 30 seconds of silence.
    fn default() -> Self {
        Registries {
            plain_http: BTreeSet::new(),
            mirrors: BTreeMap::new(),
            idle_timeout: Duration::from_secs(30),
        }
    }
}

impl Registries {
    /// True if `host` is spoken to in plain HTTP: it is listed or on loopback.
    pub fn is_plain_http(&self, host: &str) -> bool {
        self.plain_http.contains(host) || is_loopback(host)
    }

    /// The hosts to ask for images of `registry`, in order; never empty.
    pub(crate) fn hosts(&self, registry: &str) -> Vec<String> {
        let mirrors = self.mirrors.get(registry).into_iter().flatten();
        let origin = if registry == "docker.io" {
            DOCKER_HUB_API
        } else {
            registry
        };
        mirrors.cloned().chain([origin.to_owned()]).collect()
    }

    /// `http://host` or `https://host`.
    pub(crate) fn base(&self, host: &str) -> String {
        let scheme = if self.is_plain_http(host) {
            "http"
        } else {
            "https"
        };
        format!("{scheme}://{host}")
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::Registries;

    #[test]
    fn loopback_and_listed_hosts_are_plain() {
        let registries = Registries {
            plain_http: ["10.77.0.1:5000".to_owned()].into(),
            ..Registries::default()
        };
        for plain in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(registries.is_plain_http(plain), "{plain}");
        }
        assert!(registries.is_plain_http("10.77.0.1:5000"));
        for safe in [
            "10.77.0.1",
            "example.org",
            "localhost.example.org",
            "127.0.0.1.nip.io",
        ] {
            assert!(!registries.is_plain_http(safe), "{safe}");
        }
    }

    #[test]
    fn mirrors_come_before_the_registry() {
        let registries = Registries {
            mirrors: [("docker.io".to_owned(), vec!["localhost:5000".to_owned()])].into(),
            ..Registries::default()
        };
        assert_eq!(
            registries.hosts("docker.io"),
            ["localhost:5000", "registry-1.docker.io"]
        );
        assert_eq!(registries.hosts("quay.io"), ["quay.io"]);
    }
}
