//! Where the service is and which of its containers are ours.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The address is of a kind that this adapter does not speak.
    #[error("`{0}` is not an address of a Podman service: use unix:///PATH or tcp://HOST:PORT")]
    Address(String),
    /// A namespace name that could not become part of a container's name.
    #[error("`{0}` is not a namespace: 1 to 32 of a-z, 0-9 and `-`, beginning with a letter")]
    Namespace(String),
}

/// The address of a Podman service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port`, in the clear: Podman itself offers no TLS there before 5.6.
    Tcp(String),
}

impl Endpoint {
    /// Where this user's service is by Podman's own rules: `CONTAINER_HOST`, else the rootful
    /// socket for root, else the one in the user's runtime folder.
    pub fn detect() -> Result<Self, ConfigError> {
        if let Ok(address) = std::env::var("CONTAINER_HOST") {
            return address.parse();
        }
        let folder = match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(folder) if !rustix::process::geteuid().is_root() => PathBuf::from(folder),
            _ => PathBuf::from("/run"),
        };
        Ok(Endpoint::Unix(folder.join("podman/podman.sock")))
    }
}

impl FromStr for Endpoint {
    type Err = ConfigError;

    /// Parses an address as `CONTAINER_HOST` holds it.
    fn from_str(address: &str) -> Result<Self, ConfigError> {
        let unknown = || ConfigError::Address(address.to_owned());
        if let Some(path) = address.strip_prefix("unix://") {
            return match path.starts_with('/') {
                true => Ok(Endpoint::Unix(PathBuf::from(path))),
                false => Err(unknown()),
            };
        }
        let host = address.strip_prefix("tcp://").ok_or_else(unknown)?;
        let host = host.strip_suffix('/').unwrap_or(host);
        // Checked as a URL's authority, so that a later request cannot fail on it.
        match host.parse::<http::uri::Authority>() {
            Ok(it) if it.port_u16().is_some() && !host.contains('@') => {
                Ok(Endpoint::Tcp(host.to_owned()))
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
            Endpoint::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

/// A part of a service's containers and volumes that sees only itself. Podman has no such thing:
/// a prefix of names and a label make it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Namespace(String);

impl Namespace {
    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Namespace {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        let fits = (1..=32).contains(&name.len())
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .bytes()
                .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-');
        match fits {
            true => Ok(Namespace(name.to_owned())),
            false => Err(ConfigError::Namespace(name.to_owned())),
        }
    }
}

/// Everything that the adapter must be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodmanConfig {
    /// Where the service is.
    pub endpoint: Endpoint,
    /// Which of its containers are ours.
    pub namespace: Namespace,
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Endpoint, Namespace};

    #[test]
    fn addresses_are_those_of_container_host() {
        let unix = Endpoint::Unix(PathBuf::from("/run/podman/podman.sock"));
        assert_eq!("unix:///run/podman/podman.sock".parse(), Ok(unix.clone()));
        assert_eq!(unix.to_string(), "unix:///run/podman/podman.sock");
        let tcp = Endpoint::Tcp("10.0.0.1:8080".to_owned());
        assert_eq!("tcp://10.0.0.1:8080".parse(), Ok(tcp));
        let bad = [
            "",
            "/run/podman.sock",
            "unix://run/podman.sock",
            "ssh://root@host/run/podman.sock",
            "tcp://host",
            "tcp://user@host:1",
            "tcp://ho st:1",
        ];
        for address in bad {
            let error = address.parse::<Endpoint>().expect_err(address);
            assert!(error.to_string().contains("use unix:///PATH"), "{error}");
        }
    }

    #[test]
    fn a_namespace_cannot_break_out_of_a_name() {
        assert!("node-1".parse::<Namespace>().is_ok());
        for bad in ["", "a.b", "A", "1a", "-a", "a/b", &"a".repeat(33)] {
            assert!(bad.parse::<Namespace>().is_err(), "{bad}");
        }
    }
}
