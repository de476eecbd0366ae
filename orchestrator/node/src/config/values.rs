//! Values as people write them, and what is wrong with them.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// A value that cannot be used: where it is, why, and what would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}\n  hint: {hint}")]
pub struct Problem {
    /// Which setting.
    pub place: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
}

impl Problem {
    /// Puts the three together.
    pub fn new(place: impl Into<String>, reason: String, hint: impl Into<String>) -> Self {
        Problem {
            place: place.into(),
            reason,
            hint: hint.into(),
        }
    }
}

/// A length of time above zero, as in `5s`, `150ms` or `2m 30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(Duration::ZERO) => Err("has to be longer than nothing".to_owned()),
            Ok(duration) => Ok(Span(duration)),
            Err(_) => Err(format!(
                "`{text}` is not a length of time such as `5s` or `150ms`"
            )),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Bytes, as in `512MiB` or `2GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<bytesize::ByteSize>()
            .map(|size| Bytes(size.as_u64()))
            .map_err(|_| format!("`{text}` is not a size such as `512MiB`"))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// `host:port`. A host name stays one: it may mean something else tomorrow.
pub fn address(place: &str, text: &str) -> Result<String, Problem> {
    let good = text.parse::<SocketAddr>().is_ok()
        || text
            .rsplit_once(':')
            .is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok());
    if good {
        return Ok(text.to_owned());
    }
    let reason = format!("`{text}` is not an address");
    let hint = "write it as HOST:PORT, for example `10.0.0.1:7443` or `[::1]:7443`";
    Err(Problem::new(place, reason, hint))
}

fn is_host(host: &str) -> bool {
    (1..=253).contains(&host.len())
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

/// `host:port` on loopback: what listens there asks nobody who they are.
pub fn loopback(place: &str, text: &str) -> Result<SocketAddr, Problem> {
    match text.parse::<SocketAddr>() {
        Ok(at) if at.ip().is_loopback() => Ok(at),
        _ => Err(Problem::new(
            place,
            format!("`{text}` is not an address on loopback"),
            "use one such as `127.0.0.1:7445`; whoever reads it from elsewhere needs a proxy",
        )),
    }
}
